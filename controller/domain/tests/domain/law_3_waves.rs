//! Law 3: a controller signs only what its own replica and its own clock say; and an order comes again when it ran out.

use dotmac_domain::{
    Command, State,
    access::Role,
    desired::{Wave, decode_header},
    envelope::Actor,
    signer::{CLOCK_TOLERANCE_MS, EvidenceError, SignRefusal, check},
    state::Map,
};
use dotmac_protocol::{
    codec::{decode, encode},
    digest::Digest,
    time::Timestamp,
    wave::{Leaf, Verb, WaveHeader, merkle_root},
};

use crate::{
    fixture::{HOUR_MS, WINDOW_MS, World, deployment, token, token_id},
    law_3_signers::{signed, unproven},
};

#[test]
fn law_3_a_wave_off_the_signers_clock_is_refused() {
    let (mut world, _) = World::with_agent();
    world.create("Demo ISP");
    world.carry_on();
    let sealed_at = world.now;
    let at = |now: u64| check(&world.state, 1, Timestamp(now)).map(|_| ());
    let refused = |now: u64| {
        let (sealed_at, now) = (Timestamp(sealed_at), Timestamp(now));
        Err(SignRefusal::Clock { sealed_at, now })
    };
    let behind = sealed_at - CLOCK_TOLERANCE_MS;
    assert_eq!(at(sealed_at), Ok(()));
    assert_eq!(at(behind), Ok(()));
    assert_eq!(at(behind - 1), refused(behind - 1));
    // A signer that was away signs late, as long as the window is open.
    assert_eq!(at(sealed_at + WINDOW_MS - 1), Ok(()));
    assert_eq!(at(sealed_at + WINDOW_MS), refused(sealed_at + WINDOW_MS));
}

#[test]
fn law_3_a_clock_that_is_pushed_forward_neither_ends_a_grace_time_nor_frees_a_budget() {
    let (mut world, _, id) = World::with_active();
    let honest_clock = world.now;
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    world.now += 10 * HOUR_MS;
    world.carry_on();
    assert_eq!(world.leaf(&id).verb, Verb::Remove);
    let wave = world.state.wave_number;
    let found = check(&world.state, wave, Timestamp(honest_clock)).map(|_| ());
    assert!(matches!(found, Err(SignRefusal::Clock { .. })), "{found:?}");
}

#[test]
fn law_3_a_wave_that_is_not_in_the_state_is_refused() {
    let (world, _) = World::with_agent();
    assert_eq!(signed(&world, 1), Err(SignRefusal::Unknown(1)));
    assert_eq!(signed(&world, 0), Err(SignRefusal::Unknown(0)));
    assert_eq!(
        check(&State::default(), 1, Timestamp(world.now)),
        Err(SignRefusal::Unknown(1))
    );
}

fn with_wave(world: &World, change: impl FnOnce(&mut Wave)) -> World {
    let mut world = world.clone();
    let mut wave = world.state.waves.get(&1).unwrap().clone();
    change(&mut wave);
    let waves: Map<u64, Wave> = Map::default();
    world.state.waves = waves.insert(1, wave);
    world
}

#[test]
fn law_3_a_wave_whose_parts_contradict_each_other_is_refused() {
    let (mut world, _) = World::with_agent();
    world.create("Demo ISP");
    world.create("Second ISP");
    world.carry_on();
    let header = |change: fn(&mut WaveHeader)| {
        with_wave(&world, |wave| {
            let mut header = decode_header(wave).unwrap();
            change(&mut header);
            wave.header = encode(&header).unwrap();
        })
    };
    for forged in [
        header(|one| one.number = 2),
        header(|one| one.leaves = 1),
        header(|one| one.root = Digest::of(b"other")),
        with_wave(&world, |wave| wave.header.push(0)),
        with_wave(&world, |wave| wave.leaves.swap(0, 1)),
        with_wave(&world, |wave| wave.leaves.truncate(1)),
    ] {
        assert_eq!(signed(&forged, 1), Err(SignRefusal::Contradiction(1)));
    }
}

