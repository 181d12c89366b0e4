//! Law 3: the clock is sealed every minute, tells every agent its whole set, and is signed only where it is believed.

use dotmac_domain::{
    Accepted, Command,
    clock::{
        CLOCK_EVERY_MS, CLOCK_SIGNED_WITHIN_MS, CLOCK_SOONEST_MS, ClockRefusal, SealedClock, check,
    },
    plan::next_due,
    reply::Code,
    signer::CLOCK_TOLERANCE_MS,
};
use dotmac_protocol::{
    clock::{CLOCK_DOMAIN, SignedClock, desired_digest},
    codec::encode,
    digest::Digest,
    ids::{Generation, TrustVersion, UnitId},
    keys::Signature,
    time::Timestamp,
    wave::merkle_paths,
};

use crate::fixture::{World, code_of, key};

fn clock(world: &World) -> &SealedClock {
    world.state.clock.as_ref().expect("a clock is sealed")
}

fn signed(world: &World, number: u64, before: u64) -> Result<(), ClockRefusal> {
    check(&world.state, number, before, Timestamp(world.now)).map(|_| ())
}

#[test]
fn a_clock_is_sealed_every_minute_while_there_is_an_agent() {
    let mut world = World::founded();
    assert_eq!((world.due(), next_due(&world.state)), (vec![], None));
    world.join(40);
    assert_eq!(world.due(), [Command::SealClock]);
    world.carry_on();
    let first = world.now;
    let next = Timestamp(first + CLOCK_EVERY_MS);
    assert_eq!((clock(&world).number, clock(&world).at.0), (1, first));
    assert_eq!((world.due(), next_due(&world.state)), (vec![], Some(next)));
    world.now = next.0 - 1;
    assert_eq!(world.due(), vec![]);
    world.now += 1;
    world.carry_on();
    assert_eq!((clock(&world).number, clock(&world).at), (2, next));
}

#[test]
fn an_agent_that_joins_is_told_the_time_within_a_second_and_not_every_one_by_itself() {
    let (mut world, _) = World::with_agent();
    world.carry_on();
    world.join(41);
    world.join(42);
    assert_eq!(world.due(), vec![]);
    world.now += CLOCK_SOONEST_MS;
    world.carry_on();
    assert_eq!((clock(&world).number, clock(&world).desired.size()), (2, 3));
    let trust = world.state.trust.as_mut().unwrap();
    trust.version = TrustVersion(2);
    world.now += CLOCK_SOONEST_MS;
    world.carry_on();
    let statement = clock(&world).statement().unwrap();
    assert_eq!((statement.number, statement.trust_version.0), (3, 2));
}

#[test]
fn only_the_planner_seals_a_clock_and_two_leaders_seal_one() {
    let (mut world, agent) = World::with_agent();
    assert_eq!(code_of(world.ask(Command::SealClock)), Code::Forbidden);
    let actor = dotmac_domain::envelope::Actor::Agent(agent.id);
    assert_eq!(
        code_of(world.ask_as(actor, Command::SealClock)),
        Code::Forbidden
    );
    for _ in 0..2 {
        assert_eq!(world.plan(Command::SealClock), Ok(Accepted::Done));
    }
    assert_eq!(clock(&world).number, 1);
    let stories = world.applied.iter().rev().take(2);
    assert!(stories.into_iter().all(|applied| applied.facts.is_empty()));
}

