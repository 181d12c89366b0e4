//! Law 11: bounded. What the State keeps for retries, waves and joins has a limit, and so has every answer.

use dotmac_domain::{
    Command,
    desired::{JOURNEY_MAX, STATION_BYTES_MAX},
    envelope::{Evidence, SIGNATURE_BASE_BYTES_MAX},
    fleet::{JOIN_TOKEN_LIFETIME_MAX_MS, JOIN_TOKENS_MAX},
    plan::PLAN_COMMANDS_MAX,
    reply::{Code, DETAIL_CHARS_MAX, FIELD_CHARS_MAX},
    state::{ANSWERS_MAX, Answer},
};
use dotmac_protocol::{
    ids::RequestId,
    record::{Event, Health, HealthStatus, Hop},
    time::Timestamp,
    wave::WAVE_LEAVES_MAX,
};

use crate::fixture::{
    GRACE_MS, START, World, admin, attest_together, code_of, create, deployment, join_token,
    token_id,
};

#[test]
fn law_11_answers_kept_for_retries_are_bounded_and_the_oldest_go_first() {
    let (mut world, _) = World::with_agent();
    let template: Answer = world.state.answers.values().next().unwrap().clone();
    let oldest = world.state.answer_order.peek().unwrap().clone();
    let missing = ANSWERS_MAX - world.state.answers.size();
    for number in 0..missing {
        let request: RequestId = format!("{:032x}", 0xffff_0000 + number).parse().unwrap();
        world
            .state
            .answers
            .insert_mut(request.clone(), template.clone());
        world.state.answer_order.enqueue_mut(request);
    }
    world.create("Demo ISP");
    assert_eq!(world.state.answers.size(), ANSWERS_MAX);
    assert_eq!(world.state.answer_order.len(), ANSWERS_MAX);
    assert!(!world.state.answers.contains_key(&oldest));
}

#[test]
fn law_11_a_wave_has_at_most_as_many_orders_as_its_tree() {
    let (mut world, _, _) = World::with_active();
    let key = world.state.units.keys().next().unwrap().clone();
    let orders = vec![key.clone(); WAVE_LEAVES_MAX + 1];
    assert_eq!(
        code_of(world.plan(Command::SealWave { orders })),
        Code::Invalid
    );
    // An order that is named twice is in the wave once.
    let id = world.create("Second ISP");
    let unit = world
        .state
        .units
        .keys()
        .find(|(_, unit)| unit.name() == id.as_str())
        .unwrap()
        .clone();
    world
        .plan(Command::SealWave {
            orders: vec![unit; 3],
        })
        .unwrap();
    let wave = world.state.waves.get(&world.state.wave_number).unwrap();
    assert_eq!(wave.leaves.len(), 1);
}

#[test]
fn law_11_a_planning_round_asks_for_a_bounded_number_of_commands() {
    let (mut world, _) = World::with_agent();
    let ids: Vec<_> = (0..300)
        .map(|number| world.create(&format!("ISP {number}")))
        .collect();
    for deployment in ids {
        world.ask(Command::DeleteDeployment { deployment }).unwrap();
    }
    world.now += GRACE_MS;
    let planned = world.due();
    assert_eq!(planned.len(), PLAN_COMMANDS_MAX);
}

#[test]
fn law_11_join_tokens_are_bounded_in_number_and_life() {
    let mut world = World::founded();
    let ask = |world: &mut World, number: u64, lifetime: u64| {
        let mut token = join_token(number);
        token.expires_at = Timestamp(START + lifetime);
        world.ask(Command::CreateJoinToken(token))
    };
    assert_eq!(code_of(ask(&mut world, 1, 0)), Code::Invalid);
    assert_eq!(
        code_of(ask(&mut world, 1, JOIN_TOKEN_LIFETIME_MAX_MS + 1)),
        Code::Invalid
    );
    assert!(ask(&mut world, 1, JOIN_TOKEN_LIFETIME_MAX_MS).is_ok());
    let template = world.state.join_tokens.get(&token_id(1)).unwrap().clone();
    for number in 2..=JOIN_TOKENS_MAX as u64 {
        world
            .state
            .join_tokens
            .insert_mut(token_id(number), template.clone());
    }
    assert_eq!(
        code_of(ask(&mut world, 0xffff, 1_000)),
        Code::BudgetExhausted
    );
    world.now += JOIN_TOKEN_LIFETIME_MAX_MS;
    assert!(ask(&mut world, 0xffff, JOIN_TOKEN_LIFETIME_MAX_MS + 1_000).is_ok());
    assert_eq!(world.state.join_tokens.size(), 1);
}

