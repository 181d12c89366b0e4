//! Retention: what of a chain is dropped is old enough by the State's clock, and what is left proves itself.

use dotmac_domain::{
    Accepted, Command,
    audit::{Fact, Stream},
    envelope::Actor,
    reply::Code,
    retention::{AUDIT_DAYS_MIN, DAYS_MAX, DROPS_MAX, Kept, MARKS_MAX, due},
};
use dotmac_protocol::time::Timestamp;

use crate::fixture::{HOUR_MS, World, admin, code_of, create};

const DAY_MS: u64 = 24 * HOUR_MS;

/// A cluster in which somebody asked for something on each of so many days.
fn world(days: u64) -> World {
    let (mut world, _) = World::with_agent();
    for day in 0..days {
        world.now += DAY_MS;
        world.forge(create(&format!("Day {day}"))).unwrap();
        let note = Command::NoteAccess {
            action: "looked.at".into(),
            tenant: None,
            detail: String::new(),
        };
        world.plan(note).unwrap();
    }
    world
}

fn platform(world: &World) -> Vec<Fact> {
    let facts = world.applied.iter().flat_map(|applied| &applied.facts);
    let facts = facts.filter(|fact| fact.stream == Stream::Platform);
    facts.cloned().collect()
}

#[test]
fn what_is_old_enough_is_dropped_and_the_rest_proves_itself() {
    let mut world = world(500);
    let facts = platform(&world);
    let kept = Kept::default();
    let mut dropped = 0;
    while let Some(command) = due(&world.state, kept, Timestamp(world.now)) {
        let Command::DropFacts { drops } = &command else {
            panic!("{command:?}");
        };
        assert!(drops.len() <= DROPS_MAX);
        dropped += drops.len();
        assert_eq!(world.plan(command), Ok(Accepted::Done));
    }
    assert!(dropped > 0, "nothing was dropped");
    let end = world.state.dropped(&Stream::Platform);
    let first = &facts[usize::try_from(end.sequence).unwrap()];
    assert_eq!(first.sequence, end.sequence + 1);
    assert_eq!(first.link.previous(), Ok(end.digest));
    let age = |fact: &Fact| {
        let dotmac_domain::audit::Link::Entry(bytes) = &fact.link else {
            panic!("{fact:?}");
        };
        let record: dotmac_domain::audit::AuditRecord =
            dotmac_protocol::codec::decode(bytes).unwrap();
        (world.now - record.at.0) / DAY_MS
    };
    let last_dropped = &facts[usize::try_from(end.sequence).unwrap() - 1];
    assert!(
        age(last_dropped) >= kept.audit_days,
        "{}",
        age(last_dropped)
    );
    assert!(age(first) < kept.audit_days + 31, "{}", age(first));
    let bytes = world.state.to_bytes().unwrap();
    assert_eq!(
        dotmac_domain::State::from_bytes(&bytes).unwrap(),
        world.state
    );
}

#[test]
fn nobody_drops_what_is_younger_or_no_end_of_a_period_or_what_bills_rest_on() {
    let mut world = world(AUDIT_DAYS_MIN + 40);
    let retained = world.state.retained.get(&Stream::Platform).unwrap().clone();
    let [start, old, .., young] = &retained.marks[..] else {
        panic!("{retained:?}");
    };
    assert_eq!(start.head.sequence, 0);
    let usage = Stream::Usage("demo-isp-0190a1b2".parse().unwrap());
    let through = |stream: &Stream, sequence| Command::DropFacts {
        drops: vec![(stream.clone(), sequence)],
    };
    for refused in [
        through(&Stream::Platform, young.head.sequence),
        through(&Stream::Platform, old.head.sequence + 1),
        through(&Stream::Platform, u64::MAX),
        through(&usage, 1),
    ] {
        assert_eq!(code_of(world.plan(refused)), Code::WrongState);
    }
    let good = through(&Stream::Platform, old.head.sequence);
    let by_person = world.proven(admin(), good.clone());
    assert_eq!(code_of(world.apply(&by_person)), Code::Forbidden);
    let many = Command::DropFacts {
        drops: vec![(Stream::Platform, 0); DROPS_MAX + 1],
    };
    assert_eq!(code_of(world.plan(many)), Code::Invalid);
    assert_eq!(world.state.dropped(&Stream::Platform).sequence, 0);
    // Whatever a leader is configured to, the least time holds.
    let eager = Kept {
        audit_days: 0,
        minutes_days: 0,
    };
    let Some(Command::DropFacts { drops }) = due(&world.state, eager, Timestamp(world.now)) else {
        panic!("nothing is due");
    };
    assert!(
        drops
            .iter()
            .all(|(_, sequence)| *sequence < young.head.sequence)
    );
    assert_eq!(world.plan(good), Ok(Accepted::Done));
    assert_eq!(world.state.dropped(&Stream::Platform), old.head);
}

#[test]
fn law_11_marks_of_a_chain_are_bounded() {
    let (mut world, _) = World::with_agent();
    for _ in 0..MARKS_MAX + 10 {
        world.now += 31 * DAY_MS;
        let note = Command::NoteAccess {
            action: "looked.at".into(),
            tenant: None,
            detail: String::new(),
        };
        let envelope = world.envelope(Actor::Planner, note);
        world.apply(&envelope).unwrap();
    }
    let marks = world
        .state
        .retained
        .get(&Stream::Platform)
        .unwrap()
        .marks
        .len();
    assert_eq!(marks, MARKS_MAX);
    assert!(MARKS_MAX as u64 * 30 > DAYS_MAX);
}
