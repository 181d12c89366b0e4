//! Which rules are in force: until they are raised everything is written as the program of before reads it, and then they
//! are never taken back.

use dotmac_domain::{
    Accepted, Changed, Command, Envelope, State,
    access::Role,
    audit::Stream,
    envelope::Actor,
    reply::Code,
    retention::{self, Kept},
    rules::{RULES_VERSION, Raised},
    state::v1,
};
use dotmac_protocol::{codec, time::Timestamp};

use crate::fixture::{World, admin, attest_together, code_of, create, token, token_id};

const RAISE: Command = Command::RaiseRules { to: 2 };

fn replayed(log: &[Envelope]) -> State {
    let mut state = State::default();
    for envelope in log {
        state.apply(envelope);
    }
    state
}

#[test]
fn a_cluster_of_before_is_written_as_before_until_its_rules_are_raised() {
    let (mut world, _, _) = World::with_active_under(1);
    assert_eq!(world.state.rules, 1);
    let before = world.state.to_bytes().unwrap();
    let read: v1::State = codec::decode(&before).unwrap();
    assert_eq!(State::from(read), world.state);

    assert_eq!(world.ask(RAISE), Ok(Accepted::Done));
    let raised = &world.applied.last().unwrap().changed;
    assert!(raised.contains(&Changed::Cluster), "{raised:?}");
    assert_eq!(world.state.rules, 2);
    let (at, by) = (Timestamp(world.now), admin());
    assert_eq!(world.state.raised.get(&2), Some(&Raised { at, by }));
    let after = world.state.to_bytes().unwrap();
    assert_eq!((before[0], after[0]), (1, 2));
    assert!(codec::decode::<v1::State>(&after).is_err());
    assert_eq!(State::from_bytes(&after).as_ref(), Ok(&world.state));
    assert_eq!(replayed(&world.log).digest(), world.state.digest());
}

#[test]
fn rules_are_raised_by_who_may_with_proof_and_are_never_taken_back() {
    let mut world = World::founded_under(1);
    let auditor = token(2, Role::Auditor, None);
    world.ask(Command::CreateToken(auditor)).unwrap();
    let auditor = Actor::Person(token_id(2));
    assert_eq!(code_of(world.ask_as(auditor, RAISE)), Code::Forbidden);
    assert_eq!(code_of(world.forge(RAISE)), Code::Forbidden);
    assert_eq!(code_of(world.plan(RAISE)), Code::Forbidden);
    let beyond = Command::RaiseRules {
        to: RULES_VERSION + 1,
    };
    assert_eq!(code_of(world.ask(beyond)), Code::Invalid);
    assert_eq!(world.state.rules, 1);
    assert_eq!(world.ask(RAISE), Ok(Accepted::Done));
    let since = world.state.raised.clone();
    world.now += 1;
    assert_eq!(world.ask(RAISE), Ok(Accepted::Done));
    assert_eq!(world.state.raised, since);
    let back = Command::RaiseRules { to: 1 };
    assert_eq!(code_of(world.ask(back)), Code::WrongState);
    assert_eq!(world.state.rules, 2);
}

#[test]
fn what_a_program_of_before_cannot_read_is_not_taken_before_its_rules() {
    let (mut world, _, _) = World::with_active_under(1);
    let mut asked = ["One", "Two"].map(|name| world.envelope(admin(), create(name)));
    assert_eq!(asked[0].rules_to_read(), 1);
    attest_together(&mut asked, &[1, 2], world.now + 30_000);
    let drop_facts = Command::DropFacts { drops: Vec::new() };
    let dropping = world.envelope(Actor::Planner, drop_facts.clone());
    for envelope in [&asked[0], &dropping] {
        assert_eq!(envelope.rules_to_read(), 2);
        assert_eq!(code_of(world.apply(envelope)), Code::WrongState);
    }
    assert!(world.state.retained.is_empty(), "chains are marked");
    let far = Timestamp(u64::MAX);
    assert_eq!(retention::due(&world.state, Kept::default(), far), None);
    let read: v1::State = codec::decode(&world.state.to_bytes().unwrap()).unwrap();
    assert_eq!(State::from(read), world.state);

    assert_eq!(world.ask(RAISE), Ok(Accepted::Done));
    let taken = world.apply(&asked[1]);
    assert!(taken.is_ok(), "{taken:?}");
    assert_eq!(world.plan(drop_facts), Ok(Accepted::Done));
    let marked = world.state.retained.get(&Stream::Platform).unwrap();
    assert!(marked.marks[0].head.sequence > 0, "{marked:?}");
}

#[test]
fn a_new_cluster_begins_with_the_rules_of_its_makers_program() {
    for (said, follows) in [(0, 1), (1, 1), (2, 2), (u16::MAX, RULES_VERSION)] {
        let world = World::founded_under(said);
        assert_eq!(world.state.rules, follows);
        let known: Vec<u16> = world.state.raised.keys().copied().collect();
        assert_eq!(known, (2..=follows).collect::<Vec<_>>());
    }
    let world = World::founded();
    assert_eq!(world.log[0].rules_to_read(), RULES_VERSION);
}
