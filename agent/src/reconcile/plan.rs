//! Decides what is to be done for one unit. Pure: what is, what should be and the time go in, steps come out; doing
//! them leaves nothing to decide. It is asked again after every change, so it never looks far ahead.

use std::collections::BTreeMap;

use dotmac_protocol::{
    ids::PartName,
    release::{Component, ComponentKind},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    goal::{Goal, Target},
    memory::SlotMemory,
};
use crate::driver::SlotName;

/// How long a shim that has not said anything yet is left alone before the next look, in milliseconds.
const SETTLE_MS: u64 = 200;
/// How much longer than its patience a stop may take before the shim is not trusted any more, in milliseconds.
const KILL_AFTER_MS: u64 = 10_000;

/// How restarts are slowed down, and when a crash counts as over. All in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first restart; doubles with every crash in a row.
    pub first_ms: u64,
    /// Between restarts at most.
    pub max_ms: u64,
    /// After so long a healthy time the row of crashes is over.
    pub healthy_ms: u64,
    /// Crashes in a row after which the unit counts as failed; it is still started again.
    pub crashes_max: u32,
    /// How long a unit shows that it was restarted.
    pub damping_ms: u64,
    /// How long a copy may take until it is ready for the first time.
    pub never_ready_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first_ms: 500,
            max_ms: 30_000,
            healthy_ms: 60_000,
            crashes_max: 5,
            damping_ms: 10_000,
            never_ready_ms: 60_000,
        }
    }
}

impl Backoff {
    /// How long to wait after so many crashes in a row.
    #[must_use]
    pub fn pause_ms(&self, crashes: u32) -> u64 {
        let doublings = crashes.saturating_sub(1).min(32);
        self.first_ms
            .saturating_mul(1_u64 << doublings)
            .min(self.max_ms)
    }
}

/// One slot as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Whether something runs in it.
    pub phase: Phase,
    /// Whether what runs is ready.
    pub readiness: Readiness,
    /// Why it must be restarted though it runs.
    pub hung: Option<String>,
    /// What is remembered of it.
    pub memory: SlotMemory,
}

/// Whether something runs in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing does.
    Idle,
    /// A shim is there that has not said what it runs.
    Settling,
    /// It runs.
    Running,
    /// It was asked to stop at this time.
    Stopping(Timestamp),
    /// Its shim vanished; something may be left.
    Orphaned,
}

/// Whether what runs is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Nobody knows yet.
    Open,
    /// It is.
    Ready,
    /// It is not, and why.
    NotReady(String),
}

/// All slots of a unit.
pub type Slots = BTreeMap<SlotName, Slot>;

/// One thing to do. Holds every decision: doing it leaves none to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start a copy.
    Start(SlotName),
    /// Ask a copy to stop.
    Stop(SlotName, StopReason),
    /// Kill a copy whose shim did not stop it.
    Kill(SlotName),
    /// Clean up after a vanished shim.
    Sweep(SlotName),
    /// Forget a slot that is not wanted and in which nothing runs.
    Forget(SlotName),
    /// Delete everything of the unit: nothing runs any more.
    Remove,
    /// Nothing can be done here now; look again at this time at the latest.
    Wait {
        /// When; `None` until something changes.
        until: Option<Timestamp>,
        /// What for.
        reason: String,
    },
}

/// Why a copy is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopReason {
    /// A newer generation takes its place.
    Replaced,
    /// Fewer copies, or another release without it.
    Surplus,
    /// The unit is suspended.
    Suspended,
    /// The unit is removed.
    Removed,
    /// It does not answer any more.
    Hung,
}

/// Decides.
#[must_use]
pub fn plan(goal: &Goal, slots: &Slots, backoff: &Backoff, now: Timestamp) -> Vec<Step> {
    match goal {
        Goal::Keep(target) => Plan {
            target,
            slots,
            backoff,
            now,
        }
        .keep(),
        Goal::Suspend(target) => wind_down(slots, Some(target), StopReason::Suspended, now),
        Goal::Remove => {
            let mut steps = wind_down(slots, None, StopReason::Removed, now);
            if slots.values().all(|slot| slot.phase == Phase::Idle) {
                steps.push(Step::Remove);
            }
            steps
        }
    }
}

