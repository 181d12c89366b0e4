//! What the state of a unit's slots comes to: one summary, its reason, and the parts. Pure.

use dotmac_protocol::{
    ids::PartName,
    record::{ComponentHealth, HealthStatus},
    release::{Component, ComponentKind},
    time::Timestamp,
};

use super::{
    goal::{Goal, Target},
    memory::SlotMemory,
    plan::{Backoff, Phase, Readiness, Slot, Slots},
};
use crate::driver::SlotName;

/// How a unit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The summary; `None` when nothing can be said yet about what an earlier agent left running.
    pub status: Option<HealthStatus>,
    /// Why it is not healthy.
    pub reason: String,
    /// When time alone may change it.
    pub recheck_at: Option<Timestamp>,
}

/// Sums up. `adopted` tells slots that an earlier agent started and about which no probe has spoken yet.
#[must_use]
pub fn assess(
    goal: &Goal,
    slots: &Slots,
    adopted: impl Fn(&SlotName) -> bool,
    backoff: &Backoff,
    now: Timestamp,
) -> Assessment {
    let target = match goal {
        Goal::Keep(target) => target,
        Goal::Suspend(_) | Goal::Remove => {
            let stopped = slots.values().all(|slot| slot.phase == Phase::Idle);
            let status = stopped.then_some(HealthStatus::Stopped);
            return Assessment {
                status,
                reason: String::new(),
                recheck_at: None,
            };
        }
    };
    let mut sum = Assessment {
        status: Some(HealthStatus::Healthy),
        reason: String::new(),
        recheck_at: None,
    };
    let mut severity = 0;
    let mut open = false;
    for name in target.order.iter().flat_map(|name| target.slots(name)) {
        let Some(component) = target.component(&name.component) else {
            continue;
        };
        let part = match slots.get(&name) {
            Some(slot) => Look {
                name: &name,
                slot,
                component,
                target,
                backoff,
                now,
            }
            .part(),
            None => Part::of(HealthStatus::Starting, format!("{name} is not started yet")),
        };
        open |= part.status == HealthStatus::Starting && adopted(&name);
        sum.recheck_at = match (sum.recheck_at, part.recheck_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if part.severity() > severity {
            severity = part.severity();
            sum.status = Some(part.status);
            sum.reason = part.reason;
        }
    }
    if open && sum.status == Some(HealthStatus::Starting) {
        sum.status = None;
    }
    if severity == 0
        && let Some(name) = leaving(target, slots)
    {
        sum.status = Some(HealthStatus::Starting);
        sum.reason = format!("{name} still runs and is not wanted any more");
    }
    let behind = unchanged(target, slots);
    if behind > 0 && severity >= Part::DEGRADED {
        let reason = &sum.reason;
        sum.reason = format!("the change stopped, {behind} not yet replaced: {reason}");
    }
    sum
}

/// What runs besides what was ordered.
fn leaving<'a>(target: &Target, slots: &'a Slots) -> Option<&'a SlotName> {
    let mut surplus = slots.iter().filter(|(name, _)| !target.wants(name));
    let runs = surplus.find(|(_, slot)| slot.phase != Phase::Idle);
    runs.map(|(name, _)| name)
}

/// How many wanted copies still run what was ordered before.
fn unchanged(target: &Target, slots: &Slots) -> usize {
    let behind = slots.iter().filter(|(name, slot)| {
        target.wants(name)
            && slot.phase == Phase::Running
            && slot.memory.fingerprint != Some(target.fingerprint)
    });
    behind.count()
}

/// The parts of a unit, for people.
#[must_use]
pub fn components(
    goal: &Goal,
    slots: &Slots,
    pid: impl Fn(&SlotName) -> Option<u32>,
) -> Vec<ComponentHealth> {
    let Some(target) = goal.target() else {
        return Vec::new();
    };
    let wanted = |component: &Component| match goal {
        Goal::Keep(_) => target.copies(component),
        Goal::Suspend(_) | Goal::Remove => 0,
    };
    let parts = target.manifest.components.iter().map(|(name, component)| {
        let names: Vec<SlotName> = target.slots(name).collect();
        let present = || names.iter().filter_map(|name| slots.get(name));
        let ready = present()
            .filter(|slot| is_up(slot, component, target))
            .count();
        ComponentHealth {
            name: name.clone(),
            desired: wanted(component),
            ready: u16::try_from(ready).unwrap_or(u16::MAX),
            restarts: present()
                .map(|slot| slot.memory.restarts)
                .fold(0, u32::saturating_add),
            pids: names.iter().filter_map(&pid).collect(),
            address: present().find_map(|slot| address(component, slot)),
        }
    });
    parts.collect()
}

fn is_up(slot: &Slot, component: &Component, target: &Target) -> bool {
    match component.kind {
        ComponentKind::Task => slot.memory.done == Some(target.generation),
        ComponentKind::Service => {
            slot.phase == Phase::Running && slot.readiness == Readiness::Ready
        }
    }
}

