//! What is planned in which situation: whole plans, compared as values.

mod changes;

use std::sync::Arc;

use dotmac_protocol::{
    digest::Digest,
    ids::{Generation, PartName},
    release::Manifest,
    time::Timestamp,
    unit::{Instance, RunState},
};

use super::{
    Backoff, KILL_AFTER_MS, Phase, Readiness, Slot, SlotMemory, Slots, Step, StopReason, plan, wait,
};
use crate::{
    driver::SlotName,
    fixture,
    reconcile::{
        goal::{Goal, Target},
        memory::LastEnd,
    },
};

const NOW: Timestamp = Timestamp(1_000_000);

/// A migration first, then a database, then a web server.
fn target(generation: u64, content: u8) -> Target {
    let manifest = Manifest::parse(
        br#"{"name": "demo", "version": "1", "components": {
            "migration": {"kind": "task", "run": {"command": ["true"]}},
            "database": {"run": {"command": ["db"]}, "after": ["migration"]},
            "web": {"run": {"command": ["web"]}, "after": ["database", "migration"]}
        }}"#,
    )
    .unwrap();
    let instance = Instance {
        run: RunState::Running,
        replicas: 1,
        restarts: 0,
        ..fixture::instance("demo")
    };
    Target {
        generation: Generation(generation),
        fingerprint: Digest::of(&[content]),
        order: manifest
            .start_order()
            .unwrap()
            .into_iter()
            .cloned()
            .collect(),
        manifest,
        instance: Arc::new(instance),
    }
}

fn keep(generation: u64, content: u8) -> Goal {
    Goal::Keep(Box::new(target(generation, content)))
}

/// Only a web server, in so many copies.
fn copies(generation: u64, content: u8, replicas: u16) -> Goal {
    let mut target = target(generation, content);
    target.manifest.components.retain(|name, component| {
        component.after.clear();
        name.as_str() == "web"
    });
    target.order.retain(|name| name.as_str() == "web");
    target.instance = Arc::new(Instance {
        replicas,
        ..(*target.instance).clone()
    });
    Goal::Keep(Box::new(target))
}

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

fn slot(phase: Phase, readiness: Readiness, content: u8) -> Slot {
    Slot {
        phase,
        readiness,
        hung: None,
        memory: SlotMemory {
            launch: 1,
            generation: Generation(1),
            fingerprint: Some(Digest::of(&[content])),
            patience_ms: 1_000,
            ..SlotMemory::default()
        },
    }
}

fn ready(content: u8) -> Slot {
    slot(Phase::Running, Readiness::Ready, content)
}

fn done(generation: u64) -> Slot {
    let mut slot = slot(Phase::Idle, Readiness::Open, 1);
    slot.memory.done = Some(Generation(generation));
    slot
}

fn crashed(crashes: u32, at: Timestamp) -> Slot {
    let mut slot = slot(Phase::Idle, Readiness::Open, 1);
    slot.memory.crashes = crashes;
    slot.memory.last_end = Some(LastEnd {
        at,
        how: "exit code 7".into(),
        lines: String::new(),
    });
    slot
}

fn slots<const N: usize>(slots: [(&str, Slot); N]) -> Slots {
    slots
        .into_iter()
        .map(|(text, slot)| (name(text), slot))
        .collect()
}

fn all_ready(content: u8) -> Slots {
    slots([
        ("migration.0", done(1)),
        ("database.0", ready(content)),
        ("web.0", ready(content)),
    ])
}

fn steps(goal: &Goal, slots: &Slots) -> Vec<Step> {
    plan(goal, slots, &Backoff::default(), NOW)
}

/// What is done at once; what is waited for is left out.
fn actions(goal: &Goal, slots: &Slots) -> Vec<Step> {
    let steps = steps(goal, slots).into_iter();
    steps
        .filter(|step| !matches!(step, Step::Wait { .. }))
        .collect()
}

