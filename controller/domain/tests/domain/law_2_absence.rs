//! Law 2: absence never destroys. Only a deletion does, after its grace time, within its budgets.

use dotmac_domain::{
    Accepted, Command,
    fleet::Presence,
    plan::next_due,
    reply::Code,
    tenancy::{DESTROYED_KEPT_MS, Status},
};
use dotmac_protocol::{
    ids::{DeploymentId, UnitId},
    record::{HealthStatus, Outcome},
    time::Timestamp,
    wave::Verb,
};

use crate::fixture::{GRACE_MS, HOUR_MS, World, code_of, create, deployment, deployment_of};

fn status(world: &World, id: &DeploymentId) -> Status {
    world.state.deployments.get(id).expect("it is shown").status
}

fn delete(world: &mut World, id: &DeploymentId) {
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
}

fn remove(world: &mut World, id: &DeploymentId) -> dotmac_domain::Reply {
    let deployment = id.clone();
    world.plan(Command::RemoveDeployment { deployment })
}

fn tombstones(world: &World) -> usize {
    let units = world.state.units.values();
    units.filter(|unit| unit.verb == Verb::Remove).count()
}

#[test]
fn law_2_absence_never_destroys_what_a_lost_agent_runs() {
    let (mut world, agent, id) = World::with_active();
    let gone = Presence::Disconnected {
        since: Timestamp(world.now),
    };
    let changes = vec![(agent.id.clone(), gone)];
    world.plan(Command::NotePresence { changes }).unwrap();
    let before = world.state.deployments.clone();
    world.now += 400 * 24 * HOUR_MS;
    assert_eq!(world.planned(), vec![]);
    assert_eq!(world.state.deployments, before);
    assert_eq!(status(&world, &id), Status::Active);
    assert_eq!(tombstones(&world), 0);
}

#[test]
fn law_2_absence_never_destroys_through_a_silent_or_empty_report() {
    let (mut world, agent, id) = World::with_active();
    let units = world.state.units.clone();
    assert_eq!(world.report(&agent, vec![]), Ok(Accepted::Through(3)));
    world.now += HOUR_MS;
    world.carry_on();
    assert_eq!(world.state.units, units);
    assert_eq!(status(&world, &id), Status::Active);
}

#[test]
fn law_2_a_release_that_is_retired_removes_nothing() {
    let (mut world, _, id) = World::with_active();
    let (name, version) = ("demo-isp".parse().unwrap(), "1.0.0".parse().unwrap());
    world.ask(Command::RetireRelease { name, version }).unwrap();
    world.carry_on();
    assert_eq!(status(&world, &id), Status::Active);
    assert_eq!(tombstones(&world), 0);
}

#[test]
fn law_2_a_tombstone_comes_only_after_the_grace_time() {
    let (mut world, mut agent, id) = World::with_active();
    delete(&mut world, &id);
    for passed in [0, 1, GRACE_MS - 2] {
        world.now += passed;
        assert_eq!(world.planned(), vec![], "{passed}");
        assert_eq!(code_of(remove(&mut world, &id)), Code::WrongState);
        assert_eq!(tombstones(&world), 0);
    }
    world.now += 1;
    world.carry_on();
    let leaf = world.leaf(&id);
    assert_eq!(
        (leaf.verb, leaf.generation.0, leaf.sequence.0),
        (Verb::Remove, 2, 2)
    );
    assert_eq!(status(&world, &id), Status::Destroying);
    world.confirm_removal(&mut agent, &id);
    assert_eq!(status(&world, &id), Status::Destroyed);
}

#[test]
fn law_2_only_the_planner_orders_a_tombstone_and_only_of_a_deleted_deployment() {
    let (mut world, _, id) = World::with_active();
    world.now += 10 * HOUR_MS;
    assert_eq!(code_of(remove(&mut world, &id)), Code::WrongState);
    let deployment = id.clone();
    assert_eq!(
        code_of(world.ask(Command::RemoveDeployment { deployment })),
        Code::Forbidden
    );
    let deployment = id.clone();
    assert_eq!(
        code_of(world.plan(Command::ForgetDeployment { deployment })),
        Code::WrongState
    );
}