#[test]
fn law_11_a_journey_does_not_grow_with_what_an_agent_says() {
    let (mut world, mut agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    let leaf = world.leaf(&id);
    for batch in 0..20 {
        let hop = |number: usize| Hop {
            station: format!("agent.{batch}.{number}"),
            at: Timestamp(START),
        };
        let mut hops: Vec<Hop> = (0..16).map(hop).collect();
        hops[0].station = "x".repeat(STATION_BYTES_MAX + 1);
        let health = Health {
            generation: leaf.generation,
            status: HealthStatus::Starting,
            reason: String::new(),
            components: vec![],
            hops,
        };
        let record = agent.record(Some(&leaf.unit), Event::Health(health));
        world.report(&agent, vec![record]).unwrap();
    }
    let journey = &world.state.deployments.get(&id).unwrap().journey;
    assert_eq!(journey.len(), JOURNEY_MAX);
    assert!(
        journey
            .iter()
            .all(|hop| hop.station.len() <= STATION_BYTES_MAX)
    );
}

#[test]
fn law_11_a_rejection_is_short_however_long_the_request_was() {
    let (mut world, _) = World::with_agent();
    let mut create = deployment("Demo ISP");
    create.resource_tier = "x".repeat(100_000);
    let manifest = format!(
        r#"{{"name":"a","version":"1","components":{{"web":{{"run":{{"command":["a"]}},"env":{{"{}":"b"}}}}}}}}"#,
        "é".repeat(50_000)
    );
    for command in [
        Command::CreateDeployment(Box::new(create)),
        Command::AddRelease {
            manifest: manifest.into_bytes(),
        },
    ] {
        let rejection = world.ask(command).unwrap_err();
        assert_eq!(rejection.code, Code::Invalid);
        assert!(rejection.detail.chars().count() <= DETAIL_CHARS_MAX);
        let error = &rejection.errors[0];
        assert!(error.field.chars().count() <= FIELD_CHARS_MAX);
        assert!(error.value.chars().count() <= FIELD_CHARS_MAX);
        assert!(error.allowed.chars().count() <= DETAIL_CHARS_MAX);
    }
}

#[test]
fn law_11_evidence_that_is_too_large_is_refused_and_not_kept() {
    let (mut world, _) = World::with_agent();
    let proven = world.proven(admin(), create("Demo ISP"));
    let Evidence::Attested {
        expires_at,
        signatures,
    } = proven.evidence.clone()
    else {
        panic!("attested");
    };
    let signature = signatures[0].clone();
    let many = Evidence::Attested {
        expires_at,
        signatures: vec![signature.clone(); 1_000],
    };
    let long = Evidence::RequestSigned {
        signature_base: vec![b'x'; SIGNATURE_BASE_BYTES_MAX + 1],
        signature,
    };
    let mut batch = [proven.clone(), proven.clone()];
    attest_together(&mut batch, &[1, 2], expires_at.0);
    let Evidence::AttestedInBatch(place) = &batch[0].evidence else {
        panic!("in a batch");
    };
    let (mut deep, mut crowded) = (place.clone(), place.clone());
    deep.path = vec![place.batch.root; 9];
    crowded.signatures = vec![place.signatures[0].clone(); 1_000];
    let [deep, crowded] = [deep, crowded].map(Evidence::AttestedInBatch);
    for evidence in [many, long, deep, crowded] {
        let mut envelope = proven.clone();
        (envelope.evidence, envelope.request) = (evidence, world.request());
        let deployments = world.state.deployments.clone();
        assert_eq!(code_of(world.apply(&envelope)), Code::Invalid);
        assert_eq!(world.state.deployments, deployments);
    }
}
