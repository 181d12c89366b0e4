//! Law 10: every wait has a reason. Whatever is not done says what it waits for, since when, and who can change it.

use dotmac_domain::{
    Command, State,
    fleet::Presence,
    tenancy::{Status, Waiting},
};
use dotmac_protocol::{
    ids::{DeploymentId, NodeId, UnitId},
    record::{HealthStatus, Outcome},
    time::Timestamp,
};
use proptest::prelude::*;

use crate::{
    fixture::{GRACE_MS, World, create},
    random::{History, steps},
};

/// Which deployment waits without saying for what.
fn silent(state: &State) -> Option<String> {
    let is_silent = |waiting: &Option<Waiting>| {
        waiting
            .as_ref()
            .is_none_or(|one| one.reason.is_empty() || one.who.is_empty() || one.since > state.now)
    };
    let mut found = state.deployments.iter().filter(|(id, one)| {
        let unit = state.units.iter().find(|((agent, unit), _)| {
            one.agent.as_ref() == Some(agent) && *unit == UnitId::instance(id)
        });
        let is_held = unit.is_none_or(|(_, unit)| unit.acknowledged_generation >= unit.generation);
        let is_held = is_held && one.observed_generation == one.generation;
        let is_stopped = one.health == HealthStatus::Stopped;
        match one.status {
            Status::Destroyed => one.waiting.is_some(),
            Status::Active if is_held => one.waiting.is_some(),
            Status::Suspended if is_held && is_stopped => one.waiting.is_some(),
            _ => is_silent(&one.waiting),
        }
    });
    found
        .next()
        .map(|(id, one)| format!("{id} is {:?}: {:?}", one.status, one.waiting))
}

fn reason(world: &World, id: &DeploymentId) -> String {
    let waiting = &world.state.deployments.get(id).expect("it exists").waiting;
    waiting
        .as_ref()
        .map(|one| one.reason.clone())
        .unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn law_10_every_wait_has_a_reason(steps in steps(150)) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
            prop_assert_eq!(silent(&history.world.state), None, "after {:?}", step);
        }
    }
}

#[test]
fn law_10_each_station_of_an_order_has_its_own_reason() {
    let mut world = World::founded();
    world.add_release();
    let id = world.create("Demo ISP");
    assert_eq!(reason(&world, &id), "no agent has joined region lab-1 yet");
    let mut agent = world.join(40);
    assert_eq!(reason(&world, &id), "its order is not sealed yet");
    world.carry_on();
    assert!(reason(&world, &id).starts_with("wave 1 is on its way"));
    let since = Timestamp(world.now);
    let gone = vec![(agent.id.clone(), Presence::Disconnected { since })];
    world.plan(Command::NotePresence { changes: gone }).unwrap();
    assert_eq!(
        reason(&world, &id),
        format!("agent {} is not connected", agent.id)
    );
    let leaf = world.leaf(&id);
    let refused = agent.receipt(
        &leaf,
        Outcome::Refused {
            reason: "no room".into(),
        },
    );
    world.report(&agent, vec![refused]).unwrap();
    let back = vec![(agent.id.clone(), Presence::Unknown)];
    world.plan(Command::NotePresence { changes: back }).unwrap();
    assert_eq!(
        reason(&world, &id),
        format!("agent {} refused the order: no room", agent.id)
    );
    let accepted = agent.receipt(&leaf, Outcome::Accepted);
    world.report(&agent, vec![accepted]).unwrap();
    assert_eq!(
        reason(&world, &id),
        "its agent has the order and its probes are not healthy yet"
    );
    let failed = agent.health(&leaf, HealthStatus::Failed, "exit status 7: no database");
    world.report(&agent, vec![failed]).unwrap();
    assert_eq!(reason(&world, &id), "exit status 7: no database");
    let healthy = agent.health(&leaf, HealthStatus::Healthy, "");
    world.report(&agent, vec![healthy]).unwrap();
    assert_eq!(world.state.deployments.get(&id).unwrap().waiting, None);
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    assert_eq!(
        reason(&world, &id),
        format!("its grace time of {GRACE_MS} ms is not over")
    );
    world.now += GRACE_MS;
    world.carry_on();
    assert!(reason(&world, &id).starts_with("wave 2 is on its way"));
    let leaf = world.leaf(&id);
    let accepted = agent.receipt(&leaf, Outcome::Accepted);
    world.report(&agent, vec![accepted]).unwrap();
    assert_eq!(
        reason(&world, &id),
        "its agent has the order and has not confirmed the removal yet"
    );
}

#[test]
fn law_10_a_deployment_taken_back_before_it_ran_still_says_what_it_waits_for() {
    let mut world = World::founded();
    world.add_release();
    let id = world.create("Demo ISP");
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    // The agent joins while it is being deleted: only what is wanted gets an agent.
    let agent = world.join(40);
    assert_eq!(world.state.deployments.get(&id).unwrap().agent, None);
    let deployment = id.clone();
    world
        .ask(Command::UndeleteDeployment { deployment })
        .unwrap();
    let found = world.state.deployments.get(&id).unwrap();
    assert_eq!(found.agent.as_ref(), Some(&agent.id));
    assert_eq!(reason(&world, &id), "its order is not sealed yet");
}

#[test]
fn law_10_since_moves_only_with_the_reason() {
    let mut world = World::founded();
    world.add_release();
    let id = world.create("Demo ISP");
    let since = |world: &World| {
        world
            .state
            .deployments
            .get(&id)
            .unwrap()
            .waiting
            .clone()
            .unwrap()
            .since
    };
    let begun = since(&world);
    world.now += 5_000;
    world.ask(create("Second ISP")).unwrap();
    assert_eq!(since(&world), begun);
    world.join(40);
    assert_eq!(since(&world), Timestamp(begun.0 + 5_000));
}

#[test]
fn law_10_a_silent_agent_does_not_keep_its_region_waiting() {
    let mut world = World::founded();
    world.add_release();
    let (first, second) = (world.join(31), world.join(32));
    let (silent, connected) = if first.id < second.id {
        (first, second)
    } else {
        (second, first)
    };
    let presence = Presence::Connected {
        node: NodeId(1),
        software: "1".into(),
        since: Timestamp(world.now),
    };
    let changes = vec![(connected.id.clone(), presence)];
    world.plan(Command::NotePresence { changes }).unwrap();
    for name in ["One ISP", "Two ISP"] {
        let id = world.create(name);
        let agent = world.state.deployments.get(&id).unwrap().agent.clone();
        assert_eq!(agent, Some(connected.id.clone()));
        assert_ne!(agent, Some(silent.id.clone()));
    }
}