#[test]
fn law_2_an_undeleted_deployment_is_as_it_was() {
    let (mut world, _, id) = World::with_active();
    let before = world.state.deployments.get(&id).unwrap().clone();
    delete(&mut world, &id);
    world.now += GRACE_MS - 1;
    let deployment = id.clone();
    world
        .ask(Command::UndeleteDeployment { deployment })
        .unwrap();
    let mut after = world.state.deployments.get(&id).unwrap().clone();
    after.updated_at = before.updated_at;
    assert_eq!(
        after.revision,
        before.revision + 2,
        "two decisions of people"
    );
    after.revision = before.revision;
    assert_eq!(after, before);
    world.now += 10 * GRACE_MS;
    assert_eq!(world.planned(), vec![]);
}

#[test]
fn law_2_a_removal_under_way_cannot_be_taken_back() {
    let (mut world, _, id) = World::with_active();
    delete(&mut world, &id);
    world.now += GRACE_MS;
    world.carry_on();
    let deployment = id.clone();
    assert_eq!(
        code_of(world.ask(Command::UndeleteDeployment { deployment })),
        Code::WrongState
    );
}

#[test]
fn law_2_an_agent_that_says_removed_without_a_tombstone_is_not_believed() {
    let (mut world, mut agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    let leaf = world.leaf(&id);
    let records = vec![
        agent.receipt(&leaf, Outcome::Removed),
        agent.health(&leaf, HealthStatus::Stopped, ""),
    ];
    world.report(&agent, records).unwrap();
    assert_eq!(status(&world, &id), Status::Provisioning);
}

#[test]
fn law_2_tombstones_stay_within_the_budgets() {
    let (mut world, mut agent) = World::with_agent();
    let mut own = vec![world.create("Big ISP")];
    let tenant = world.state.deployments.get(&own[0]).unwrap().tenant.clone();
    for environment in ["staging", "development"] {
        let mut further = deployment("");
        (further.tenant, further.environment) = (Some(tenant.clone()), environment.into());
        own.push(deployment_of(
            world.ask(Command::CreateDeployment(Box::new(further))),
        ));
    }
    let mut others: Vec<_> = (0..2)
        .map(|number| world.create(&format!("ISP {number}")))
        .collect();
    for id in own.iter().chain(&others) {
        world.make_active(&mut agent, id);
    }
    own.iter()
        .chain(&others.clone())
        .for_each(|id| delete(&mut world, id));
    world.now += GRACE_MS;
    world.carry_on();
    // Two for the tenant, and three in the whole cluster.
    assert_eq!(tombstones(&world), 3);
    let of_tenant = |world: &World| {
        let units = world.state.units.values();
        units
            .filter(|unit| unit.tenant == tenant && unit.verb == Verb::Remove)
            .count()
    };
    assert!(of_tenant(&world) <= 2);
    others.extend(own);
    let waits = |world: &World| {
        let waiting = others
            .iter()
            .filter_map(|id| world.state.deployments.get(id));
        let reasons = waiting.filter_map(|one| one.waiting.as_ref());
        reasons
            .filter(|one| one.reason.starts_with("the removal budget of"))
            .count()
    };
    assert_eq!(waits(&world), 2);
    // Nothing is due before the hour is over, and then the rest goes on by itself.
    let due = next_due(&world.state).unwrap();
    world.now += HOUR_MS - 1;
    world.carry_on();
    assert_eq!(tombstones(&world), 3);
    world.now += 1;
    assert!(due <= Timestamp(world.now));
    world.carry_on();
    assert_eq!(tombstones(&world), 5);
}

#[test]
fn law_2_a_budget_frees_although_nothing_else_happens() {
    let (mut world, mut agent) = World::with_agent();
    let ids: Vec<_> = (0..4)
        .map(|number| world.create(&format!("ISP {number}")))
        .collect();
    ids.iter().for_each(|id| world.make_active(&mut agent, id));
    ids.iter().for_each(|id| delete(&mut world, id));
    world.now += GRACE_MS;
    world.carry_on();
    let begun = world.now;
    let due = next_due(&world.state).unwrap();
    assert!(
        due > Timestamp(begun),
        "a leader would look again at once, for ever"
    );
    world.now = begun + HOUR_MS;
    assert!(
        world
            .planned()
            .iter()
            .any(|command| matches!(command, Command::RemoveDeployment { .. }))
    );
}

#[test]
fn what_is_forgotten_in_the_same_round_is_not_ordered_again() {
    let (mut world, mut agent, id) = World::with_active();
    delete(&mut world, &id);
    world.now += GRACE_MS;
    remove(&mut world, &id).unwrap();
    // An agent that says it is gone before it was told to remove it.
    let unit = world.state.units.values().next().unwrap().clone();
    let leaf = world.leaf_like(&id, &unit);
    let removed = agent.receipt(&leaf, Outcome::Removed);
    world.report(&agent, vec![removed]).unwrap();
    world.now += DESTROYED_KEPT_MS;
    let due = world.due();
    let forget = Command::ForgetDeployment { deployment: id };
    assert!(due.contains(&forget), "{due:?}");
    let seals = |command: &Command| matches!(command, Command::SealWave { .. });
    assert!(!due.iter().any(seals), "{due:?}");
}

#[test]
fn law_2_a_destroyed_deployment_is_forgotten_after_30_days_and_its_numbers_go_on() {
    let (mut world, mut agent, id) = World::with_active();
    let tenant = world.state.deployments.get(&id).unwrap().tenant.clone();
    let mut staging = deployment("");
    (staging.tenant, staging.environment) = (Some(tenant), "staging".into());
    let staging = Command::CreateDeployment(Box::new(staging));
    let second = deployment_of(world.ask(staging.clone()));
    world.make_active(&mut agent, &second);
    world.destroy(&mut agent, &second);
    world.now += DESTROYED_KEPT_MS - 1;
    assert_eq!(world.planned(), vec![]);
    world.now += 1;
    world.carry_on();
    assert_eq!(world.state.deployments.get(&second), None);
    // The agent's journal still holds generation 2 and sequence 2.
    assert_eq!(deployment_of(world.ask(staging)), second);
    world.carry_on();
    let leaf = world.leaf(&second);
    assert_eq!(
        (leaf.verb, leaf.generation.0, leaf.sequence.0),
        (Verb::Apply, 3, 3)
    );
    assert_eq!(leaf.previous.0, 2);
    world.make_active(&mut agent, &second);
    assert_eq!(status(&world, &second), Status::Active);
}

#[test]
fn law_2_one_agents_old_tombstone_does_not_end_anothers_new_instance() {
    let (mut world, mut old, id) = World::with_active();
    let tenant = world.state.deployments.get(&id).unwrap().tenant.clone();
    let mut staging = deployment("");
    (staging.tenant, staging.environment) = (Some(tenant), "staging".into());
    let staging = Command::CreateDeployment(Box::new(staging));
    let second = deployment_of(world.ask(staging.clone()));
    world.make_active(&mut old, &second);
    world.destroy(&mut old, &second);
    let tombstone_unit = world
        .state
        .units
        .get(&(old.id.clone(), UnitId::instance(&second)));
    let removed = tombstone_unit.unwrap().clone();
    // The old agent gets busier, so that the new instance goes to another one.
    for number in 0..3 {
        world.ask(create(&format!("Busy {number}"))).unwrap();
    }
    let mut new = world.join(41);
    assert_eq!(deployment_of(world.ask(staging)), second);
    let deployment = world.state.deployments.get(&second).unwrap();
    assert_eq!(deployment.agent.as_ref(), Some(&new.id));
    world.make_active(&mut new, &second);
    let mut replayed = world.leaf_like(&second, &removed);
    replayed.agent = old.id.clone();
    let record = old.receipt(&replayed, Outcome::Removed);
    world.report(&old, vec![record]).unwrap();
    assert_eq!(status(&world, &second), Status::Active);
}