#[test]
fn components_start_behind_those_they_need() {
    let start = |text: &str| Step::Start(name(text));
    assert_eq!(actions(&keep(1, 1), &Slots::new()), [start("migration.0")]);
    let mut now = slots([("migration.0", done(1))]);
    assert_eq!(actions(&keep(1, 1), &now), [start("database.0")]);
    now.insert(name("database.0"), slot(Phase::Running, Readiness::Open, 1));
    assert_eq!(actions(&keep(1, 1), &now), []);
    now.insert(name("database.0"), ready(1));
    assert_eq!(actions(&keep(1, 1), &now), [start("web.0")]);
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    assert_eq!(steps(&keep(1, 1), &all_ready(1)), []);
}

#[test]
fn a_wait_says_what_it_waits_for() {
    let now = slots([
        ("migration.0", done(1)),
        ("database.0", slot(Phase::Running, Readiness::Open, 1)),
    ]);
    let reason = "web.0 is not started yet: database.0 must be ready first".to_owned();
    assert_eq!(
        steps(&keep(1, 1), &now).first(),
        Some(&Step::Wait {
            until: None,
            reason
        })
    );
}

#[test]
fn a_task_runs_until_its_end_counts_for_the_generation() {
    let running = slots([("migration.0", slot(Phase::Running, Readiness::Open, 1))]);
    assert_eq!(actions(&keep(1, 1), &running), []);
    let mut now = all_ready(1);
    assert_eq!(
        actions(&keep(2, 1), &now),
        [Step::Start(name("migration.0"))]
    );
    now.insert(name("migration.0"), done(2));
    assert_eq!(
        actions(&keep(2, 1), &now),
        [],
        "the same content restarts nothing else"
    );
}

