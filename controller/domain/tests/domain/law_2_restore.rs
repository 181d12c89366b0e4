//! Law 2 after a restore: what agents did since the backup is taken over first, what the State does not know is shown
//! and left, and nothing is removed or taken back.

use dotmac_domain::{
    Command, State,
    audit::{Link, Stream},
    changed::Changed,
    command::Genesis,
    desired::Unit,
    envelope::Actor,
    recovery::{Restore, RestoreError},
    tenancy::Status,
};
use dotmac_protocol::{
    frame::InventoryItem,
    ids::{AgentId, DeploymentId, Epoch, Generation, UnitId},
    record::{HealthStatus, SignedRecord},
    time::Timestamp,
    wave::Verb,
};

use crate::{
    cluster::{card, root, sign},
    fixture::{GRACE_MS, TestAgent, World, genesis},
};

/// New controllers, and the trust root that names them.
fn restore(epoch: u64, at: u64) -> Restore {
    let mut next = root(2, &[4, 5, 6]);
    next.epoch = Epoch(epoch);
    Restore {
        backup: "20261123T165400Z-00a1f9".into(),
        index: 700,
        bytes: 9_000,
        at: Timestamp(at),
        genesis: Genesis {
            trust_root: sign(&next, 10),
            nodes: [4, 5, 6].map(card).into(),
            ..genesis()
        },
    }
}

fn unit<'a>(state: &'a State, agent: &AgentId, id: &DeploymentId) -> &'a Unit {
    state
        .units
        .get(&(agent.clone(), UnitId::instance(id)))
        .unwrap()
}

/// What the agent holds of these.
fn inventory(world: &World, agent: &TestAgent, ids: &[&DeploymentId]) -> Vec<InventoryItem> {
    let item = |id: &&DeploymentId| {
        let unit = unit(&world.state, &agent.id, id);
        InventoryItem {
            unit: UnitId::instance(id),
            generation: unit.acknowledged_generation,
            sequence: unit.acknowledged,
            removed: unit.verb == Verb::Remove,
            health: HealthStatus::Healthy,
        }
    };
    ids.iter().map(item).collect()
}

/// How a deployment is, and whether that is known of any generation.
fn seen(world: &World, id: &DeploymentId) -> (HealthStatus, bool) {
    let observed = world
        .state
        .observed(world.state.deployments.get(id).unwrap());
    (observed.health, observed.generation > Generation(0))
}

fn is_ordering(world: &World) -> bool {
    let planned = world.planned();
    planned.iter().any(|one| {
        matches!(
            one,
            Command::SealWave { .. } | Command::RemoveDeployment { .. }
        )
    })
}

#[test]
fn law_2_what_is_newer_than_a_restored_backup_is_adopted_and_left() {
    let (mut world, mut agent, changed) = World::with_active();
    let removed = world.create("Removed ISP");
    world.make_active(&mut agent, &removed);
    let deleted = world.create("Deleted ISP");
    world.make_active(&mut agent, &deleted);
    let deployment = deleted.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    let backup = world.state.clone();

    let deployment = deleted.clone();
    world
        .ask(Command::UndeleteDeployment { deployment })
        .unwrap();
    let deployment = changed.clone();
    world
        .ask(Command::RestartDeployment { deployment })
        .unwrap();
    world.make_active(&mut agent, &changed);
    world.destroy(&mut agent, &removed);
    let unknown = world.create("Unknown ISP");
    world.make_active(&mut agent, &unknown);
    let held = inventory(&world, &agent, &[&changed, &removed, &deleted, &unknown]);
    let newest = unit(&world.state, &agent.id, &changed).clone();
    let stream = Stream::Agent(
        agent.id.clone(),
        world
            .state
            .agents
            .get(&agent.id)
            .unwrap()
            .incarnation
            .clone(),
    );
    let known = backup.streams.get(&stream).unwrap().sequence;
    let records: Vec<SignedRecord> = world
        .facts()
        .into_iter()
        .filter(|fact| fact.stream == stream && fact.sequence > known)
        .filter_map(|fact| match fact.link {
            Link::Record(record) => Some(record),
            Link::Entry(_) | Link::Report(_) => None,
        })
        .collect();

    world.now += GRACE_MS * 2;
    let (state, facts) = backup.restored(&restore(2, world.now)).unwrap();
    assert_eq!(
        facts.len(),
        2,
        "the restore, and the deletion that was taken back"
    );
    world.state = state;
    // The State in a backup knows of those before it only.
    let good = world.state.backups.good.as_ref().unwrap();
    assert_eq!(
        (good.name.as_str(), good.index, good.bytes),
        ("20261123T165400Z-00a1f9", 700, 9_000)
    );
    assert!(world.state.awaits(&agent.id) && !is_ordering(&world));
    // What its agent said before the backup is not how it is.
    assert_eq!(seen(&world, &deleted), (HealthStatus::Unknown, false));
    assert_eq!(
        world.state.deployments.get(&deleted).unwrap().status,
        Status::Active
    );
    let command = Command::AdoptInventory {
        inventory: held.clone(),
        last_record: agent.head().sequence,
    };
    for _ in 0..2 {
        let envelope = world.envelope(Actor::Agent(agent.id.clone()), command.clone());
        world.apply(&envelope).unwrap();
        // Its records come behind it.
        assert!(world.state.awaits(&agent.id) && !is_ordering(&world));
    }
    world.report(&agent, records).unwrap();
    assert!(!world.state.awaits(&agent.id) && !is_ordering(&world));
    assert_eq!(seen(&world, &deleted), (HealthStatus::Healthy, true));
    // Whoever watches is told of what looks different now.
    let told = &world.applied.last().unwrap().changed;
    assert!(told.contains(&Changed::Deployment(deleted)), "{told:?}");

    assert_adopted(&world, &agent.id, (&changed, &removed, &unknown), &newest);
}

