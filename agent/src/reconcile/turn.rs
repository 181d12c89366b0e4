//! One turn of a unit: look, book what ended, plan, act, report. It may block; what it decides it leaves to the pure
//! parts, and what it did is on disk when it returns.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use dotmac_protocol::{
    ids::UnitId,
    record::{Event, HealthStatus, Limits, Outcome, cut_detail},
    time::Timestamp,
};
use dotmac_runtime::clock::Clock;

use super::{
    UnitStatus,
    goal::Goal,
    health,
    memory::{self, Memory, SlotMemory},
    missed::{Missed, missed},
    plan::{Backoff, Phase, Slots, Step, plan},
    watchers::Live,
};
use crate::{
    driver::{
        SlotName,
        process::{ProcessDriver, UnitFiles, environment::Redaction},
    },
    probe::Board,
    shim::files::State,
    stations::Stations,
    unit::{About, Platform, Recorder, Wanted},
};

/// How often a turn plans again after it did something; what is left then waits for the next wake-up.
const ROUNDS_MAX: usize = 4;
/// A unit is looked at again after this time, whatever happens, in milliseconds.
pub(super) const RESYNC_MS: u64 = 30_000;

/// What could not be done is tried again after this time, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// What all units share.
pub(super) struct Shared {
    pub(super) data_dir: PathBuf,
    pub(super) driver: ProcessDriver,
    pub(super) backoff: Backoff,
    pub(super) recorder: Arc<dyn Recorder>,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) stations: Stations,
    pub(super) clock: Clock,
}

/// One unit's hands.
pub(super) struct Hands {
    pub(super) shared: Arc<Shared>,
    pub(super) unit: UnitId,
    pub(super) files: UnitFiles,
    pub(super) memory: Memory,
    pub(super) redaction: Redaction,
    pub(super) board: Board,
    /// What runs, as last seen.
    pub(super) running: BTreeMap<SlotName, State>,
    /// When this agent took the unit over: what ended before, ended while it was away.
    pub(super) opened_at: Timestamp,
    /// What an earlier agent started.
    pub(super) adopted: BTreeSet<SlotName>,
    saved: Option<Memory>,
    pub(super) looked: bool,
    pub(super) ready_since: BTreeMap<SlotName, (u64, Timestamp)>,
}

/// What a turn leaves to its task.
pub(super) struct Turn {
    pub(super) live: Vec<Live>,
    pub(super) missed: Vec<Missed>,
    pub(super) wake_at: Timestamp,
    pub(super) status: UnitStatus,
}

impl Hands {
    /// Takes a unit over, as an earlier agent left it.
    pub(super) fn open(shared: Arc<Shared>, unit: &UnitId, board: Board) -> std::io::Result<Self> {
        let files = UnitFiles::new(&shared.data_dir, unit);
        let memory = Memory::load(unit, &files)?;
        for (slot, remembered) in &memory.slots {
            shared
                .driver
                .ports
                .reserve(unit, slot, remembered.ports.values().copied());
        }
        let opened_at = shared.clock.now();
        Ok(Self {
            shared,
            unit: unit.clone(),
            files,
            saved: Some(memory.clone()),
            memory,
            redaction: Redaction::default(),
            board,
            running: BTreeMap::new(),
            opened_at,
            adopted: BTreeSet::new(),
            looked: false,
            ready_since: BTreeMap::new(),
        })
    }

    /// One turn.
    pub(super) fn turn(&mut self, wanted: &Wanted) -> Turn {
        let now = self.shared.clock.now();
        let (generation, sequence) = (wanted.generation, wanted.sequence);
        let goal = match Goal::of(wanted) {
            Ok(goal) => goal,
            Err(error) => return self.cannot(wanted, &error.to_string(), now),
        };
        if goal == Goal::Remove
            && memory::is_marked_removed(&self.shared.data_dir, &self.unit, generation, sequence)
        {
            return self.gone(wanted, now);
        }
        self.learn_secrets(wanted, &goal);
        self.carry_over(&goal);
        let mut slots = self.look(wanted, &goal);
        let mut steps = self.plan(&goal, &slots);
        for _ in 0..ROUNDS_MAX {
            if steps.iter().all(|step| matches!(step, Step::Wait { .. })) {
                break;
            }
            for step in &steps {
                if self.act(wanted, &goal, step) {
                    return self.gone(wanted, now);
                }
            }
            self.save();
            slots = self.look(wanted, &goal);
            steps = self.plan(&goal, &slots);
        }
        self.finish(wanted, &goal, &slots, &steps)
    }

    fn plan(&self, goal: &Goal, slots: &Slots) -> Vec<Step> {
        plan(goal, slots, &self.shared.backoff, self.shared.clock.now())
    }

