//! How long the disk takes to make bytes durable, lately: what Raft's timing is chosen by at the start, and what tells
//! people that a disk is slow. It remembers a fixed number of syncs and judges none of them.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_runtime::disk::{Disk, SharedDisk};
use tokio::time::Instant;

/// Syncs that are remembered.
const KEPT: usize = 32;
/// From this median on a disk is slow: three hundred times what a good one takes, and half of what an election waits.
pub const SLOW: Duration = Duration::from_millis(100);

/// The last syncs of data on one disk; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    last: Arc<Mutex<VecDeque<Duration>>>,
}

impl Pace {
    /// The same disk, observed.
    #[must_use]
    pub fn observe(&self, disk: SharedDisk) -> SharedDisk {
        let pace = self.clone();
        Arc::new(Observed { disk, pace })
    }

    /// The median of the last syncs; none before the first.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.lock().iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// The fastest of the last syncs: what the disk takes when nothing else delays it.
    #[must_use]
    pub fn fastest(&self) -> Option<Duration> {
        self.lock().iter().min().copied()
    }

    fn note(&self, took: Duration) {
        let mut last = self.lock();
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(took);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Duration>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a median is that of a slow disk, in words.
#[must_use]
pub fn slow(median: Duration) -> Option<String> {
    (median >= SLOW).then(|| {
        // Without the digits that change from one look to the next.
        let tenths = median.as_millis() / 100;
        format!(
            "a sync of its disk takes {}.{} s, more than {} ms is slow: every acknowledgement waits for it",
            tenths / 10,
            tenths % 10,
            SLOW.as_millis()
        )
    })
}

#[derive(Debug)]
struct Observed {
    disk: SharedDisk,
    pace: Pace,
}

impl Disk for Observed {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        let begun = Instant::now();
        let done = self.disk.sync_data(path);
        if done.is_ok() {
            self.pace.note(begun.elapsed());
        }
        done
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{KEPT, Pace, slow};

    #[test]
    fn a_disk_is_slow_by_the_median_of_its_last_syncs() {
        let pace = Pace::default();
        assert_eq!((pace.median(), pace.fastest()), (None, None));
        let ms = Duration::from_millis;
        for took in [ms(1), ms(900), ms(2)] {
            pace.note(took);
        }
        assert_eq!((pace.median(), pace.fastest()), (Some(ms(2)), Some(ms(1))));
        assert_eq!(slow(ms(99)), None);
        for _ in 0..KEPT {
            pace.note(ms(540));
        }
        assert_eq!(pace.fastest(), Some(ms(540)));
        let told = slow(pace.median().unwrap()).unwrap();
        assert!(told.starts_with("a sync of its disk takes 0.5 s"), "{told}");
    }
}