#[test]
fn law_3_an_order_that_is_not_what_the_state_says_is_refused() {
    let (mut world, _) = World::with_agent();
    world.create("Demo ISP");
    world.create("Second ISP");
    world.carry_on();
    type Change = fn(&mut Leaf);
    let changes: [(&str, Change); 8] = [
        ("agent", |leaf| {
            leaf.agent = "lab-1-00000000".parse().unwrap()
        }),
        ("tenant", |leaf| {
            leaf.tenant = "other-00000000".parse().unwrap()
        }),
        ("unit", |leaf| leaf.unit = "instance/other".parse().unwrap()),
        ("verb", |leaf| leaf.verb = Verb::Remove),
        ("generation", |leaf| {
            leaf.generation = leaf.generation.next()
        }),
        ("sequence", |leaf| leaf.sequence = leaf.sequence.next()),
        ("payload", |leaf| leaf.payload = Digest::of(b"other")),
        ("trace", |leaf| {
            let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            leaf.trace = other.parse().ok();
        }),
    ];
    for (name, change) in changes {
        let forged = with_wave(&world, |wave| {
            let mut leaf: Leaf = decode(&wave.leaves[0]).unwrap();
            change(&mut leaf);
            wave.leaves[0] = leaf.bytes();
            let mut header = decode_header(wave).unwrap();
            header.root = merkle_root(&wave.leaves);
            wave.header = encode(&header).unwrap();
        });
        let found = signed(&forged, 1);
        assert!(
            matches!(found, Err(SignRefusal::Leaf { .. })),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn an_order_whose_window_ended_comes_again_with_a_new_sequence_and_the_same_generation() {
    let (mut world, mut agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    let first = world.leaf(&id);
    world.now += WINDOW_MS - 1;
    assert_eq!(world.planned(), vec![]);
    world.now += 1;
    world.carry_on();
    let second = world.leaf(&id);
    assert_eq!(
        (first.generation.0, first.sequence.0, first.previous.0),
        (1, 1, 0)
    );
    assert_eq!(
        (second.generation.0, second.sequence.0, second.previous.0),
        (1, 2, 0)
    );
    assert_eq!(signed(&world, 2), Ok(()));
    assert_eq!(
        world.state.waves.keys().copied().collect::<Vec<_>>(),
        vec![2]
    );
    // The first order arrives after all: the same generation, so nothing is left to order.
    let accepted = agent.receipt(&first, dotmac_protocol::record::Outcome::Accepted);
    world.report(&agent, vec![accepted]).unwrap();
    assert_eq!(
        (world.state.waves.size(), world.state.open_orders.size()),
        (0, 0)
    );
    world.now += WINDOW_MS;
    assert_eq!(world.planned(), vec![]);
}

#[test]
fn a_late_signer_still_signs_a_wave_of_which_some_orders_are_done() {
    let (mut world, mut agent) = World::with_agent();
    let ids = [world.create("Demo ISP"), world.create("Second ISP")];
    world.carry_on();
    let leaf = world.leaf(&ids[0]);
    let accepted = agent.receipt(&leaf, dotmac_protocol::record::Outcome::Accepted);
    world.report(&agent, vec![accepted]).unwrap();
    assert_eq!(signed(&world, 1), Ok(()));
}

#[test]
fn law_3_a_tenants_administrator_authorises_his_own_tenant_only() {
    let (mut world, _, id) = World::with_active();
    let tenant = world.state.deployments.get(&id).unwrap().tenant.clone();
    world
        .ask(Command::CreateToken(token(
            2,
            Role::TenantAdmin,
            Some(&tenant),
        )))
        .unwrap();
    let mut staging = deployment("");
    (staging.tenant, staging.environment) = (Some(tenant), "staging".into());
    let actor = Actor::Person(token_id(2));
    world
        .ask_as(actor.clone(), Command::CreateDeployment(Box::new(staging)))
        .unwrap();
    world.carry_on();
    assert_eq!(signed(&world, world.state.wave_number), Ok(()));
    // The token is taken from him (as a role change would): his open orders are not signed any more.
    let mut demoted = world.state.tokens.get(&token_id(2)).unwrap().clone();
    demoted.role = Role::TenantUser;
    world.state.tokens.insert_mut(token_id(2), demoted);
    let found = unproven(signed(&world, world.state.wave_number));
    assert_eq!(found, ("deployment", EvidenceError::Forbidden));
}