    /// What the last look saw was planned for: whatever ends after it wakes the next turn, because it is watched.
    fn finish(&mut self, wanted: &Wanted, goal: &Goal, slots: &Slots, steps: &[Step]) -> Turn {
        let now = self.shared.clock.now();
        self.settle_crashes(goal, slots, now);
        let adopted = |slot: &SlotName| self.adopted.contains(slot);
        let assessment = health::assess(goal, slots, adopted, &self.shared.backoff, now);
        let pid = |slot: &SlotName| self.running.get(slot).map(|state| state.child.pid);
        let components = health::components(goal, slots, pid);
        self.report_receipt(wanted, goal, slots, &assessment);
        self.report_health(wanted, &assessment, components);
        self.save();

        let mut wake_at = now.plus_millis(RESYNC_MS);
        let healthy_again = self
            .ready_since
            .values()
            .map(|(_, since)| since.plus_millis(self.shared.backoff.healthy_ms));
        let waits = steps.iter().filter_map(|step| match step {
            Step::Wait { until, .. } => *until,
            // It did not work: not again at once.
            _ => Some(now.plus_millis(RETRY_MS)),
        });
        let times = waits
            .chain(assessment.recheck_at)
            .chain(healthy_again.filter(|at| *at > now));
        for at in times {
            wake_at = wake_at.min(at);
        }
        let waiting = steps.iter().find_map(|step| match step {
            Step::Wait { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        Turn {
            live: self.live(goal),
            missed: missed(goal, slots),
            wake_at,
            status: self.status(wanted, waiting),
        }
    }

    /// A long healthy time ends a row of crashes, and so does a suspension.
    fn settle_crashes(&mut self, goal: &Goal, slots: &Slots, now: Timestamp) {
        let is_suspended = matches!(goal, Goal::Suspend(_));
        for (name, slot) in slots {
            let since = self.ready_since.get(name).map(|(_, since)| *since);
            let calm = since
                .is_some_and(|since| now.millis_since(since) >= self.shared.backoff.healthy_ms);
            let Some(memory) = self.memory.slots.get_mut(name) else {
                continue;
            };
            if is_suspended && slot.phase == Phase::Idle {
                memory.forgive();
            } else if calm {
                memory.crashes = 0;
            }
        }
    }

    /// A new generation of the same thing is the old one's processes, and what they have achieved.
    fn carry_over(&mut self, goal: &Goal) {
        let Some(target) = goal.target() else { return };
        let generation = target.generation;
        if self.memory.generation == generation {
            return;
        }
        self.memory.generation = generation;
        for memory in self.memory.slots.values_mut() {
            memory.restarts = 0;
            memory.refused = None;
            if memory.fingerprint != Some(target.fingerprint) {
                memory.forgive();
                continue;
            }
            let before = std::mem::replace(&mut memory.generation, generation);
            for achieved in [&mut memory.ready, &mut memory.done] {
                if *achieved == Some(before) {
                    *achieved = Some(generation);
                }
            }
        }
    }

    fn learn_secrets(&mut self, wanted: &Wanted, goal: &Goal) {
        if let Some(target) = goal.target()
            && let Ok(platform) = self.shared.platform.environment(wanted)
        {
            self.redaction.learn(&platform, &target.manifest);
        }
    }

    fn status(&self, wanted: &Wanted, waiting: Option<String>) -> UnitStatus {
        let reported = self.memory.reported.as_ref();
        UnitStatus {
            generation: wanted.generation,
            health: reported.map_or(HealthStatus::Unknown, |reported| reported.status),
            reason: reported.map_or_else(String::new, |reported| reported.reason.clone()),
            components: reported.map_or_else(Vec::new, |reported| reported.components.clone()),
            limits: self.limits(),
            waiting,
        }
    }

    /// The first limit that does not hold, or what enforces them.
    pub(super) fn limits(&self) -> Option<Limits> {
        let known = || {
            self.memory
                .slots
                .values()
                .filter_map(|slot| slot.limits.as_ref())
        };
        let broken = known().find(|limits| matches!(limits, Limits::NotEnforced { .. }));
        broken.or_else(|| known().next()).cloned()
    }

    /// The order cannot be carried out by anybody; what runs is left as it is.
    fn cannot(&mut self, wanted: &Wanted, reason: &str, now: Timestamp) -> Turn {
        let order = (wanted.generation, wanted.sequence);
        if self.memory.failing != Some(order) {
            let reason = cut_detail(reason);
            self.receipt(wanted, Outcome::Failing { reason });
            self.memory.failing = Some(order);
        }
        self.save();
        let status = self.status(wanted, Some(reason.to_owned()));
        Turn {
            live: Vec::new(),
            missed: Vec::new(),
            wake_at: now.plus_millis(RESYNC_MS),
            status,
        }
    }

    fn gone(&self, wanted: &Wanted, now: Timestamp) -> Turn {
        let status = UnitStatus {
            generation: wanted.generation,
            health: HealthStatus::Stopped,
            reason: "removed".into(),
            components: Vec::new(),
            limits: None,
            waiting: None,
        };
        Turn {
            live: Vec::new(),
            missed: Vec::new(),
            wake_at: now.plus_millis(RESYNC_MS),
            status,
        }
    }

    pub(super) fn slot_memory(&mut self, slot: &SlotName) -> &mut SlotMemory {
        self.memory.slots.entry(slot.clone()).or_default()
    }

    pub(super) fn audit(&self, wanted: &Wanted, action: &str, detail: &str) {
        let event = Event::Audit {
            action: action.to_owned(),
            detail: cut_detail(detail),
        };
        self.shared.recorder.record(&About::wanted(wanted), event);
    }

    /// Writes the memory if it changed; `false` when the disk does not take it. The next turn tries again.
    pub(super) fn save(&mut self) -> bool {
        if self.saved.as_ref() == Some(&self.memory) {
            return true;
        }
        match self.memory.save(&self.files) {
            Ok(()) => {
                self.saved = Some(self.memory.clone());
                true
            }
            Err(error) => {
                tracing::error!(unit = %self.unit, %error, "the unit's memory cannot be written");
                false
            }
        }
    }

    /// Starts anew after the unit was removed.
    pub(super) fn forget_everything(&mut self) {
        self.memory = Memory::new(&self.unit);
        self.saved = Some(self.memory.clone());
        self.running.clear();
        self.ready_since.clear();
        self.adopted.clear();
    }
}