/// Stops what runs: what others come `after` last.
fn wind_down(
    slots: &Slots,
    target: Option<&Target>,
    reason: StopReason,
    now: Timestamp,
) -> Vec<Step> {
    let is_needed = |name: &PartName| {
        let mut running = slots.iter().filter(|(_, slot)| slot.phase != Phase::Idle);
        running.any(|(other, _)| {
            let component = target.and_then(|target| target.component(&other.component));
            component.is_some_and(|component| component.after.contains(name))
        })
    };
    let mut steps = Vec::new();
    for (name, slot) in slots {
        match slot.phase {
            Phase::Idle => {}
            Phase::Running if is_needed(&name.component) => {
                let reason = format!("{name} stops behind those that need it");
                steps.push(Step::Wait {
                    until: None,
                    reason,
                });
            }
            Phase::Running => steps.push(Step::Stop(name.clone(), reason)),
            _ => steps.push(unsettled(name, slot, now)),
        }
    }
    steps
}

/// The step for a slot that is neither idle nor simply running.
fn unsettled(name: &SlotName, slot: &Slot, now: Timestamp) -> Step {
    match slot.phase {
        Phase::Orphaned => Step::Sweep(name.clone()),
        Phase::Stopping(since) => {
            let overdue = since.plus_millis(slot.memory.patience_ms.saturating_add(KILL_AFTER_MS));
            if now >= overdue {
                return Step::Kill(name.clone());
            }
            let reason = format!("{name} stops");
            Step::Wait {
                until: Some(overdue),
                reason,
            }
        }
        Phase::Settling | Phase::Idle | Phase::Running => {
            let until = Some(now.plus_millis(SETTLE_MS));
            Step::Wait {
                until,
                reason: format!("{name} settles"),
            }
        }
    }
}

struct Plan<'a> {
    target: &'a Target,
    slots: &'a Slots,
    backoff: &'a Backoff,
    now: Timestamp,
}

