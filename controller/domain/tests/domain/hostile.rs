//! Whatever is in the log, apply gives an answer: it neither panics nor leaves anything behind a rejection but its
//! audit entry and its answer.

use dotmac_domain::{Command, State, envelope::Actor, signer::check};
use dotmac_protocol::{
    codec::encode,
    digest::Digest,
    ids::{DeploymentId, UnitId},
    record::{Event, Limits, Outcome},
    time::Timestamp,
};
use proptest::prelude::*;

use crate::fixture::{TestAgent, World, attest, genesis};

mod licenses;
mod platform;
mod strategies;

use strategies::{actor, command, event, evidence, number};

fn base() -> (World, TestAgent, DeploymentId) {
    use std::sync::OnceLock;
    static BASE: OnceLock<(World, TestAgent, DeploymentId)> = OnceLock::new();
    BASE.get_or_init(World::with_active).clone()
}

/// All but what a rejection may leave behind: the clock, the audit entry with its mark, the answer.
fn without_traces(state: &State) -> State {
    let none = State::default();
    State {
        now: none.now,
        streams: none.streams,
        retained: none.retained,
        answers: none.answers,
        answer_order: none.answer_order,
        ..state.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn apply_is_total_and_a_rejection_leaves_only_its_audit_entry_and_its_answer(
        entries in prop::collection::vec((command(), actor(), evidence(), number()), 1..12)
    ) {
        let (mut world, _, _) = base();
        for (command, actor, evidence, at) in entries {
            let mut envelope = world.envelope(actor, command);
            envelope.evidence = evidence;
            if at % 4 == 0 {
                envelope.at = Timestamp(at);
            }
            if at % 4 == 1 {
                let expires_at = world.now + 30_000;
                envelope = attest(envelope, &[1, 2], expires_at);
            }
            if encode(&envelope).is_err() {
                // It is too large for the log.
                continue;
            }
            let before = without_traces(&world.state);
            let reply = world.apply(&envelope);
            if reply.is_err() {
                prop_assert_eq!(without_traces(&world.state), before);
                prop_assert!(world.applied.last().unwrap().facts.len() <= 1);
            }
            for number in world.state.waves.keys() {
                // The signers' checks are total as well.
                let _signed = check(&world.state, *number, world.state.now);
            }
            let planned = dotmac_domain::plan::plan(&world.state, world.state.now);
            prop_assert!(planned.len() <= dotmac_domain::plan::PLAN_COMMANDS_MAX);
            for fact in &world.applied.last().unwrap().facts {
                prop_assert!(encode(fact).is_ok());
            }
        }
        let bytes = world.state.to_bytes().unwrap();
        prop_assert_eq!(State::from_bytes(&bytes), Ok(world.state));
    }

    #[test]
    fn apply_is_total_whatever_an_agent_says_under_its_own_key(
        events in prop::collection::vec((event(), any::<bool>()), 1..8)
    ) {
        let (mut world, mut agent, id) = base();
        let unit = UnitId::instance(&id);
        for (event, is_about_unit) in events {
            let unit = is_about_unit.then_some(&unit);
            if encode(&event_sized(&agent, &event)).is_err() {
                continue;
            }
            let record = agent.record(unit, event);
            prop_assert!(world.report(&agent, vec![record]).is_ok());
            for fact in &world.applied.last().unwrap().facts {
                prop_assert!(encode(fact).is_ok());
            }
        }
        let bytes = world.state.to_bytes().unwrap();
        prop_assert_eq!(State::from_bytes(&bytes), Ok(world.state));
    }
}

/// A record as large as the one that will be signed, to leave out those beyond the limit.
fn event_sized(agent: &TestAgent, event: &Event) -> dotmac_protocol::record::Record {
    dotmac_protocol::record::Record {
        agent: agent.id.clone(),
        incarnation: agent.incarnation.clone(),
        sequence: u64::MAX,
        previous: Digest::ZERO,
        at: Timestamp(u64::MAX),
        tenant: None,
        unit: Some(UnitId::instance(&"a".repeat(49).parse().unwrap())),
        request: None,
        event: event.clone(),
    }
}

#[test]
fn nothing_is_accepted_before_the_founding_and_the_founding_only_once() {
    let (world, _, _) = base();
    for envelope in &world.log[1..] {
        let mut state = State::default();
        let applied = state.apply(envelope);
        assert_eq!(
            applied.reply.unwrap_err().code,
            dotmac_domain::reply::Code::NotFounded
        );
    }
    let mut world = World::founded();
    let founded = world.state.clone();
    let again = world.envelope(Actor::Founder, Command::Found(Box::new(genesis())));
    assert!(world.apply(&again).is_ok());
    assert_eq!(world.state, founded);
    let mut other = genesis();
    other.grace_ms = 0;
    let other = world.envelope(Actor::Founder, Command::Found(Box::new(other)));
    assert!(world.apply(&other).is_err());
    assert_eq!(world.state, founded);
}

#[test]
fn a_founding_whose_trust_root_is_not_signed_is_refused() {
    let mut unsigned = genesis();
    unsigned.trust_root.signatures.clear();
    let mut state = State::default();
    let mut world = World::founded();
    let envelope = world.envelope(Actor::Founder, Command::Found(Box::new(unsigned)));
    assert!(state.apply(&envelope).reply.is_err());
    assert_eq!(state.genesis, None);
}

#[test]
fn an_agent_that_writes_nothing_but_control_characters_is_recorded() {
    let (mut world, mut agent, id) = base();
    let leaf_unit = UnitId::instance(&id);
    let unit = world
        .state
        .units
        .get(&(agent.id.clone(), leaf_unit))
        .unwrap()
        .clone();
    let leaf = world.leaf_like(&id, &unit);
    let limits = Limits::NotEnforced {
        reason: "\u{1}".repeat(15 * 1024),
    };
    let record = agent.receipt(&leaf, Outcome::Applied { limits });
    assert!(world.report(&agent, vec![record]).is_ok());
}