/// What is newer runs on, and is shown.
fn assert_adopted(
    world: &World,
    agent: &AgentId,
    (changed, removed, unknown): (&DeploymentId, &DeploymentId, &DeploymentId),
    newest: &Unit,
) {
    let now = unit(&world.state, agent, changed);
    assert_eq!(
        (now.generation, now.sequence, now.acknowledged, now.verb),
        (
            newest.generation,
            newest.sequence,
            newest.sequence,
            Verb::Apply
        )
    );
    let deployments = &world.state.deployments;
    let waiting = deployments.get(changed).unwrap().waiting.as_ref().unwrap();
    assert!(
        waiting.reason.contains("newer than the restored backup"),
        "{waiting:?}"
    );
    assert_eq!(deployments.get(removed).unwrap().status, Status::Destroyed);
    assert!(deployments.get(unknown).is_none());
    let quarantined: Vec<_> = world.state.quarantined_of(agent).collect();
    let whose: Vec<_> = quarantined
        .iter()
        .map(|(_, one)| one.deployment.clone())
        .collect();
    assert_eq!(quarantined.len(), 2);
    assert!(
        whose.contains(&None) && whose.contains(&Some(changed.clone())),
        "{whose:?}"
    );
}

#[test]
fn law_2_under_rules_that_know_no_restore_nothing_is_backed_up_and_nothing_restored() {
    let (mut world, ..) = World::with_active_under(1);
    let refused = world.ask(Command::RequestBackup).unwrap_err();
    assert!(
        refused.detail.contains("dotmac cluster finalize"),
        "{refused:?}"
    );
    let refused = world.state.clone().restored(&restore(2, world.now));
    assert!(matches!(refused, Err(RestoreError::Rules(1))));
}

#[test]
fn law_3_a_state_goes_on_only_as_the_root_key_says_and_one_epoch_further() {
    let (world, ..) = World::with_active();
    let at = world.now;
    for epoch in [1, 3] {
        let refused = world.state.clone().restored(&restore(epoch, at));
        assert!(
            matches!(refused, Err(RestoreError::Epoch { .. })),
            "{epoch}"
        );
    }
    let mut forged = restore(2, at);
    let mut next = root(2, &[4, 5, 6]);
    next.epoch = Epoch(2);
    forged.genesis.trust_root = sign(&next, 1);
    let refused = world.state.clone().restored(&forged);
    assert!(matches!(refused, Err(RestoreError::Trust(_))));
    let mut other = restore(2, at);
    other.genesis.nodes = [1, 2, 3].map(card).into();
    let refused = world.state.clone().restored(&other);
    assert!(matches!(refused, Err(RestoreError::Controllers)));
    let once = world.state.clone().restored(&restore(2, at)).unwrap().0;
    let again = world.state.clone().restored(&restore(2, at)).unwrap().0;
    assert_eq!(once.digest(), again.digest());
}