#[test]
fn law_3_the_clock_tells_every_agent_all_that_it_has_to_keep() {
    let (mut world, mut agent, active) = World::with_active();
    let waiting = world.create("Waiting ISP");
    let removed = world.create("Removed ISP");
    world.make_active(&mut agent, &removed);
    world.destroy(&mut agent, &removed);
    let idle = world.join(41);
    world.now += CLOCK_EVERY_MS;
    world.carry_on();
    let unit = |id| UnitId::instance(id);
    let keep = |id| {
        let entry = world.state.units.get(&(agent.id.clone(), unit(id)));
        Digest::of(&entry.unwrap().payload)
    };
    // What was ordered counts, whether it arrived or not; what is to be removed does not.
    let expected = desired_digest([
        (&unit(&active), Generation(1), keep(&active)),
        (&unit(&waiting), Generation(1), keep(&waiting)),
    ]);
    let trust = world.state.trust.as_ref().unwrap();
    let sealed = clock(&world);
    let paths = merkle_paths(&sealed.leaves());
    for (index, id) in sealed.desired.keys().enumerate() {
        let sign = |seed| Signature::make(&key(seed), CLOCK_DOMAIN, &sealed.body);
        let told = SignedClock {
            body: sealed.body.clone(),
            signatures: vec![sign(1), sign(2)],
            leaf: sealed.leaves()[index].clone(),
            index: u32::try_from(index).unwrap(),
            path: paths[index].clone(),
        };
        let verified = told.verify(trust, id).unwrap();
        let set = if *id == idle.id {
            desired_digest([])
        } else {
            expected
        };
        assert_eq!(verified.desired(), set);
        assert_eq!(verified.statement().at, Timestamp(world.now));
    }
    assert_eq!(sealed.desired.size(), 2);
}

#[test]
fn law_3_a_clock_off_the_signers_own_is_refused() {
    let (mut world, _) = World::with_agent();
    world.carry_on();
    let sealed_at = world.now;
    for (now, is_signed) in [
        (sealed_at - CLOCK_TOLERANCE_MS - 1, false),
        (sealed_at - CLOCK_TOLERANCE_MS, true),
        (sealed_at + CLOCK_SIGNED_WITHIN_MS, true),
        (sealed_at + CLOCK_SIGNED_WITHIN_MS + 1, false),
    ] {
        world.now = now;
        let found = signed(&world, 1, 0);
        let (number, at, now) = (1, Timestamp(sealed_at), Timestamp(now));
        let expected = if is_signed {
            Ok(())
        } else {
            Err(ClockRefusal::Time { number, at, now })
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn law_3_a_signer_signs_no_clock_before_one_that_it_signed() {
    let (mut world, _) = World::with_agent();
    world.carry_on();
    assert_eq!(signed(&world, 1, 0), Ok(()));
    for number in [0, 2] {
        assert_eq!(
            signed(&world, number, 0),
            Err(ClockRefusal::Unknown(number))
        );
    }
    let found = 1;
    for signed_before in [1, 7] {
        let refused = ClockRefusal::Number {
            signed: signed_before,
            found,
        };
        assert_eq!(signed(&world, 1, signed_before), Err(refused));
    }
}

#[test]
fn law_3_a_clock_whose_parts_contradict_each_other_is_refused() {
    let (mut world, agent) = World::with_agent();
    world.carry_on();
    let forge = |change: fn(&mut SealedClock)| {
        let mut forged = world.clone();
        change(forged.state.clock.as_mut().unwrap());
        signed(&forged, 1, 0)
    };
    let restate = |change: fn(&mut dotmac_protocol::clock::ClockStatement)| {
        let mut forged = world.clone();
        let sealed = forged.state.clock.as_mut().unwrap();
        let mut statement = sealed.statement().unwrap();
        change(&mut statement);
        sealed.body = encode(&statement).unwrap();
        signed(&forged, 1, 0)
    };
    let mut less = world.clone();
    let sealed = less.state.clock.as_mut().unwrap();
    sealed.desired.insert_mut(agent.id, Digest::of(b"less"));
    for found in [
        signed(&less, 1, 0),
        forge(|sealed| sealed.body.clear()),
        forge(|sealed| sealed.at = Timestamp(1)),
        restate(|statement| statement.leaves += 1),
        restate(|statement| statement.number += 1),
        restate(|statement| statement.root = Digest::ZERO),
        restate(|statement| statement.epoch = statement.epoch.next()),
        restate(|statement| statement.trust_version = TrustVersion(9)),
    ] {
        assert_eq!(found, Err(ClockRefusal::Contradiction(1)));
    }
}
