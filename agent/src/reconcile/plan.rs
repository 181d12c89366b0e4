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

mod backoff;

pub use backoff::Backoff;

/// How long a shim that has not said anything yet is left alone before the next look, in milliseconds.
const SETTLE_MS: u64 = 200;
/// How much longer than its patience a stop may take before the shim is not trusted any more, in milliseconds.
const KILL_AFTER_MS: u64 = 10_000;

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
        running.any(|(other, _)| target.is_some_and(|target| target.needs(&other.component, name)))
    };
    let mut steps = Vec::new();
    for (name, slot) in slots {
        match slot.phase {
            Phase::Idle => {}
            Phase::Running if is_needed(&name.component) => {
                steps.push(wait(format!("{name} stops behind those that need it")));
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

    /// Copies that are not wanted stop at once; those that an older order started stay until the new ones are ready.
    fn surplus(&self) -> impl Iterator<Item = Step> {
        let unready = self.unready();
        let surplus = self
            .slots
            .iter()
            .filter(|(name, _)| !self.target.wants(name));
        surplus.map(move |(name, slot)| match (slot.phase, &unready) {
            (Phase::Idle, _) => Step::Forget(name.clone()),
            (Phase::Running, Some(unready)) if !self.is_current(slot) => {
                wait(format!("{name} is stopped later: {unready}"))
            }
            (Phase::Running, _) => Step::Stop(name.clone(), StopReason::Surplus),
            _ => unsettled(name, slot, self.now),
        })
    }

    /// What is wanted and not there yet.
    fn unready(&self) -> Option<String> {
        let mut names = self.target.order.iter();
        names.find_map(|name| self.unmet(name))
    }

    /// What a component still waits for.
    fn missing(&self, component: &Component) -> Option<String> {
        component.after.iter().find_map(|name| self.unmet(name))
    }

    /// What keeps a component from being all that was ordered.
    fn unmet(&self, name: &PartName) -> Option<String> {
        let kind = self.target.component(name)?.kind;
        let unmet = self.target.slots(name).find(|slot| {
            let slot = self.slots.get(slot);
            !slot.is_some_and(|slot| match kind {
                ComponentKind::Task => self.is_done(slot),
                ComponentKind::Service => self.is_current(slot) && is_ready(slot),
            })
        })?;
        Some(match kind {
            ComponentKind::Task => format!("{unmet} must be done first"),
            ComponentKind::Service => format!("{unmet} must be ready first"),
        })
    }

    fn task(&self, name: &PartName, missing: Option<&str>) -> Option<Step> {
        let slot_name = self.target.slots(name).next()?;
        let slot = self.slots.get(&slot_name);
        if slot.is_some_and(|slot| self.is_done(slot)) {
            return None;
        }
        match slot.map_or(Phase::Idle, |slot| slot.phase) {
            Phase::Idle => Some(self.start(&slot_name, slot, missing)),
            Phase::Running if slot.is_some_and(|slot| !self.is_current(slot)) => {
                Some(Step::Stop(slot_name, StopReason::Replaced))
            }
            Phase::Running => Some(wait(format!("{slot_name} runs to its end"))),
            _ => slot.map(|slot| unsettled(&slot_name, slot, self.now)),
        }
    }

    fn service(&self, name: &PartName, missing: Option<&str>, steps: &mut Vec<Step>) {
        for name in self.target.slots(name) {
            let slot = self.slots.get(&name);
            let step = match (slot, slot.map_or(Phase::Idle, |slot| slot.phase)) {
                (_, Phase::Idle) => self.start(&name, slot, missing),
                (Some(slot), Phase::Running) => {
                    // One copy of the unit at a time.
                    let is_first = steps.iter().all(|step| matches!(step, Step::Wait { .. }));
                    let Some(step) = self.running(&name, slot, missing, is_first) else {
                        continue;
                    };
                    step
                }
                (Some(slot), _) => unsettled(&name, slot, self.now),
                (None, _) => continue,
            };
            steps.push(step);
        }
    }

    fn running(
        &self,
        name: &SlotName,
        slot: &Slot,
        missing: Option<&str>,
        is_first: bool,
    ) -> Option<Step> {
        if slot.hung.is_some() {
            return Some(Step::Stop(name.clone(), StopReason::Hung));
        }
        if self.is_current(slot) {
            return None;
        }
        if let Some(missing) = missing {
            return Some(wait(format!("{name} is replaced later: {missing}")));
        }
        // Whoever does not answer is missed by nobody, and need not wait for its turn.
        let serves = !matches!(slot.readiness, Readiness::NotReady(_));
        Some(match self.in_the_way(name, serves) {
            Some(other) => wait(format!(
                "{name} is replaced later: {other} must be ready first"
            )),
            None if serves && !is_first => wait(format!("{name} is replaced later: one at a time")),
            None => Step::Stop(name.clone(), StopReason::Replaced),
        })
    }

    /// What must be ready before a copy is taken away: everything that was replaced before it, so that a change that
    /// fails stops there, and all its siblings, so that one of them always serves. A copy that does not serve awaits
    /// only that its new siblings prove themselves.
    fn in_the_way(&self, name: &SlotName, serves: bool) -> Option<SlotName> {
        let mut others = self.target.order.iter().filter(|other| {
            let component = self.target.component(other);
            // What waits for something else is not awaited: that may well be this copy.
            component.is_some_and(|component| self.missing(component).is_none())
        });
        others.find_map(|other| {
            let kind = self.target.component(other)?.kind;
            let is_sibling = *other == name.component;
            let mut slots = self.target.slots(other).filter(|slot| slot != name);
            slots.find(|slot_name| match (kind, self.slots.get(slot_name)) {
                (ComponentKind::Task, slot) => !slot.is_some_and(|slot| self.is_done(slot)),
                (ComponentKind::Service, None) => serves,
                (ComponentKind::Service, Some(slot)) if self.is_current(slot) => {
                    !is_ready(slot) && (serves || is_sibling && !self.was_ready(slot))
                }
                (ComponentKind::Service, Some(slot)) if is_sibling => serves && !is_ready(slot),
                (ComponentKind::Service, Some(slot)) => serves && slot.phase != Phase::Running,
            })
        })
    }

    /// Starts a copy, or says what that waits for. Only crashes of the same thing slow it down.
    fn start(&self, name: &SlotName, slot: Option<&Slot>, missing: Option<&str>) -> Step {
        if let Some(missing) = missing {
            return wait(format!("{name} is not started yet: {missing}"));
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

    /// Whether what it was started from has ever worked here.
    fn was_ready(&self, slot: &Slot) -> bool {
        slot.memory.ready == Some(self.target.generation)
    }

    fn is_done(&self, slot: &Slot) -> bool {
        slot.memory.done == Some(self.target.generation)
    }

    fn is_current(&self, slot: &Slot) -> bool {
        slot.memory.fingerprint == Some(self.target.fingerprint)
    }
}

/// Something else has to change first.
fn wait(reason: String) -> Step {
    Step::Wait {
        until: None,
        reason,
    }
}

fn is_ready(slot: &Slot) -> bool {
    slot.phase == Phase::Running && slot.readiness == Readiness::Ready
}

#[cfg(test)]
mod tests;
