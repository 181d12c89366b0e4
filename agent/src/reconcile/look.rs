//! Looks at a unit: what its slots' files and its probes say, as the plan wants to see it, and what is to be watched.

use dotmac_protocol::release::Probes;

use super::{
    goal::{Goal, Target},
    memory::SlotMemory,
    plan::{Phase, Readiness, Slot, Slots},
    turn::Hands,
    watchers::Live,
};
use crate::{
    driver::{SlotName, process::Seen},
    probe::{Inquiry, Kind, Verdict},
    shim::files::State,
    unit::Wanted,
};

impl Hands {
    /// Sees what there is, books what ended, and sums it up for the plan.
    pub(super) fn look(&mut self, wanted: &Wanted, goal: &Goal) -> Slots {
        let names: Vec<SlotName> = self.memory.slots.keys().cloned().collect();
        self.running.clear();
        let mut slots = Slots::new();
        for name in names {
            let launch = self.memory.slots.get(&name).map_or(0, |slot| slot.launch);
            let files = self.files.slot(&name);
            let seen = self.shared.driver.look(&files, launch).unwrap_or_else(|error| {
                tracing::warn!(unit = %self.unit, slot = %name, %error, "the slot cannot be looked at");
                Seen::Settling
            });
            let phase = self.phase(wanted, &name, seen);
            let Some(memory) = self.memory.slots.get(&name).cloned() else {
                continue;
            };
            let probes = goal
                .target()
                .and_then(|target| target.component(&name.component));
            let (readiness, hung) = self.verdicts(
                &name,
                launch,
                phase,
                probes.map(|component| &component.probes),
            );
            slots.insert(
                name,
                Slot {
                    phase,
                    readiness,
                    hung,
                    memory,
                },
            );
        }
        self.looked = true;
        self.note_ready(goal, &mut slots);
        slots
    }

    fn phase(&mut self, wanted: &Wanted, name: &SlotName, seen: Seen) -> Phase {
        let state = match seen {
            Seen::Nothing => return Phase::Idle,
            Seen::Settling => return Phase::Settling,
            Seen::Ended(exit) => {
                self.book_end(wanted, name, &exit);
                return Phase::Idle;
            }
            Seen::Orphaned(state) => {
                self.running.insert(name.clone(), *state);
                return Phase::Orphaned;
            }
            Seen::Running(state) => *state,
        };
        if !self.looked {
            self.adopt(wanted, name, &state);
        }
        let stopping = self.memory.slots.get(name).and_then(|slot| slot.stopping);
        let phase = match stopping {
            Some((launch, _, since)) if launch == state.launch => Phase::Stopping(since),
            _ => Phase::Running,
        };
        self.running.insert(name.clone(), state);
        phase
    }

    fn verdicts(
        &self,
        slot: &SlotName,
        launch: u64,
        phase: Phase,
        probes: Option<&Probes>,
    ) -> (Readiness, Option<String>) {
        let verdict = |kind| self.board.verdict(slot, launch, kind);
        let runs = matches!(phase, Phase::Running | Phase::Stopping(_));
        let Some(probes) = probes.filter(|_| runs) else {
            return (Readiness::Open, None);
        };
        let live = probes.live.as_ref().map(|_| verdict(Kind::Live));
        let ready = probes.ready.as_ref().map(|_| verdict(Kind::Ready));
        let hung = match &live {
            Some(Verdict::Bad(reason)) => Some(reason.clone()),
            _ => None,
        };
        let readiness = match ready.or(live).unwrap_or(Verdict::Good) {
            _ if phase != Phase::Running => Readiness::Open,
            Verdict::Open => Readiness::Open,
            Verdict::Good => Readiness::Ready,
            Verdict::Bad(reason) => Readiness::NotReady(reason),
        };
        (readiness, hung)
    }

    /// Remembers since when what is ready, and that it was.
    fn note_ready(&mut self, goal: &Goal, slots: &mut Slots) {
        let now = self.shared.clock.now();
        let Some(target) = goal.target() else { return };
        for (name, slot) in slots.iter_mut() {
            if slot.readiness != Readiness::Ready {
                self.ready_since.remove(name);
                continue;
            }
            self.adopted.remove(name);
            let launch = slot.memory.launch;
            let since = self
                .ready_since
                .entry(name.clone())
                .or_insert((launch, now));
            if since.0 != launch {
                *since = (launch, now);
            }
            if slot.memory.fingerprint == Some(target.fingerprint) {
                slot.memory.ready = Some(target.generation);
                if let Some(memory) = self.memory.slots.get_mut(name) {
                    memory.ready = Some(target.generation);
                }
            }
        }
    }

    pub(super) fn live(&self, goal: &Goal) -> Vec<Live> {
        let live = self.running.iter().map(|(slot, state)| {
            let stopping = self.memory.slots.get(slot).is_some_and(|memory| {
                memory
                    .stopping
                    .is_some_and(|(launch, _, _)| launch == state.launch)
            });
            let asked = goal.target().filter(|_| !stopping);
            Live {
                slot: slot.clone(),
                launch: state.launch,
                shim: state.shim.clone(),
                inquiries: asked
                    .map_or_else(Vec::new, |target| self.inquiries(target, slot, state)),
            }
        });
        live.collect()
    }

    fn inquiries(&self, target: &Target, slot: &SlotName, state: &State) -> Vec<Inquiry> {
        let Some(component) = target.component(&slot.component) else {
            return Vec::new();
        };
        let memory = self.memory.slots.get(slot);
        let started_again = memory.is_some_and(SlotMemory::is_started_again);
        let ports = memory.map(|memory| &memory.ports);
        let probes = [
            (Kind::Live, &component.probes.live),
            (Kind::Ready, &component.probes.ready),
        ];
        let inquiries = probes.into_iter().filter_map(|(kind, probe)| {
            let probe = probe.clone()?;
            let port = *ports?.get(&probe.http.port)?;
            let (slot, launch, started_at) = (slot.clone(), state.launch, state.started_at);
            Some(Inquiry {
                slot,
                launch,
                kind,
                probe,
                port,
                started_at,
                started_again,
            })
        });
        inquiries.collect()
    }
}
