//! What is recorded of a unit: ends and adoptions as they are found, receipts once per order, health on every
//! transition. What was recorded is remembered on disk, so that a new agent does not record it again.

use dotmac_protocol::record::{
    ComponentHealth, Event, Health, HealthStatus, Limits, Outcome, Receipt, cut_detail,
};
use dotmac_protocol::release::ComponentKind;
use tracing::field::display;

use super::{
    goal::Goal,
    health::Assessment,
    memory::{LastEnd, Reported},
    plan::{Phase, Slots, StopReason},
    turn::Hands,
};
use crate::{
    driver::SlotName,
    logs,
    metrics::EndKind,
    shim::files::{End, Exit, State},
    unit::{About, Wanted},
};

/// The station when all processes of an order were started.
pub const STARTED: &str = "agent.started";
/// The station when the unit was healthy for the first time.
pub const HEALTHY: &str = "instance.healthy";

/// Lines of output kept with an end.
const LAST_LINES: u32 = 20;
/// Bytes of them at most.
const LAST_BYTES: usize = 2_048;

impl Hands {
    /// Records what an earlier agent left running.
    pub(super) fn adopt(&mut self, wanted: &Wanted, slot: &SlotName, state: &State) {
        self.adopted.insert(slot.clone());
        let total = self.files.slot(slot).output_total();
        let memory = self.slot_memory(slot);
        let written = total.saturating_sub(memory.output_bytes);
        memory.output_bytes = total;
        let detail = format!(
            "{slot} still runs as process {}, started at {}; it wrote {written} bytes since it was last looked at",
            state.child.pid, state.started_at
        );
        self.audit(wanted, "instance.adopted", &detail);
    }

    /// Records an end, once, and draws the consequences for what is remembered.
    pub(super) fn book_end(&mut self, wanted: &Wanted, slot: &SlotName, exit: &Exit) {
        if self.slot_memory(slot).booked >= exit.launch {
            return;
        }
        let files = self.files.slot(slot);
        let clean = |text: &str| self.redaction.clean_output(text);
        let lines = logs::cleaned_tail(&files, LAST_LINES, LAST_BYTES, clean);
        let away = if exit.at < self.opened_at {
            ", while the agent was away"
        } else {
            ""
        };
        let total = files.output_total();
        let memory = self.slot_memory(slot);
        let asked = memory
            .stopping
            .filter(|(launch, _, _)| *launch == exit.launch);
        let reason = asked.map(|(_, reason, _)| reason);
        memory.booked = exit.launch;
        memory.stopping = None;
        memory.output_bytes = total;
        let ran_ms = exit.at.millis_since(memory.started_at);
        let how = format!("{slot} ended with {}{away}, after {ran_ms} ms", exit.end);
        let expected = match reason {
            Some(StopReason::Hung) => false,
            Some(_) => true,
            None => exit.asked || exit.end == End::Rebooted,
        };
        let done = exit.end == End::Code(0) && is_task(wanted, slot);
        if done {
            memory.done = Some(memory.generation);
            memory.crashes = 0;
        } else if !expected {
            memory.crashes = memory.crashes.saturating_add(1);
            let how = match reason {
                Some(StopReason::Hung) => format!("{slot} hung and was stopped, {}", exit.end),
                _ => how.clone(),
            };
            memory.last_end = Some(LastEnd {
                at: exit.at,
                how,
                lines: lines.clone(),
            });
        }
        tracing::info!(unit = %self.unit, %slot, end = %exit.end, expected, "a process ended");
        self.shared
            .stations
            .metrics()
            .ended(match (done, expected) {
                (true, _) => EndKind::Done,
                (_, true) => EndKind::Stopped,
                _ => EndKind::Crashed,
            });
        if done {
            self.audit(wanted, "instance.task_done", &how);
        } else if expected {
            let why = reason.map_or("from outside or with the machine", stop_text);
            self.audit(
                wanted,
                "instance.stopped",
                &format!("{how}; stopped: {why}"),
            );
        } else {
            let why = if reason.is_some() {
                "; it hung and was stopped"
            } else {
                ""
            };
            let detail = format!("{how}{why}; its last lines:\n{lines}");
            self.audit(wanted, "instance.exited", &detail);
        }
    }

