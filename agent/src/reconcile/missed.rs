//! Which copies are missed: nothing runs that could answer, though it should. Their probes are counted as failed, one for
//! each interval that passes, so that downtime is measured where nobody can be asked.
//!
//! Not missed is what was not started yet, what an order stopped, and a first start until its grace is over. After an end
//! that nobody asked for, the new start counts as missing until its probe has spoken: it has no grace here.

use std::time::Duration;

use dotmac_protocol::release::ComponentKind;
use dotmac_runtime::{clock::Clock, entropy::Entropy};

use super::{
    goal::Goal,
    plan::{Phase, Readiness, Slot, Slots},
};
use crate::{driver::SlotName, reports::Counter};

/// One copy that is missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) slot: SlotName,
    /// Milliseconds between two questions, if it could be asked.
    pub(super) period_ms: u64,
}

/// The copies of a unit that are missed.
pub(super) fn missed(goal: &Goal, slots: &Slots) -> Vec<Missed> {
    let Goal::Keep(target) = goal else {
        return Vec::new();
    };
    let wanted = target.order.iter().flat_map(|name| target.slots(name));
    let missed = wanted.filter_map(|slot| {
        let component = target.component(&slot.component)?;
        let probes = &component.probes;
        let probe = probes.ready.as_ref().or(probes.live.as_ref())?;
        let is_service = component.kind == ComponentKind::Service;
        (is_service && is_missed(slots.get(&slot)?)).then(|| Missed {
            slot,
            period_ms: probe.period_ms.into(),
        })
    });
    missed.collect()
}

/// Counts failed probes for ever. It begins anywhere in an interval, so that short absences count with their share.
pub(super) async fn keep_counting(
    period_ms: u64,
    counter: Counter,
    clock: Clock,
    entropy: Entropy,
) {
    let mut pause_ms = entropy.below(period_ms);
    loop {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        counter.count(clock.now(), 0, false);
        pause_ms = period_ms;
    }
}

fn is_missed(slot: &Slot) -> bool {
    match slot.phase {
        Phase::Running => slot.readiness == Readiness::Open && slot.memory.is_started_again(),
        Phase::Stopping(_) => slot.hung.is_some(),
        Phase::Idle | Phase::Settling | Phase::Orphaned => slot.memory.crashes > 0,
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{time::Timestamp, unit::RunState};

    use super::{Missed, missed};
    use crate::{
        fixture,
        instance_api::tests::wanted,
        reconcile::{
            goal::Goal,
            memory::SlotMemory,
            plan::{Phase, Readiness, Slot, Slots},
        },
    };

    fn goal(run: RunState) -> Goal {
        let manifest = br#"{"name": "demo", "version": "1", "components": {
            "migration": {"kind": "task", "run": {"command": ["true"]}},
            "quiet": {"run": {"command": ["quiet"]}},
            "web": {"run": {"command": ["web"]}, "ports": ["http"], "probes": {"ready": {
                "http": {"port": "http", "path": "/health/ready"}, "period_ms": 5000}}}
        }}"#;
        let manifest = dotmac_protocol::release::Manifest::parse(manifest).unwrap();
        let mut instance = fixture::instance("demo");
        instance.release = manifest.digest();
        instance.manifest = manifest.canonical();
        instance.run = run;
        Goal::of(&wanted(instance)).unwrap()
    }

    fn slot(phase: Phase, readiness: Readiness, crashes: u32, is_again: bool) -> Slot {
        let started_at = Timestamp(1_000);
        Slot {
            phase,
            readiness,
            hung: None,
            memory: SlotMemory {
                launch: 1,
                crashes,
                started_at,
                restarted_at: is_again.then_some(started_at),
                ..SlotMemory::default()
            },
        }
    }

    fn names(run: RunState, slot: &Slot) -> Vec<String> {
        let copies =
            ["migration.0", "quiet.0", "web.0"].map(|name| (name.parse().unwrap(), slot.clone()));
        let found = missed(&goal(run), &Slots::from(copies));
        assert!(found.iter().all(|one: &Missed| one.period_ms == 5_000));
        found.iter().map(|one| one.slot.to_string()).collect()
    }

    #[test]
    fn a_probed_service_that_ended_by_itself_is_missed_until_its_new_start_has_spoken() {
        let open = Readiness::Open;
        let bad = Readiness::NotReady("no".into());
        let stopping = Phase::Stopping(Timestamp(0));
        let cases = [
            (
                "waits for its pause",
                slot(Phase::Idle, open.clone(), 1, false),
                true,
            ),
            (
                "is being started again",
                slot(Phase::Settling, open.clone(), 1, true),
                true,
            ),
            (
                "started again, open",
                slot(Phase::Running, open.clone(), 1, true),
                true,
            ),
            (
                "started again, ready",
                slot(Phase::Running, Readiness::Ready, 1, true),
                false,
            ),
            (
                "started again, asked",
                slot(Phase::Running, bad, 1, true),
                false,
            ),
            (
                "first start, open",
                slot(Phase::Running, open.clone(), 0, false),
                false,
            ),
            (
                "first start, settling",
                slot(Phase::Settling, open.clone(), 0, false),
                false,
            ),
            (
                "stopped by an order",
                slot(Phase::Idle, open.clone(), 0, false),
                false,
            ),
            ("stops by an order", slot(stopping, open, 0, false), false),
        ];
        for (name, slot, is_missed) in cases {
            let expected: &[&str] = if is_missed { &["web.0"] } else { &[] };
            assert_eq!(names(RunState::Running, &slot), expected, "{name}");
            assert!(names(RunState::Suspended, &slot).is_empty(), "{name}");
        }
        let mut hung = slot(stopping, Readiness::Open, 0, false);
        hung.hung = Some("no answer".into());
        assert_eq!(names(RunState::Running, &hung), ["web.0"]);
        assert_eq!(missed(&goal(RunState::Running), &Slots::new()), []);
        assert_eq!(missed(&Goal::Remove, &Slots::new()), []);
    }
}
