//! What applied entries changed, kept until somebody takes it: the hand-over from the replicated log to the feed.
//! Whoever applies never waits; changes that nobody takes fold into each other, so that it stays small.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dotmac_domain::{Changed, State};
use tokio::sync::watch;

/// Entities named at most; with more, everything counts as changed.
const CHANGED_MAX: usize = 4_096;

/// The hand-over; clones share it.
#[derive(Debug, Clone)]
pub struct Changes {
    kept: Arc<Mutex<Taken>>,
    index: Arc<watch::Sender<u64>>,
}

/// What changed since it was taken last, and the State that it led to.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Index of the last applied entry.
    pub index: u64,
    /// The State after exactly that entry.
    pub state: Arc<State>,
    /// What may look different; nothing if nothing was applied.
    pub what: What,
}

/// What may look different from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// These entities.
    These(BTreeSet<Changed>),
    /// Anything: a snapshot took the State's place, or too much changed to name it.
    Everything,
}

impl Default for What {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Changes {
    /// Nothing has changed since this State.
    #[must_use]
    pub fn new(index: u64, state: Arc<State>) -> Self {
        let kept = Taken {
            index,
            state,
            what: What::default(),
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
            index: Arc::new(watch::Sender::new(index)),
        }
    }

    /// Entries up to `index` were applied.
    pub fn note(&self, index: u64, state: Arc<State>, changed: BTreeSet<Changed>) {
        self.put(index, state, What::These(changed));
    }

    /// A State from elsewhere took the place of the one before.
    pub fn replace(&self, index: u64, state: Arc<State>) {
        self.put(index, state, What::Everything);
    }

    fn put(&self, index: u64, state: Arc<State>, what: What) {
        let mut kept = self.lock();
        kept.index = index;
        kept.state = state;
        kept.what = match (std::mem::take(&mut kept.what), what) {
            (What::These(mut all), What::These(more)) if all.len() + more.len() <= CHANGED_MAX => {
                all.extend(more);
                What::These(all)
            }
            _ => What::Everything,
        };
        drop(kept);
        self.index.send_replace(index);
    }

    /// Takes what changed; the next one to ask finds nothing.
    #[must_use]
    pub fn take(&self) -> Taken {
        let mut kept = self.lock();
        Taken {
            index: kept.index,
            state: Arc::clone(&kept.state),
            what: std::mem::take(&mut kept.what),
        }
    }

    /// Index of the last applied entry, and the State after exactly that entry.
    #[must_use]
    pub fn newest(&self) -> (u64, Arc<State>) {
        let kept = self.lock();
        (kept.index, Arc::clone(&kept.state))
    }

    /// Wakes when something was applied. Carries no data but the index.
    #[must_use]
    pub fn woken(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: usize) -> Changed {
        Changed::Region(format!("r-{number}").parse().unwrap())
    }

    #[test]
    fn what_nobody_takes_folds_together_and_is_bounded() {
        let changes = Changes::new(3, Arc::default());
        assert_eq!(changes.take().what, What::default());
        let woken = changes.woken();
        changes.note(4, Arc::default(), [region(1)].into());
        changes.note(5, Arc::default(), [region(1), region(2)].into());
        assert_eq!(*woken.borrow(), 5);
        let taken = changes.take();
        let both = What::These([region(1), region(2)].into());
        assert_eq!((taken.index, taken.what), (5, both));
        assert_eq!(changes.take().what, What::default());
        for number in 0..=CHANGED_MAX {
            changes.note(6, Arc::default(), [region(number)].into());
        }
        assert_eq!(changes.take().what, What::Everything);
    }

    #[test]
    fn a_snapshot_changes_everything() {
        let changes = Changes::new(0, Arc::default());
        changes.replace(9, Arc::default());
        changes.note(10, Arc::default(), [region(1)].into());
        let taken = changes.take();
        assert_eq!((taken.index, taken.what), (10, What::Everything));
    }
}