    /// Records once per order that it was carried out, or that it cannot be now.
    pub(super) fn report_receipt(
        &mut self,
        wanted: &Wanted,
        goal: &Goal,
        slots: &Slots,
        assessment: &Assessment,
    ) {
        let order = (wanted.generation, wanted.sequence);
        if self.memory.applied != Some(order) && is_applied(goal, slots) {
            let now = self.shared.clock.now();
            self.shared
                .stations
                .note(&self.unit, wanted.generation, STARTED, now);
            let limits = self.limits().unwrap_or_else(|| Limits::NotEnforced {
                reason: "nothing runs".into(),
            });
            self.receipt(wanted, Outcome::Applied { limits });
            self.shared.stations.traces().applied(wanted);
            self.memory.applied = Some(order);
        }
        let failed = assessment.status == Some(HealthStatus::Failed);
        if failed && self.memory.failing != Some(order) {
            let reason = cut_detail(&assessment.reason);
            self.receipt(wanted, Outcome::Failing { reason });
            self.shared.stations.traces().failing(wanted);
            self.memory.failing = Some(order);
        }
    }

    /// Records the health if it is another one than the last.
    pub(super) fn report_health(
        &mut self,
        wanted: &Wanted,
        assessment: &Assessment,
        components: Vec<ComponentHealth>,
    ) {
        let Some(status) = assessment.status else {
            return;
        };
        let reported = Reported {
            generation: wanted.generation,
            status,
            reason: cut_detail(&assessment.reason),
            components,
        };
        let same = self.memory.reported.as_ref().is_some_and(|last| {
            let key = |one: &Reported| (one.generation, one.status);
            key(last) == key(&reported) && last.components == reported.components
        });
        if same {
            self.memory.reported = Some(reported);
            return;
        }
        let generation = wanted.generation;
        let first = status == HealthStatus::Healthy && self.memory.healthy != Some(generation);
        let hops = if first {
            let now = self.shared.clock.now();
            self.shared
                .stations
                .note(&self.unit, generation, HEALTHY, now);
            let trace_id = wanted.trace.map(|context| display(context.trace_id));
            tracing::info!(
                unit = %self.unit, generation = generation.0, tenant = %wanted.tenant, request = %wanted.request,
                trace_id, "healthy for the first time"
            );
            let way = self.shared.stations.take(&self.unit);
            self.shared.stations.traces().healthy(wanted, &way, STARTED);
            way
        } else {
            Vec::new()
        };
        let health = Health {
            generation,
            status,
            reason: reported.reason.clone(),
            components: reported.components.clone(),
            hops,
        };
        self.shared
            .recorder
            .record(&About::wanted(wanted), Event::Health(health));
        if first {
            self.memory.healthy = Some(generation);
        }
        self.memory.reported = Some(reported);
    }

    pub(super) fn receipt(&self, wanted: &Wanted, outcome: Outcome) {
        let receipt = Receipt {
            leaf: wanted.leaf,
            generation: wanted.generation,
            sequence: wanted.sequence,
            outcome,
            hops: self.shared.stations.peek(&self.unit),
        };
        self.shared
            .recorder
            .record(&About::wanted(wanted), Event::Receipt(receipt));
    }
}

/// Whether every component was started for this generation; for a suspended unit, whether nothing runs.
fn is_applied(goal: &Goal, slots: &Slots) -> bool {
    match goal {
        Goal::Keep(target) => target.manifest.components.iter().all(|(name, component)| {
            target.slots(name).all(|slot| {
                let memory = slots.get(&slot).map(|slot| &slot.memory);
                memory.is_some_and(|memory| match component.kind {
                    ComponentKind::Task => memory.done == Some(target.generation),
                    ComponentKind::Service => {
                        memory.generation == target.generation
                            && memory.launch > 0
                            && memory.refused.is_none()
                    }
                })
            })
        }),
        Goal::Suspend(_) => slots.values().all(|slot| slot.phase == Phase::Idle),
        Goal::Remove => false,
    }
}

fn is_task(wanted: &Wanted, slot: &SlotName) -> bool {
    let Ok(goal) = Goal::of(wanted) else {
        return false;
    };
    let component = goal
        .target()
        .and_then(|target| target.component(&slot.component).cloned());
    component.is_some_and(|component| component.kind == ComponentKind::Task)
}

fn stop_text(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Replaced => "a newer generation takes its place",
        StopReason::Surplus => "it is not wanted any more",
        StopReason::Suspended => "the unit is suspended",
        StopReason::Removed => "the unit is removed",
        StopReason::Hung => "it did not answer any more",
    }
}
