//! Law 3: one controller cannot command the fleet. Whatever it writes into the log alone, no honest one signs it.

use dotmac_domain::{
    Command,
    access::Role,
    envelope::{Actor, Evidence},
    signer::{EvidenceError, SignRefusal, check},
    tenancy::Status,
};
use dotmac_protocol::{
    ids::{DeploymentId, UnitId},
    keys::Signature,
    time::Timestamp,
    trust::TrustError,
    wave::{SignedIntent, Verb, WAVE_DOMAIN, merkle_paths},
};

use crate::fixture::{
    GRACE_MS, MANIFEST, TestAgent, WINDOW_MS, World, admin, attest, create, deployment_of,
    join_token, key, token, token_id,
};

/// Seals everything, as a controller that leaves the planner's checks out would.
pub(crate) fn seal_all(world: &mut World) -> u64 {
    let orders = world.state.units.keys().cloned().collect();
    match world.plan(Command::SealWave { orders }) {
        Ok(dotmac_domain::Accepted::Wave(number)) => number,
        other => panic!("not sealed: {other:?}"),
    }
}

pub(crate) fn signed(world: &World, number: u64) -> Result<(), SignRefusal> {
    check(&world.state, number, Timestamp(world.now)).map(|_| ())
}

pub(crate) fn unproven(found: Result<(), SignRefusal>) -> (&'static str, EvidenceError) {
    match found {
        Err(SignRefusal::Evidence { what, source, .. }) => (what, source),
        other => panic!("not refused for its evidence: {other:?}"),
    }
}

/// No order of this deployment is sealed by the planners, and it says why.
fn assert_left_out(world: &mut World, id: &DeploymentId) {
    world.carry_on();
    let unit = world
        .state
        .units
        .iter()
        .find(|(_, unit)| unit.deployment == *id);
    assert_eq!(unit.expect("its order is in the outbox").1.wave, None);
    let waiting = world.state.deployments.get(id).unwrap().waiting.clone();
    let reason = waiting.expect("it waits").reason;
    assert!(
        reason.starts_with("no order for it will be signed"),
        "{reason}"
    );
}

#[test]
fn law_3_an_honest_wave_is_signed_and_obeyed() {
    let (mut world, agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    let header = check(&world.state, 1, Timestamp(world.now)).unwrap();
    let sign = |seed| Signature::make(&key(seed), WAVE_DOMAIN, header);
    let wave = world.state.waves.get(&1).unwrap();
    let unit = world
        .state
        .units
        .get(&(agent.id.clone(), UnitId::instance(&id)))
        .unwrap();
    let intent = SignedIntent {
        header: wave.header.clone(),
        signatures: vec![sign(1), sign(3)],
        leaf: wave.leaves[0].clone(),
        index: 0,
        path: merkle_paths(&wave.leaves).remove(0),
        payload: unit.payload.clone(),
    };
    let trust = world.state.trust.as_ref().unwrap();
    let verified = intent.verify(trust, &agent.id).unwrap();
    assert_eq!(verified.leaf(), &world.leaf(&id));
}

#[test]
fn law_3_one_controller_cannot_command_the_fleet_with_a_request_nobody_made() {
    let (mut world, _) = World::with_agent();
    let id = deployment_of(world.forge(create("Forged")));
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("deployment", EvidenceError::Missing)
    );
    let (mut world, _) = World::with_agent();
    let again = deployment_of(world.forge(create("Forged")));
    assert_eq!(again, id);
    assert_left_out(&mut world, &id);
}

#[test]
fn law_3_one_attestation_does_not_count_however_often_it_is_repeated() {
    for signers in [&[1][..], &[1, 1], &[1, 4, 5], &[10, 20]] {
        let (mut world, _) = World::with_agent();
        let envelope = world.envelope(admin(), create("Forged"));
        let expires_at = world.now + 30_000;
        world.apply(&attest(envelope, signers, expires_at)).unwrap();
        let wave = seal_all(&mut world);
        let (what, error) = unproven(signed(&world, wave));
        assert_eq!(what, "deployment");
        let found = usize::from(signers[0] == 1);
        let expected = TrustError::Signatures {
            role: "controller",
            found,
            needed: 2,
        };
        assert_eq!(error, EvidenceError::Attestations(expected), "{signers:?}");
    }
}

#[test]
fn law_3_evidence_counts_for_one_request_command_actor_and_time() {
    let (honest, _) = World::with_agent();
    let mut template = honest.clone();
    let proven = template.proven(admin(), create("Demo ISP"));
    let mut other_request = proven.clone();
    other_request.request = "ff".repeat(16).parse().unwrap();
    let mut other_command = proven.clone();
    other_command.command = create("Another ISP");
    let mut later = proven.clone();
    later.at = Timestamp(proven.at.0 + 30_000);
    let mut prolonged = proven.clone();
    if let Evidence::Attested { expires_at, .. } = &mut prolonged.evidence {
        *expires_at = Timestamp(u64::MAX);
    }
    let mut own_signature = proven.clone();
    if let Evidence::Attested { signatures, .. } = &proven.evidence {
        let (signature_base, signature) = (vec![], signatures[0].clone());
        own_signature.evidence = Evidence::RequestSigned {
            signature_base,
            signature,
        };
    }
    let mut unchanged = honest.clone();
    unchanged.apply(&proven).unwrap();
    let wave = seal_all(&mut unchanged);
    assert_eq!(signed(&unchanged, wave), Ok(()));
    for (name, forged) in [
        ("request", other_request),
        ("command", other_command),
        ("time", later),
        ("expiry", prolonged),
        ("kind", own_signature),
    ] {
        let mut world = honest.clone();
        world.apply(&forged).unwrap();
        let wave = seal_all(&mut world);
        assert_eq!(unproven(signed(&world, wave)).0, "deployment", "{name}");
    }
}

