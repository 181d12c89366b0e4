//! One unit's place among the reports: what waits, what it may still report, what is remembered and what it claimed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dotmac_protocol::{
    record::reports::{Claim, Report},
    time::Timestamp,
};

use super::{allowance::Allowance, files::Remembered, memory::identity, queue::Queue};

/// What one unit has here.
pub(super) struct Unit {
    pub(super) queue: Queue,
    pub(super) allowance: Allowance,
    /// `None` once the unit was removed.
    remembered: Mutex<Option<Remembered>>,
    /// What the instance claimed last, and when that was recorded.
    claimed: Mutex<Option<(Claim, Timestamp)>>,
}

impl Unit {
    /// A unit of which so much is remembered.
    pub(super) fn new(kept: Remembered, allowance: Allowance) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::default(),
            allowance,
            remembered: Mutex::new(Some(kept)),
            claimed: Mutex::default(),
        })
    }

    /// Those that were not taken before, each once; `None` once the unit was removed.
    pub(super) fn fresh(&self, reports: Vec<Report>) -> Option<Vec<Report>> {
        let mut seen = HashSet::new();
        self.remembered(|kept| {
            let mut is_new = |report: &Report| {
                !kept.memory.knows(report) && identity(report).is_none_or(|one| seen.insert(one))
            };
            reports
                .into_iter()
                .filter(|report| is_new(report))
                .collect()
        })
    }

    /// `None` once the unit was removed.
    pub(super) fn remembered<T>(&self, look: impl FnOnce(&mut Remembered) -> T) -> Option<T> {
        self.kept().as_mut().map(look)
    }

    /// The unit is removed: gives what was remembered; nothing is from now on.
    pub(super) fn end(&self) -> Option<Remembered> {
        self.kept().take()
    }

    /// What the instance claimed last.
    pub(super) fn claimed(&self) -> MutexGuard<'_, Option<(Claim, Timestamp)>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
