//! Whether a verified intent is taken, given what the agent holds: every rule, and the order in which they count.

use dotmac_protocol::{
    acceptance::{CLOCK_STALE_MS, Held, Refusal, accept, check_clock},
    ids::{Generation, Sequence},
    time::{Timestamp, Window},
    wave::{Leaf, Verb},
};
use proptest::prelude::*;

use crate::samples::{NOW, leaf, tenant};

/// Generation and sequence.
type Numbers = (u64, u64);

fn held((generation, sequence): Numbers) -> Held {
    Held {
        tenant: tenant(),
        generation: Generation(generation),
        sequence: Sequence(sequence),
        removed: false,
    }
}

fn order((generation, sequence): Numbers, previous: u64, verb: Verb) -> Leaf {
    Leaf {
        generation: Generation(generation),
        sequence: Sequence(sequence),
        previous: Sequence(previous),
        verb,
        ..leaf()
    }
}

fn sequence(held: u64, found: u64) -> Result<(), Refusal> {
    let (held, found) = (Sequence(held), Sequence(found));
    Err(Refusal::Sequence { held, found })
}

fn generation(held: u64, found: u64) -> Result<(), Refusal> {
    let (held, found) = (Generation(held), Generation(found));
    Err(Refusal::Generation { held, found })
}

fn behind(held: u64, previous: u64) -> Result<(), Refusal> {
    let (held, previous) = (Sequence(held), Sequence(previous));
    Err(Refusal::JournalBehind { held, previous })
}

/// What is held (generation and sequence), what arrives, the sequence it builds on, its verb, and what follows.
type Row = (Option<Numbers>, Numbers, u64, Verb, Result<(), Refusal>);

#[test]
fn only_what_is_newer_is_taken() {
    use Verb::{Apply, Remove};
    let rows: [(&str, Row); 13] = [
        ("first order", (None, (1, 1), 0, Apply, Ok(()))),
        ("first, repeated", (None, (1, 5), 0, Apply, Ok(()))),
        ("first is a removal", (None, (2, 3), 0, Remove, Ok(()))),
        ("sequence 0", (None, (1, 0), 0, Apply, sequence(0, 0))),
        ("next", (Some((3, 7)), (4, 8), 7, Apply, Ok(()))),
        ("again", (Some((3, 7)), (3, 8), 6, Apply, Ok(()))),
        ("removal", (Some((3, 7)), (4, 8), 7, Remove, Ok(()))),
        (
            "duplicate",
            (Some((3, 7)), (3, 7), 6, Apply, sequence(7, 7)),
        ),
        ("replay", (Some((3, 7)), (3, 6), 5, Apply, sequence(7, 6))),
        (
            "old generation",
            (Some((3, 7)), (2, 8), 7, Apply, generation(3, 2)),
        ),
        (
            "old tombstone",
            (Some((3, 7)), (2, 8), 7, Remove, generation(3, 2)),
        ),
        ("wiped disk", (None, (3, 8), 7, Apply, behind(0, 7))),
        (
            "restored disk",
            (Some((3, 6)), (4, 8), 7, Apply, behind(6, 7)),
        ),
    ];
    for (name, (before, numbers, previous, verb, expected)) in rows {
        let before = before.map(held);
        let leaf = order(numbers, previous, verb);
        assert_eq!(accept(before.as_ref(), &leaf, NOW), expected, "{name}");
    }
}

#[test]
fn what_was_removed_comes_back_under_a_newer_generation_only() {
    let removed = Held {
        removed: true,
        ..held((3, 7))
    };
    let take = |numbers, verb| accept(Some(&removed), &order(numbers, 7, verb), NOW);
    let held = Generation(3);
    assert_eq!(take((3, 8), Verb::Apply), Err(Refusal::Removed { held }));
    assert_eq!(take((3, 8), Verb::Remove), Ok(()));
    assert_eq!(take((4, 8), Verb::Apply), Ok(()));
}

#[test]
fn a_unit_never_changes_hands() {
    let foreign = Held {
        tenant: "other-isp-00000000".parse().unwrap(),
        ..held((3, 7))
    };
    let leaf = order((4, 8), 7, Verb::Apply);
    assert_eq!(accept(Some(&foreign), &leaf, NOW), Err(Refusal::Tenant));
}

#[test]
fn an_order_is_taken_inside_its_window_only() {
    let Window {
        not_before,
        not_after,
    } = leaf().window;
    let first = order((1, 1), 0, Verb::Apply);
    for (now, inside) in [
        (not_before.0 - 1, false),
        (not_before.0, true),
        (not_after.0 - 1, true),
        (not_after.0, false),
        (u64::MAX, false),
        (0, false),
    ] {
        let now = Timestamp(now);
        let expected = if inside {
            Ok(())
        } else {
            Err(Refusal::Window {
                now,
                not_before,
                not_after,
            })
        };
        assert_eq!(accept(None, &first, now), expected, "{now}");
    }
}

proptest! {
    #[test]
    fn what_was_taken_is_not_taken_again_and_never_leads_back(
        held in (0..6_u64, 0..6_u64, any::<bool>()),
        found in (0..6_u64, 0..6_u64, 0..6_u64, any::<bool>()),
    ) {
        let before = Held { removed: held.2, ..self::held((held.0, held.1)) };
        let verb = if found.3 { Verb::Remove } else { Verb::Apply };
        let leaf = order((found.0, found.1), found.2, verb);
        if accept(Some(&before), &leaf, NOW).is_ok() {
            prop_assert!(leaf.sequence > before.sequence);
            prop_assert!(leaf.generation >= before.generation);
            let after = Held {
                generation: leaf.generation,
                sequence: leaf.sequence,
                removed: verb == Verb::Remove,
                ..before
            };
            prop_assert!(accept(Some(&after), &leaf, NOW).is_err());
        }
    }
}

#[test]
fn law_3_no_new_work_without_a_signed_clock_or_with_a_stale_one() {
    assert_eq!(check_clock(None, NOW), Err(Refusal::NoClock));
    let last = NOW.plus_millis(CLOCK_STALE_MS);
    for own in [Timestamp(0), NOW, last] {
        assert_eq!(check_clock(Some(NOW), own), Ok(()), "{own}");
    }
    let (signed, now) = (NOW, last.plus_millis(1));
    let stale = Refusal::StaleClock { signed, now };
    assert_eq!(
        stale.to_string(),
        "the newest signed clock is 600 s old by this agent's own, more than 600 s: no new work is taken"
    );
    assert_eq!(check_clock(Some(signed), now), Err(stale));
}