/// Where the first running copy answers: on the port that is probed, or the first one.
fn address(component: &Component, slot: &Slot) -> Option<String> {
    let probes = &component.probes;
    let probed: Option<&PartName> = probes
        .ready
        .as_ref()
        .or(probes.live.as_ref())
        .map(|probe| &probe.http.port);
    let port = probed.or(component.ports.first())?;
    let number = slot.memory.ports.get(port)?;
    (slot.phase == Phase::Running).then(|| format!("127.0.0.1:{number}"))
}

/// How one slot is.
struct Part {
    status: HealthStatus,
    reason: String,
    recheck_at: Option<Timestamp>,
}

impl Part {
    /// The severity from which on something is wrong.
    const DEGRADED: u8 = 2;

    fn of(status: HealthStatus, reason: String) -> Self {
        Self {
            status,
            reason,
            recheck_at: None,
        }
    }

    fn severity(&self) -> u8 {
        match self.status {
            HealthStatus::Healthy | HealthStatus::Stopped => 0,
            HealthStatus::Unknown | HealthStatus::Starting => 1,
            HealthStatus::Degraded => Self::DEGRADED,
            HealthStatus::Failed => 3,
        }
    }
}

struct Look<'a> {
    name: &'a SlotName,
    slot: &'a Slot,
    component: &'a Component,
    target: &'a Target,
    backoff: &'a Backoff,
    now: Timestamp,
}

impl Look<'_> {
    fn part(&self) -> Part {
        let (name, memory) = (self.name, &self.slot.memory);
        let up = is_up(self.slot, self.component, self.target);
        if up && self.component.kind == ComponentKind::Task {
            return Part::of(HealthStatus::Healthy, String::new());
        }
        if let Some(refusal) = &memory.refused {
            return Part::of(
                HealthStatus::Failed,
                format!("{name} is not started: {refusal}"),
            );
        }
        if memory.crashes >= self.backoff.crashes_max && !up {
            let reason = format!("{name} keeps ending: {}", last_end(memory));
            return Part::of(HealthStatus::Failed, reason);
        }
        if self.slot.phase != Phase::Running {
            return self.not_running();
        }
        match &self.slot.readiness {
            Readiness::Ready => self.ready(),
            Readiness::Open => self.starting("is not ready yet".into()),
            Readiness::NotReady(reason) => self.not_ready(reason),
        }
    }

    /// Whether it was started from what is ordered now.
    fn is_current(&self) -> bool {
        self.slot.memory.fingerprint == Some(self.target.fingerprint)
    }

    fn not_running(&self) -> Part {
        if self.slot.hung.is_some() {
            return self.hung();
        }
        self.starting("is not running".into())
    }

    /// Nothing is wrong with it yet, unless it crashed before.
    fn starting(&self, what: String) -> Part {
        let (name, memory) = (self.name, &self.slot.memory);
        if self.slot.hung.is_some() {
            return self.hung();
        }
        if memory.crashes > 0 {
            let reason = format!("{name} {what}, after: {}", last_end(memory));
            return Part::of(HealthStatus::Degraded, reason);
        }
        Part::of(HealthStatus::Starting, format!("{name} {what}"))
    }

    fn hung(&self) -> Part {
        let why = self.slot.hung.as_deref().unwrap_or_default();
        Part::of(
            HealthStatus::Degraded,
            format!("{} hangs: {why}", self.name),
        )
    }

    fn not_ready(&self, reason: &str) -> Part {
        let (name, memory) = (self.name, &self.slot.memory);
        if memory.ready == Some(self.target.generation) || !self.is_current() {
            return Part::of(
                HealthStatus::Degraded,
                format!("{name} is not ready: {reason}"),
            );
        }
        let limit = memory.started_at.plus_millis(self.backoff.never_ready_ms);
        if self.now >= limit {
            let reason = format!("{name} never became ready: {reason}");
            return Part::of(HealthStatus::Failed, reason);
        }
        let mut part = Part::of(
            HealthStatus::Degraded,
            format!("{name} is not ready: {reason}"),
        );
        part.recheck_at = Some(limit);
        part
    }

    fn ready(&self) -> Part {
        let (name, memory) = (self.name, &self.slot.memory);
        if !self.is_current() {
            return Part::of(HealthStatus::Starting, format!("{name} is to be replaced"));
        }
        if let Some(restarted_at) = memory.restarted_at {
            let calm = restarted_at.plus_millis(self.backoff.damping_ms);
            if restarted_at <= self.now && self.now < calm {
                let reason = format!("{name} was restarted after: {}", last_end(memory));
                let mut part = Part::of(HealthStatus::Degraded, reason);
                part.recheck_at = Some(calm);
                return part;
            }
        }
        Part::of(HealthStatus::Healthy, String::new())
    }
}

fn last_end(memory: &SlotMemory) -> String {
    let Some(end) = &memory.last_end else {
        return "an end of which nothing is known".into();
    };
    match end.lines.trim_end() {
        "" => end.how.clone(),
        lines => format!("{}; its last lines:\n{lines}", end.how),
    }
}

#[cfg(test)]
mod tests;
