//! A disk of the simulation: records in memory, of which a power loss takes what no sync made durable.
//!
//! It holds no thread, no file and no clock, and is compiled into no program.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_runtime::disk::Disk;
use sled::IVec;

use super::Commit;

type Kept = BTreeMap<Vec<u8>, Vec<u8>>;

/// The records of one controller; clones share them, and they outlive its process.
#[derive(Debug, Clone)]
pub struct MemoryRecords {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// What the process sees.
    seen: Kept,
    /// What is on the platters.
    durable: Kept,
    /// What is in the one and not in the other, in order.
    unsynced: Commit,
    sync_takes: Duration,
    free_bytes: u64,
}

/// An empty disk with room, whose syncs take no time.
impl Default for MemoryRecords {
    fn default() -> Self {
        let inner = Inner {
            seen: Kept::new(),
            durable: Kept::new(),
            unsynced: Commit::new(),
            sync_takes: Duration::ZERO,
            free_bytes: u64::MAX,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }
}

impl MemoryRecords {
    /// Drops what was not synced; says how many changes that were.
    pub fn lose_power(&self) -> usize {
        let mut inner = self.lock();
        inner.seen = inner.durable.clone();
        std::mem::take(&mut inner.unsynced).len()
    }

    /// Loses everything, as a disk that was replaced.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.seen.clear();
        inner.durable.clear();
        inner.unsynced.clear();
    }

    /// How long each sync takes from now on.
    pub fn slow_down(&self, sync_takes: Duration) {
        self.lock().sync_takes = sync_takes;
    }

    /// How long a sync takes at present.
    #[must_use]
    pub fn sync_takes(&self) -> Duration {
        self.lock().sync_takes
    }

    /// How many bytes are free from now on.
    pub fn leave_free(&self, bytes: u64) {
        self.lock().free_bytes = bytes;
    }

    pub(in crate::storage::engine) fn free_bytes(&self) -> u64 {
        self.lock().free_bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<IVec> {
        self.lock()
            .seen
            .get(key)
            .map(|value| value.as_slice().into())
    }

    pub(super) fn range(&self, bounds: Range<Vec<u8>>) -> std::vec::IntoIter<(IVec, IVec)> {
        let inner = self.lock();
        let found = inner.seen.range(bounds).map(owned);
        found.collect::<Vec<_>>().into_iter()
    }

    pub(super) fn last(&self, bounds: Range<Vec<u8>>) -> Option<(IVec, IVec)> {
        self.lock().seen.range(bounds).next_back().map(owned)
    }

    pub(super) fn keys_of(&self, prefix: &[u8]) -> Vec<IVec> {
        let inner = self.lock();
        let behind = inner.seen.range(prefix.to_vec()..);
        let found = behind.take_while(|(key, _)| key.starts_with(prefix));
        found.map(|(key, _)| key.as_slice().into()).collect()
    }

    pub(super) fn commit(&self, commit: Commit) {
        let mut inner = self.lock();
        for (key, value) in &commit {
            change(&mut inner.seen, key, value.as_ref());
        }
        inner.unsynced.extend(commit);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for MemoryRecords {
    fn sync_data(&self, _path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        for (key, value) in std::mem::take(&mut inner.unsynced) {
            change(&mut inner.durable, &key, value.as_ref());
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync_data(path)
    }
}

fn change(kept: &mut Kept, key: &[u8], value: Option<&Vec<u8>>) {
    match value {
        Some(value) => kept.insert(key.to_vec(), value.clone()),
        None => kept.remove(key),
    };
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> (IVec, IVec) {
    (key.as_slice().into(), value.as_slice().into())
}