#[test]
fn crashes_in_a_row_are_started_again_after_growing_pauses() {
    let pauses: Vec<u64> = (1..=8)
        .map(|crashes| Backoff::default().pause_ms(crashes))
        .collect();
    assert_eq!(
        pauses,
        [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
    );
    let mut now = all_ready(1);
    now.insert(name("web.0"), crashed(3, Timestamp(NOW.0 - 1_999)));
    let until = Some(Timestamp(NOW.0 + 1));
    let reason = "web.0 is started again after a pause: exit code 7".to_owned();
    assert_eq!(steps(&keep(1, 1), &now), [Step::Wait { until, reason }]);
    now.insert(name("web.0"), crashed(3, Timestamp(NOW.0 - 2_000)));
    assert_eq!(steps(&keep(1, 1), &now), [Step::Start(name("web.0"))]);
}

#[test]
fn a_clock_that_was_set_back_does_not_stretch_a_pause() {
    let mut now = all_ready(1);
    now.insert(name("web.0"), crashed(1, Timestamp(NOW.0 + 3_600_000)));
    assert_eq!(steps(&keep(1, 1), &now), [Step::Start(name("web.0"))]);
}

#[test]
fn a_new_release_does_not_wait_for_the_crashes_of_the_old_one() {
    let mut now = all_ready(2);
    now.insert(name("web.0"), crashed(9, NOW));
    assert_eq!(actions(&keep(1, 2), &now), [Step::Start(name("web.0"))]);
}

#[test]
fn components_are_replaced_behind_the_task_and_those_they_need() {
    let goal = keep(2, 2);
    let stop = |text: &str| Step::Stop(name(text), StopReason::Replaced);
    let mut now = all_ready(1);
    assert_eq!(actions(&goal, &now), [Step::Start(name("migration.0"))]);
    now.insert(name("migration.0"), done(2));
    assert_eq!(actions(&goal, &now), [stop("database.0")]);
    now.insert(name("database.0"), slot(Phase::Running, Readiness::Open, 2));
    assert_eq!(
        actions(&goal, &now),
        [],
        "the old web server stays until the new database is ready"
    );
    now.insert(name("database.0"), ready(2));
    assert_eq!(actions(&goal, &now), [stop("web.0")]);
}

#[test]
fn copies_are_started_together_and_replaced_one_at_a_time() {
    let start = |text: &str| Step::Start(name(text));
    let stop = |text: &str| Step::Stop(name(text), StopReason::Replaced);
    assert_eq!(
        actions(&copies(1, 1, 2), &Slots::new()),
        [start("web.0"), start("web.1")]
    );
    let goal = copies(2, 2, 2);
    let mut now = slots([("web.0", ready(1)), ("web.1", ready(1))]);
    assert_eq!(actions(&goal, &now), [stop("web.0")]);
    now.insert(
        name("web.0"),
        slot(Phase::Stopping(NOW), Readiness::Open, 1),
    );
    assert_eq!(actions(&goal, &now), []);
    now.insert(name("web.0"), slot(Phase::Idle, Readiness::Open, 1));
    assert_eq!(actions(&goal, &now), [start("web.0")]);
    now.insert(name("web.0"), slot(Phase::Running, Readiness::Open, 2));
    assert_eq!(actions(&goal, &now), [], "the new copy is not ready yet");
    now.insert(name("web.0"), ready(2));
    assert_eq!(actions(&goal, &now), [stop("web.1")]);
}

#[test]
fn what_hangs_is_stopped_even_if_it_says_that_it_is_ready() {
    let mut now = all_ready(1);
    now.get_mut(&name("web.0")).unwrap().hung = Some("no answer".into());
    assert_eq!(
        steps(&keep(1, 1), &now),
        [Step::Stop(name("web.0"), StopReason::Hung)]
    );
}

#[test]
fn a_stop_that_takes_too_long_is_a_kill() {
    let mut now = all_ready(1);
    let overdue = Timestamp(NOW.0 - 1_000 - KILL_AFTER_MS);
    now.insert(
        name("web.0"),
        slot(Phase::Stopping(overdue), Readiness::Open, 1),
    );
    assert_eq!(actions(&keep(1, 1), &now), [Step::Kill(name("web.0"))]);
    now.insert(
        name("web.0"),
        slot(
            Phase::Stopping(Timestamp(overdue.0 + 1)),
            Readiness::Open,
            1,
        ),
    );
    assert_eq!(actions(&keep(1, 1), &now), []);
}

#[test]
fn what_a_vanished_shim_left_is_cleaned_up_before_anything_starts_there() {
    let mut now = all_ready(1);
    now.insert(name("web.0"), slot(Phase::Orphaned, Readiness::Open, 1));
    assert_eq!(actions(&keep(1, 1), &now), [Step::Sweep(name("web.0"))]);
}

#[test]
fn surplus_copies_and_components_are_stopped_and_then_forgotten() {
    let mut now = all_ready(1);
    now.insert(name("web.2"), ready(1));
    now.insert(name("worker.0"), slot(Phase::Idle, Readiness::Open, 1));
    let surplus = Step::Stop(name("web.2"), StopReason::Surplus);
    assert_eq!(
        actions(&keep(1, 1), &now),
        [surplus, Step::Forget(name("worker.0"))]
    );
}

#[test]
fn a_suspended_unit_stops_backwards_and_keeps_everything() {
    let goal = Goal::Suspend(Box::new(target(2, 1)));
    let stop = |text: &str| Step::Stop(name(text), StopReason::Suspended);
    let mut now = all_ready(1);
    assert_eq!(actions(&goal, &now), [stop("web.0")]);
    now.insert(name("web.0"), slot(Phase::Idle, Readiness::Open, 1));
    assert_eq!(actions(&goal, &now), [stop("database.0")]);
    now.insert(name("database.0"), slot(Phase::Idle, Readiness::Open, 1));
    assert_eq!(steps(&goal, &now), []);
}

#[test]
fn a_removed_unit_is_deleted_only_when_nothing_of_it_runs() {
    let stop = |text: &str| Step::Stop(name(text), StopReason::Removed);
    let now = all_ready(1);
    let all = [stop("database.0"), stop("web.0")];
    assert_eq!(actions(&Goal::Remove, &now), all);
    let stopping = slots([("web.0", slot(Phase::Stopping(NOW), Readiness::Open, 1))]);
    assert_eq!(actions(&Goal::Remove, &stopping), []);
    let settling = slots([("web.0", slot(Phase::Settling, Readiness::Open, 1))]);
    assert_eq!(actions(&Goal::Remove, &settling), []);
    let stopped = slots([("web.0", slot(Phase::Idle, Readiness::Open, 1))]);
    assert_eq!(actions(&Goal::Remove, &stopped), [Step::Remove]);
}

#[test]
fn the_order_of_components_is_that_of_the_manifest() {
    let order: Vec<PartName> = target(1, 1).order;
    let names: Vec<&str> = order.iter().map(PartName::as_str).collect();
    assert_eq!(names, ["migration", "database", "web"]);
}
