//! What probes found, folded into minutes until a record takes them along. Kept in memory alone: what an agent's end
//! takes is at most what was not recorded yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dotmac_protocol::{
    ids::{PartName, UnitId},
    record::reports::ProbeMinute,
    time::Timestamp,
};

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;
/// Finished minutes of a unit that wait for a record; above it the oldest go.
const FINISHED_MAX: usize = 180;

/// The minutes of all units. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<UnitId, Minutes>>>);

#[derive(Debug, Default)]
struct Minutes {
    open: BTreeMap<PartName, ProbeMinute>,
    finished: VecDeque<ProbeMinute>,
}

/// The minutes of one unit.
#[derive(Debug, Clone)]
pub struct UnitTally {
    tally: Tally,
    unit: UnitId,
}

/// Where the answers of one component's probes are counted.
#[derive(Debug, Clone)]
pub struct Counter {
    of: UnitTally,
    component: PartName,
}

impl UnitTally {
    /// Where a component's probes are counted.
    #[must_use]
    pub fn counter(&self, component: &PartName) -> Counter {
        Counter {
            of: self.clone(),
            component: component.clone(),
        }
    }
}

impl Counter {
    /// Counts one answer, which took so many milliseconds.
    pub fn count(&self, now: Timestamp, took_ms: u64, is_good: bool) {
        let start = Timestamp(now.0 - now.0 % MINUTE_MS);
        let mut units = self.of.tally.lock();
        let minutes = units.entry(self.of.unit.clone()).or_default();
        let fresh = || ProbeMinute {
            minute: start,
            component: self.component.clone(),
            probes: 0,
            failed: 0,
            latency_sum_ms: 0,
            latency_max_ms: 0,
        };
        let open = minutes
            .open
            .entry(self.component.clone())
            .or_insert_with(fresh);
        let finished = (open.minute != start).then(|| std::mem::replace(open, fresh()));
        open.probes = open.probes.saturating_add(1);
        open.failed = open.failed.saturating_add(u32::from(!is_good));
        open.latency_sum_ms = open.latency_sum_ms.saturating_add(took_ms);
        let took_ms = u32::try_from(took_ms).unwrap_or(u32::MAX);
        open.latency_max_ms = open.latency_max_ms.max(took_ms);
        minutes.finish(finished);
    }
}

impl Tally {
    /// The minutes of one unit.
    #[must_use]
    pub fn of(&self, unit: &UnitId) -> UnitTally {
        UnitTally {
            tally: self.clone(),
            unit: unit.clone(),
        }
    }

    /// Units with a minute that ended `waited_ms` ago.
    pub(super) fn waiting(&self, now: Timestamp, waited_ms: u64) -> Vec<UnitId> {
        let is_over =
            |minute: &ProbeMinute| minute.minute.plus_millis(MINUTE_MS + waited_ms) <= now;
        let units = self.lock();
        let waiting = units.iter().filter(|(_, minutes)| {
            minutes.finished.iter().any(is_over) || minutes.open.values().any(is_over)
        });
        waiting.map(|(unit, _)| unit.clone()).collect()
    }

    /// Takes finished minutes of a unit, oldest first, as many as a predicate admits.
    pub fn take(
        &self,
        unit: &UnitId,
        now: Timestamp,
        mut fits: impl FnMut(&ProbeMinute) -> bool,
    ) -> Vec<ProbeMinute> {
        let mut units = self.lock();
        let Some(minutes) = units.get_mut(unit) else {
            return Vec::new();
        };
        let is_over =
            |_: &PartName, minute: &mut ProbeMinute| minute.minute.plus_millis(MINUTE_MS) <= now;
        let over: Vec<_> = minutes.open.extract_if(.., is_over).collect();
        minutes.finish(over.into_iter().map(|(_, minute)| minute));
        let mut taken = Vec::new();
        while minutes.finished.front().is_some_and(&mut fits) {
            taken.extend(minutes.finished.pop_front());
        }
        if minutes.open.is_empty() && minutes.finished.is_empty() {
            units.remove(unit);
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UnitId, Minutes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minutes {
    fn finish(&mut self, over: impl IntoIterator<Item = ProbeMinute>) {
        for minute in over {
            if self.finished.len() >= FINISHED_MAX {
                self.finished.pop_front();
            }
            self.finished.push_back(minute);
        }
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::{FINISHED_MAX, MINUTE_MS, Tally};
    use crate::fixture::unit;

    #[test]
    fn answers_fold_into_minutes_and_the_oldest_go_at_the_bound() {
        let tally = Tally::default();
        let counter = tally.of(&unit("demo")).counter(&"web".parse().unwrap());
        let start = Timestamp(100 * MINUTE_MS);
        counter.count(start, 5, true);
        counter.count(start.plus_millis(59_999), 9, false);
        let all = |now| tally.take(&unit("demo"), now, |_| true);
        assert!(
            all(start.plus_millis(59_999)).is_empty(),
            "the minute goes on"
        );
        let over = start.plus_millis(MINUTE_MS);
        assert_eq!(tally.waiting(over, 1), []);
        assert_eq!(tally.waiting(over, 0), [unit("demo")]);
        let taken = all(over);
        let [minute] = &taken[..] else {
            panic!("one minute: {taken:?}")
        };
        assert_eq!((minute.minute, minute.probes, minute.failed), (start, 2, 1));
        assert_eq!((minute.latency_sum_ms, minute.latency_max_ms), (14, 9));
        for number in 0..500 {
            counter.count(start.plus_millis(number * MINUTE_MS), 1, true);
        }
        let end = start.plus_millis(500 * MINUTE_MS);
        let kept = all(end);
        assert_eq!(kept.len(), FINISHED_MAX);
        assert_eq!(
            kept.last().unwrap().minute,
            start.plus_millis(499 * MINUTE_MS)
        );
        assert!(all(end).is_empty());
    }
}
