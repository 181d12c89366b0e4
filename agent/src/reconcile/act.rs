//! Carries out the steps of a plan, and records each. It decides nothing.

use std::{fs, io};

use dotmac_protocol::{record::Outcome, time::Timestamp};
use tracing::field::display;

use super::{
    goal::{Goal, Target},
    memory::{self, LastEnd},
    plan::{Step, StopReason},
    turn::Hands,
};
use crate::{
    driver::{
        SlotName, StartError,
        process::{Order, Started, environment::Rendering},
    },
    limits::Caps,
    metrics::Start,
    unit::Wanted,
};

impl Hands {
    /// Does one step; `true` when the unit is gone.
    pub(super) fn act(&mut self, wanted: &Wanted, goal: &Goal, step: &Step) -> bool {
        match step {
            Step::Wait { .. } => {}
            Step::Start(slot) => {
                if let Some(target) = goal.target() {
                    self.start(wanted, target, slot);
                }
            }
            Step::Stop(slot, reason) => self.stop(slot, *reason),
            Step::Kill(slot) => {
                if let Some(state) = self.running.get(slot) {
                    self.shared.driver.kill(state);
                }
            }
            Step::Sweep(slot) => self.sweep(slot),
            Step::Forget(slot) => self.forget(slot),
            Step::Remove => return self.remove(wanted),
        }
        false
    }

    fn start(&mut self, wanted: &Wanted, target: &Target, slot: &SlotName) {
        let memory = self.slot_memory(slot);
        memory.launch += 1;
        memory.fingerprint = Some(target.fingerprint);
        memory.trace = wanted.start_context();
        memory.generation = target.generation;
        memory.stopping = None;
        let again = memory.crashes > 0;
        // On disk before anything starts: a shim whose number nobody knows would never be found.
        if !self.save() {
            return;
        }
        self.adopted.remove(slot);
        let started = self.shared.stations.traces().now();
        let launched = self.launch(wanted, target, slot);
        self.trace_start(wanted, slot, started, launched.is_ok());
        self.shared.stations.metrics().started(match &launched {
            Ok(_) if again => Start::Again,
            Ok(_) => Start::First,
            Err(_) => Start::Refused,
        });
        match launched {
            Ok(started) => self.note_start(wanted, slot, &started, again),
            Err(error) => self.note_refusal(wanted, slot, &error),
        }
    }

    /// A slot's first start is part of the order's trace; what is started again later is not.
    fn trace_start(&mut self, wanted: &Wanted, slot: &SlotName, started: u64, is_started: bool) {
        if self.memory.applied == Some((wanted.generation, wanted.sequence)) {
            return;
        }
        let memory = self.slot_memory(slot);
        if memory.traced.replace(wanted.sequence) == Some(wanted.sequence) {
            return;
        }
        let launch = memory.launch;
        let traces = self.shared.stations.traces();
        traces.started(wanted, slot, launch, started, is_started);
    }

    fn launch(
        &mut self,
        wanted: &Wanted,
        target: &Target,
        slot: &SlotName,
    ) -> Result<Started, StartError> {
        let component = target
            .component(&slot.component)
            .expect("the plan starts components of the target only");
        let platform = self
            .shared
            .platform
            .environment(wanted)
            .map_err(|error| StartError::Platform(error.to_string()))?;
        self.redaction.learn(&platform, &target.manifest);
        let (launch, had) = {
            let memory = self.slot_memory(slot);
            (memory.launch, memory.ports.clone())
        };
        let ports = self
            .shared
            .driver
            .ports
            .claim(&self.unit, slot, &component.ports, &had)?;
        let memory = self.slot_memory(slot);
        memory.ports = ports.clone();
        memory.patience_ms = component.stop.patience_ms.into();
        self.save();
        let caps = Caps::of(&target.instance.resources, component.resources);
        let rendering = Rendering {
            instance: &target.instance,
            manifest: &target.manifest,
            slot,
            component,
            ports: &ports,
            files: &self.files,
            platform: &platform,
            caps,
            trace: wanted.start_context(),
        };
        let order = Order {
            slot,
            launch,
            component,
            rendering,
            caps,
        };
        self.shared.driver.start(&self.files, &order)
    }

