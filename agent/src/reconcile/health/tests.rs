//! Which situation sums up to which health.

use std::sync::Arc;

use dotmac_protocol::{
    digest::Digest, ids::Generation, record::HealthStatus, release::Manifest, time::Timestamp,
    unit::Instance,
};

use super::{Assessment, assess, components};
use crate::{
    fixture,
    reconcile::{
        goal::{Goal, Target},
        memory::{LastEnd, SlotMemory},
        plan::{Backoff, Phase, Readiness, Slot, Slots},
    },
};

const NOW: Timestamp = Timestamp(1_000_000);

fn goal() -> Goal {
    let manifest = br#"{"name": "demo", "version": "1", "components": {
        "migration": {"kind": "task", "run": {"command": ["true"]}},
        "web": {"run": {"command": ["web"]}, "ports": ["http"]}
    }}"#;
    let manifest = Manifest::parse(manifest).unwrap();
    Goal::Keep(Box::new(Target {
        generation: Generation(2),
        fingerprint: Digest::ZERO,
        order: manifest
            .start_order()
            .unwrap()
            .into_iter()
            .cloned()
            .collect(),
        manifest,
        instance: Arc::new(Instance {
            replicas: 1,
            restarts: 0,
            ..fixture::instance("demo")
        }),
    }))
}

fn web(phase: Phase, readiness: Readiness) -> Slot {
    let memory = SlotMemory {
        launch: 1,
        fingerprint: Some(Digest::ZERO),
        generation: Generation(2),
        started_at: Timestamp(NOW.0 - 20_000),
        ports: [("http".parse().unwrap(), 8_101)].into(),
        ..SlotMemory::default()
    };
    Slot {
        phase,
        readiness,
        hung: None,
        memory,
    }
}

fn with(web: Slot) -> Slots {
    let memory = SlotMemory {
        done: Some(Generation(2)),
        ..SlotMemory::default()
    };
    let task = Slot {
        phase: Phase::Idle,
        readiness: Readiness::Open,
        hung: None,
        memory,
    };
    [
        ("migration.0".parse().unwrap(), task),
        ("web.0".parse().unwrap(), web),
    ]
    .into()
}

fn look(slots: &Slots) -> Assessment {
    assess(&goal(), slots, |_| false, &Backoff::default(), NOW)
}

fn status(web: Slot) -> (HealthStatus, String) {
    let found = look(&with(web));
    (found.status.unwrap(), found.reason)
}

fn crashed(mut slot: Slot, crashes: u32) -> Slot {
    let how = "web.0 ended with exit code 7".to_owned();
    slot.memory.crashes = crashes;
    slot.memory.last_end = Some(LastEnd {
        at: NOW,
        how,
        lines: "the last word\n".into(),
    });
    slot
}

#[test]
fn a_unit_starts_until_everything_is_ready_and_is_healthy_then() {
    assert_eq!(look(&Slots::new()).status, Some(HealthStatus::Starting));
    let open = status(web(Phase::Running, Readiness::Open));
    assert_eq!(
        open,
        (HealthStatus::Starting, "web.0 is not ready yet".into())
    );
    let ready = status(web(Phase::Running, Readiness::Ready));
    assert_eq!(ready, (HealthStatus::Healthy, String::new()));
}

#[test]
fn a_crash_degrades_and_a_row_of_them_fails_with_the_last_lines() {
    let (degraded, _) = status(crashed(web(Phase::Idle, Readiness::Open), 4));
    assert_eq!(degraded, HealthStatus::Degraded);
    let (failed, reason) = status(crashed(web(Phase::Idle, Readiness::Open), 5));
    assert_eq!(failed, HealthStatus::Failed);
    assert_eq!(
        reason,
        "web.0 keeps ending: web.0 ended with exit code 7; its last lines:\nthe last word"
    );
    let (back, _) = status(crashed(web(Phase::Running, Readiness::Ready), 5));
    assert_eq!(back, HealthStatus::Healthy);
}