#[test]
fn law_3_evidence_of_one_person_does_not_count_for_another() {
    let (mut world, _) = World::with_agent();
    world
        .ask(Command::CreateToken(token(2, Role::PlatformAdmin, None)))
        .unwrap();
    let mut envelope = world.proven(admin(), create("Demo ISP"));
    envelope.actor = Actor::Person(token_id(2));
    world.apply(&envelope).unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(unproven(signed(&world, wave)).0, "deployment");
}

#[test]
fn law_3_a_forged_release_is_not_signed() {
    let (mut world, _) = World::with_agent();
    let manifest = MANIFEST.replace("1.0.0", "6.6.6").into_bytes();
    world.forge(Command::AddRelease { manifest }).unwrap();
    // It is the channel's default now, so that an honest request would get it.
    let id = world.create("Demo ISP");
    assert_eq!(
        world
            .state
            .deployments
            .get(&id)
            .unwrap()
            .release
            .version
            .as_str(),
        "6.6.6"
    );
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("release", EvidenceError::Missing)
    );
}

#[test]
fn law_3_an_agent_of_a_forged_join_token_gets_nothing_signed() {
    let mut world = World::founded();
    world.add_release();
    let agent = TestAgent::new(40);
    world
        .forge(Command::CreateJoinToken(join_token(0x77)))
        .unwrap();
    let actor = Actor::Agent(agent.id.clone());
    let enrol = world.envelope(actor, Command::EnrolAgent(agent.enrol(0x77)));
    world.apply(&enrol).unwrap();
    world.create("Demo ISP");
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("agent", EvidenceError::Missing)
    );
}

#[test]
fn law_3_a_forged_deletion_is_not_signed_until_somebody_asks_for_it() {
    let (mut world, mut agent, id) = World::with_active();
    let deployment = id.clone();
    world
        .forge(Command::DeleteDeployment { deployment })
        .unwrap();
    world.now += GRACE_MS;
    let deployment = id.clone();
    world
        .plan(Command::RemoveDeployment { deployment })
        .unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("removal", EvidenceError::Missing)
    );
    world.now += WINDOW_MS;
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    let asked = world.log.last().unwrap().request.clone();
    world.carry_on();
    assert_eq!(world.leaf(&id).request, asked);
    let wave = world.state.wave_number;
    assert_eq!(signed(&world, wave), Ok(()));
    world.confirm_removal(&mut agent, &id);
    assert_eq!(
        world.state.deployments.get(&id).unwrap().status,
        Status::Destroyed
    );
}

#[test]
fn law_3_a_proven_deletion_does_not_prove_what_is_deleted() {
    let (mut world, _) = World::with_agent();
    let id = deployment_of(world.forge(create("Forged")));
    // Somebody sees it, is alarmed and deletes it; or deletes it and takes that back.
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    let mut in_grace = world.clone();
    let wave = seal_all(&mut in_grace);
    assert_eq!(
        unproven(signed(&in_grace, wave)),
        ("deployment", EvidenceError::Missing)
    );
    let deployment = id.clone();
    world
        .ask(Command::UndeleteDeployment { deployment })
        .unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("deployment", EvidenceError::Missing)
    );
}

#[test]
fn law_3_a_forged_order_does_not_slip_through_by_being_replaced() {
    let (mut world, _) = World::with_agent();
    let honest = world.create("Demo ISP");
    let forged = deployment_of(world.forge(create("Forged")));
    let wave = seal_all(&mut world);
    assert_eq!(unproven(signed(&world, wave)).0, "deployment");
    // The tombstone of the forged one replaces its order; the honest order is still open.
    let mut hurried = world.clone();
    let deployment = forged.clone();
    hurried
        .forge(Command::DeleteDeployment { deployment })
        .unwrap();
    hurried.now += GRACE_MS;
    let deployment = forged.clone();
    hurried
        .plan(Command::RemoveDeployment { deployment })
        .unwrap();
    hurried.now -= GRACE_MS;
    assert_eq!(signed(&hurried, wave), Err(SignRefusal::Unknown(wave)));
    // Or it is sealed again alone, with a clock that runs ahead.
    let unit = UnitId::instance(&forged);
    let key = world
        .state
        .units
        .keys()
        .find(|(_, one)| *one == unit)
        .unwrap()
        .clone();
    world.now += WINDOW_MS;
    let orders = vec![key];
    world.plan(Command::SealWave { orders }).unwrap();
    world.now -= WINDOW_MS;
    assert_eq!(signed(&world, wave), Err(SignRefusal::Unknown(wave)));
    // What is honest is sealed again without it.
    world.now += WINDOW_MS;
    world.carry_on();
    let number = world
        .state
        .units
        .values()
        .find_map(|unit| unit.wave.filter(|_| unit.deployment == honest));
    assert_eq!(signed(&world, number.expect("it was sealed again")), Ok(()));
}

#[test]
fn law_3_one_forged_order_does_not_stop_the_others() {
    let (mut world, _) = World::with_agent();
    let forged = deployment_of(world.forge(create("Forged")));
    let honest = world.create("Demo ISP");
    assert_left_out(&mut world, &forged);
    assert_eq!(world.leaf(&honest).verb, Verb::Apply);
    assert_eq!(signed(&world, 1), Ok(()));
}