impl Plan<'_> {
    fn keep(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.surplus().collect();
        for name in &self.target.order {
            let Some(component) = self.target.component(name) else {
                continue;
            };
            let missing = self.missing(component);
            match component.kind {
                ComponentKind::Task => steps.extend(self.task(name, missing.as_deref())),
                ComponentKind::Service => self.service(name, missing.as_deref(), &mut steps),
            }
        }
        steps
    }

    fn surplus(&self) -> impl Iterator<Item = Step> {
        let surplus = self
            .slots
            .iter()
            .filter(|(name, _)| !self.target.wants(name));
        surplus.map(|(name, slot)| match slot.phase {
            Phase::Idle => Step::Forget(name.clone()),
            Phase::Running => Step::Stop(name.clone(), StopReason::Surplus),
            _ => unsettled(name, slot, self.now),
        })
    }

    /// What a component still waits for.
    fn missing(&self, component: &Component) -> Option<String> {
        component.after.iter().find_map(|name| {
            let kind = self.target.component(name)?.kind;
            let mut slots = self.target.slots(name);
            let unmet = slots.find(|slot| {
                let slot = self.slots.get(slot);
                !slot.is_some_and(|slot| match kind {
                    ComponentKind::Task => slot.memory.done == Some(self.target.generation),
                    ComponentKind::Service => self.is_current(slot) && is_ready(slot),
                })
            })?;
            Some(match kind {
                ComponentKind::Task => format!("{unmet} must be done first"),
                ComponentKind::Service => format!("{unmet} must be ready first"),
            })
        })
    }

    fn task(&self, name: &PartName, missing: Option<&str>) -> Option<Step> {
        let slot_name = self.target.slots(name).next()?;
        let slot = self.slots.get(&slot_name);
        if slot.is_some_and(|slot| slot.memory.done == Some(self.target.generation)) {
            return None;
        }
        match slot.map_or(Phase::Idle, |slot| slot.phase) {
            Phase::Idle => Some(self.start(&slot_name, slot, missing)),
            Phase::Running if slot.is_some_and(|slot| !self.is_current(slot)) => {
                Some(Step::Stop(slot_name, StopReason::Replaced))
            }
            Phase::Running => {
                let reason = format!("{slot_name} runs to its end");
                Some(Step::Wait {
                    until: None,
                    reason,
                })
            }
            _ => slot.map(|slot| unsettled(&slot_name, slot, self.now)),
        }
    }

    fn service(&self, name: &PartName, missing: Option<&str>, steps: &mut Vec<Step>) {
        let mut settled = self.target.slots(name).all(|name| self.is_settled(&name));
        for name in self.target.slots(name) {
            let slot = self.slots.get(&name);
            let step = match (slot, slot.map_or(Phase::Idle, |slot| slot.phase)) {
                (_, Phase::Idle) => self.start(&name, slot, missing),
                (Some(slot), Phase::Running) => {
                    let Some(step) = self.running(&name, slot, missing, settled) else {
                        continue;
                    };
                    step
                }
                (Some(slot), _) => unsettled(&name, slot, self.now),
                (None, _) => continue,
            };
            // One copy at a time is replaced.
            settled = settled && matches!(step, Step::Wait { .. });
            steps.push(step);
        }
    }

    fn running(
        &self,
        name: &SlotName,
        slot: &Slot,
        missing: Option<&str>,
        settled: bool,
    ) -> Option<Step> {
        if slot.hung.is_some() {
            return Some(Step::Stop(name.clone(), StopReason::Hung));
        }
        if self.is_current(slot) {
            return None;
        }
        let wait = |reason: String| {
            Some(Step::Wait {
                until: None,
                reason,
            })
        };
        match missing {
            Some(missing) => wait(format!("{name} is replaced later: {missing}")),
            None if !settled => wait(format!(
                "{name} is replaced when the other copies are ready"
            )),
            None => Some(Step::Stop(name.clone(), StopReason::Replaced)),
        }
    }

    /// Starts a copy, or says what that waits for. Only crashes of the same thing slow it down.
    fn start(&self, name: &SlotName, slot: Option<&Slot>, missing: Option<&str>) -> Step {
        if let Some(missing) = missing {
            let reason = format!("{name} is not started yet: {missing}");
            return Step::Wait {
                until: None,
                reason,
            };
        }
        let crashed = slot.filter(|slot| self.is_current(slot) && slot.memory.crashes > 0);
        if let Some(memory) = crashed.map(|slot| &slot.memory)
            && let Some(end) = &memory.last_end
        {
            let again = end.at.plus_millis(self.backoff.pause_ms(memory.crashes));
            // A clock that was set back must not stretch the pause.
            let far = self.now.plus_millis(self.backoff.max_ms);
            if self.now < again && again <= far {
                let reason = format!("{name} is started again after a pause: {}", end.how);
                return Step::Wait {
                    until: Some(again),
                    reason,
                };
            }
        }
        Step::Start(name.clone())
    }

    /// Whether a slot is in nobody's way: it runs, and if it is new it is ready.
    fn is_settled(&self, name: &SlotName) -> bool {
        self.slots.get(name).is_some_and(|slot| {
            slot.phase == Phase::Running && (!self.is_current(slot) || is_ready(slot))
        })
    }

    fn is_current(&self, slot: &Slot) -> bool {
        slot.memory.fingerprint == Some(self.target.fingerprint)
    }
}

fn is_ready(slot: &Slot) -> bool {
    slot.phase == Phase::Running && slot.readiness == Readiness::Ready
}

#[cfg(test)]
mod tests;
