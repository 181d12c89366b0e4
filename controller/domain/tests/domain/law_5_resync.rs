//! Law 5: an agent heals by itself. One whose disk lost an order is given it again, the same generation under a newer
//! sequence; what it lacks is never removed.

use dotmac_domain::{Command, envelope::Actor, tenancy::Status};
use dotmac_protocol::{
    acceptance,
    frame::InventoryItem,
    ids::{Generation, Sequence, UnitId},
    record::HealthStatus,
    time::Timestamp,
    wave::Verb,
};

use crate::fixture::{GRACE_MS, World};

#[test]
fn law_5_an_agent_that_lost_an_order_is_given_it_again() {
    let (mut world, mut agent, id) = World::with_active();
    let key = (agent.id.clone(), UnitId::instance(&id));
    let first = world.state.units.get(&key).unwrap().clone();
    let behind = world.state.behind(&agent.id, &[]);
    assert_eq!(behind.len(), 1);
    world.now += 1;
    let command = Command::NoteInventory { behind };
    let envelope = world.envelope(Actor::Agent(agent.id.clone()), command);
    world.apply(&envelope).unwrap();
    let deployment = world.state.deployments.get(&id).unwrap();
    assert_eq!(deployment.status, Status::Degraded);
    assert!(deployment.waiting.is_some());
    world.carry_on();
    let again = world.leaf(&id);
    assert_eq!(
        (again.verb, again.generation, again.previous),
        (Verb::Apply, first.generation, Sequence(0))
    );
    assert!(again.sequence > first.sequence);
    assert_eq!(
        acceptance::accept(None, &again, Timestamp(world.now)),
        Ok(())
    );
    world.make_active(&mut agent, &id);
    let deployment = world.state.deployments.get(&id).unwrap();
    assert_eq!(deployment.status, Status::Active);
}

#[test]
fn law_5_an_agent_that_holds_everything_is_given_nothing_again() {
    let (world, agent, id) = World::with_active();
    let unit = UnitId::instance(&id);
    let held = world
        .state
        .units
        .get(&(agent.id.clone(), unit.clone()))
        .unwrap();
    let item = InventoryItem {
        unit,
        generation: held.generation,
        sequence: held.sequence,
        removed: false,
        health: HealthStatus::Healthy,
    };
    assert_eq!(world.state.behind(&agent.id, &[item]), vec![]);
}

#[test]
fn law_5_a_tombstone_reaches_an_agent_that_lost_what_it_held() {
    let (mut world, agent, id) = World::with_active();
    let deployment = id.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    world.now += GRACE_MS;
    world.carry_on();
    let refused = world.leaf(&id);
    assert_eq!(refused.verb, Verb::Remove);
    assert!(acceptance::accept(None, &refused, Timestamp(world.now)).is_err());
    let behind = world.state.behind(&agent.id, &[]);
    let command = Command::NoteInventory { behind };
    let envelope = world.envelope(Actor::Agent(agent.id.clone()), command);
    world.apply(&envelope).unwrap();
    world.carry_on();
    let tombstone = world.leaf(&id);
    assert_eq!(
        (tombstone.verb, tombstone.generation),
        (Verb::Remove, Generation(2))
    );
    assert_eq!(
        acceptance::accept(None, &tombstone, Timestamp(world.now)),
        Ok(())
    );
}

#[test]
fn law_5_a_confirmed_removal_is_not_ordered_again() {
    let (mut world, mut agent, id) = World::with_active();
    world.destroy(&mut agent, &id);
    assert_eq!(world.state.behind(&agent.id, &[]), vec![]);
}