    fn note_start(&mut self, wanted: &Wanted, slot: &SlotName, started: &Started, again: bool) {
        let state = &started.state;
        let memory = self.slot_memory(slot);
        memory.started_at = state.started_at;
        memory.refused = None;
        memory.limits = Some(started.limits.clone());
        if again {
            memory.restarts = memory.restarts.saturating_add(1);
            memory.restarted_at = Some(state.started_at);
        }
        let (attempt, generation) = (memory.restarts, memory.generation);
        let pid = state.child.pid;
        if again {
            let detail = format!("{slot} runs again as process {pid}, restart {attempt}");
            self.audit(wanted, "instance.restarted", &detail);
        } else {
            let detail = format!("{slot} runs as process {pid}, generation {generation}");
            self.audit(wanted, "instance.started", &detail);
        }
    }

    /// A start that came to nothing counts like a crash: the next one waits longer.
    fn note_refusal(&mut self, wanted: &Wanted, slot: &SlotName, error: &StartError) {
        let now = self.shared.clock.now();
        let reason = self.redaction.clean(&error.to_string());
        let memory = self.slot_memory(slot);
        memory.booked = memory.launch;
        memory.crashes = memory.crashes.saturating_add(1);
        memory.last_end = Some(LastEnd {
            at: now,
            how: reason.clone(),
            lines: String::new(),
        });
        let known = memory.refused.as_ref() == Some(&reason);
        memory.refused = Some(reason.clone());
        if !known {
            let trace_id = wanted.trace.map(|context| display(context.trace_id));
            let request = &wanted.request;
            tracing::warn!(unit = %self.unit, %slot, reason, %request, trace_id, "a copy is not started");
            self.audit(
                wanted,
                "instance.refused",
                &format!("{slot} is not started: {reason}"),
            );
        }
    }

    fn stop(&mut self, slot: &SlotName, reason: StopReason) {
        let now = self.shared.clock.now();
        let Some(state) = self.running.get(slot).cloned() else {
            return;
        };
        self.slot_memory(slot).stopping = Some((state.launch, reason, now));
        // On disk first: whoever finds it ended knows that it was asked to.
        self.save();
        self.shared.driver.stop(&state);
    }

    fn sweep(&mut self, slot: &SlotName) {
        let now: Timestamp = self.shared.clock.now();
        let Some(state) = self.running.get(slot) else {
            return;
        };
        let swept = self.shared.driver.sweep(&self.files, slot, state, now);
        if let Err(error) = swept {
            tracing::warn!(unit = %self.unit, %slot, %error, "what a killed shim left cannot be cleaned up");
        }
    }

    /// The slot's output goes with it; its volumes stay until the unit is removed.
    fn forget(&mut self, slot: &SlotName) {
        if let Err(error) = self.shared.driver.release(&self.files, &self.unit, slot) {
            tracing::warn!(unit = %self.unit, %slot, %error, "what ran in the slot is not gone");
            return;
        }
        let directory = self.files.slot(slot).directory().to_owned();
        if let Err(error) = remove_dir(&directory) {
            tracing::warn!(unit = %self.unit, %slot, %error, "the slot's directory cannot be removed");
            return;
        }
        self.memory.slots.remove(slot);
    }

    /// Deletes, then records, then marks: killed in between it does the rest again.
    fn remove(&mut self, wanted: &Wanted) -> bool {
        let (driver, slots) = (&self.shared.driver, self.memory.slots.keys());
        if let Err(error) = driver.release_unit(&self.files, &self.unit, slots) {
            tracing::warn!(unit = %self.unit, %error, "what ran in the unit is not gone");
            return false;
        }
        if let Err(error) = remove_dir(&self.files.root) {
            tracing::warn!(unit = %self.unit, %error, "the unit's directory cannot be removed");
            return false;
        }
        self.receipt(wanted, Outcome::Removed);
        self.shared.stations.traces().applied(wanted);
        let (data_dir, order) = (&self.shared.data_dir, (wanted.generation, wanted.sequence));
        if let Err(error) = memory::mark_removed(data_dir, &self.unit, order.0, order.1) {
            tracing::warn!(unit = %self.unit, %error, "the removal cannot be marked and may be told again");
        }
        self.shared.stations.forget(&self.unit);
        self.forget_everything();
        true
    }
}

fn remove_dir(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