#[test]
fn a_restart_shows_for_a_while() {
    let mut slot = crashed(web(Phase::Running, Readiness::Ready), 1);
    slot.memory.restarted_at = Some(Timestamp(NOW.0 - 9_999));
    let found = look(&with(slot.clone()));
    assert_eq!(found.status, Some(HealthStatus::Degraded));
    assert_eq!(found.recheck_at, Some(Timestamp(NOW.0 + 1)));
    slot.memory.restarted_at = Some(Timestamp(NOW.0 - 10_000));
    assert_eq!(status(slot).0, HealthStatus::Healthy);
}

#[test]
fn not_ready_degrades_and_never_ready_fails() {
    let mut slot = web(
        Phase::Running,
        Readiness::NotReady("healthy is false".into()),
    );
    assert_eq!(status(slot.clone()).0, HealthStatus::Degraded);
    slot.memory.started_at = Timestamp(NOW.0 - 60_000);
    let (failed, reason) = status(slot.clone());
    assert_eq!(failed, HealthStatus::Failed);
    assert_eq!(reason, "web.0 never became ready: healthy is false");
    slot.memory.ready = Some(Generation(2));
    assert_eq!(status(slot).0, HealthStatus::Degraded, "it was ready once");
}

#[test]
fn nothing_is_said_about_adopted_processes_before_a_probe_spoke() {
    let slots = with(web(Phase::Running, Readiness::Open));
    let found = assess(&goal(), &slots, |_| true, &Backoff::default(), NOW);
    assert_eq!(found.status, None);
    let slots = with(crashed(web(Phase::Idle, Readiness::Open), 1));
    let found = assess(&goal(), &slots, |_| true, &Backoff::default(), NOW);
    assert_eq!(
        found.status,
        Some(HealthStatus::Degraded),
        "a crash is a fact"
    );
}

#[test]
fn parts_tell_copies_processes_and_address() {
    let slots = with(web(Phase::Running, Readiness::Ready));
    let parts = components(&goal(), &slots, |slot| (slot.replica == 0).then_some(42));
    let web = &parts[1];
    assert_eq!(
        (web.desired, web.ready, web.pids.as_slice()),
        (1, 1, [42].as_slice())
    );
    assert_eq!(web.address.as_deref(), Some("127.0.0.1:8101"));
    assert_eq!(
        (parts[0].desired, parts[0].ready),
        (1, 1),
        "the task is done"
    );
}

#[test]
fn a_change_that_stopped_says_so_and_an_old_copy_does_not_fail_for_it() {
    let mut slots = with(web(
        Phase::Running,
        Readiness::NotReady("it answers 503".into()),
    ));
    let mut goal = goal();
    if let Goal::Keep(target) = &mut goal {
        target.instance = Arc::new(Instance {
            replicas: 2,
            ..(*target.instance).clone()
        });
    }
    let mut old = web(Phase::Running, Readiness::Ready);
    old.memory.fingerprint = Some(Digest::of(b"before"));
    slots.insert("web.1".parse().unwrap(), old.clone());
    let look = |slots: &Slots| assess(&goal, slots, |_| false, &Backoff::default(), NOW);
    let found = look(&slots);
    let reason = "the change stopped, 1 not yet replaced: web.0 is not ready: it answers 503";
    assert_eq!(found.status, Some(HealthStatus::Degraded));
    assert_eq!(found.reason, reason);
    slots.insert(
        "web.0".parse().unwrap(),
        web(Phase::Running, Readiness::Ready),
    );
    assert_eq!(look(&slots).status, Some(HealthStatus::Starting));
    old.readiness = Readiness::NotReady("it answers 503".into());
    old.memory.started_at = Timestamp(0);
    slots.insert("web.1".parse().unwrap(), old);
    assert_eq!(look(&slots).status, Some(HealthStatus::Degraded));
}

#[test]
fn a_unit_is_not_healthy_before_what_is_not_wanted_is_gone() {
    let mut slots = with(web(Phase::Running, Readiness::Ready));
    let leaving = web(Phase::Stopping(NOW), Readiness::Open);
    slots.insert("web.1".parse().unwrap(), leaving);
    let found = look(&slots);
    assert_eq!(found.status, Some(HealthStatus::Starting));
    assert_eq!(found.reason, "web.1 still runs and is not wanted any more");
    slots.get_mut(&"web.1".parse().unwrap()).unwrap().phase = Phase::Idle;
    assert_eq!(look(&slots).status, Some(HealthStatus::Healthy));
}
