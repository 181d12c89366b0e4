//! The single writer thread: many waiting batches, one commit, one sync. After its first error it writes nothing more.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use dotmac_runtime::disk::SharedDisk;
use tokio::sync::mpsc;

use super::{
    Batch, Done, FatalError, Key, OnFatal, ReadError, WriteError,
    batch::Change,
    commit_key, corrupt,
    mark::Mark,
    record::{chunk_key, chunks_of, encode_chunk, split_key},
    records::Records,
};
use crate::storage::directory::Directory;

/// Bytes of the batches that share a commit; a single larger batch goes alone.
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Batches that nobody waits for, before they are made durable without one that somebody waits for.
const UNHURRIED_MAX: usize = 64;

/// A batch in the queue.
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) done: Done,
    /// Whether somebody waits for it.
    pub(super) is_urgent: bool,
}

/// What a key holds after a commit.
enum Becomes {
    Nothing,
    Value(Vec<u8>),
    /// A value with nothing larger before it.
    Fresh(Vec<u8>),
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) database: Records,
    pub(super) database_path: PathBuf,
    pub(super) disk: SharedDisk,
    /// None for records in memory, which tell themselves what was lost.
    pub(super) mark: Option<Mark>,
    pub(super) on_fatal: OnFatal,
    pub(super) last_commit: u64,
    /// Locked until the last batch is written.
    pub(super) _directory: Option<Arc<Directory>>,
}

/// What was taken from the queue and is not on disk yet.
#[derive(Default)]
struct Taken {
    group: Vec<Waiting>,
    /// The first one that the group has no room for.
    held: Option<Waiting>,
}

impl Taken {
    /// Takes what waits; whether it is to be written now.
    fn gather(&mut self, first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> bool {
        self.group.push(first);
        let bytes = |group: &[Waiting]| group.iter().map(|one| one.batch.bytes()).sum::<usize>();
        while let Ok(next) = queue.try_recv() {
            if bytes(&self.group) + next.batch.bytes() > GROUP_BYTES_MAX {
                self.held = Some(next);
                break;
            }
            self.group.push(next);
        }
        let is_full = self.held.is_some() || self.group.len() >= UNHURRIED_MAX;
        is_full || self.group.iter().any(|waiting| waiting.is_urgent)
    }
}

impl Writer {
    /// Serves the queue until it is closed, or until something failed. What nobody waits for is kept for the next
    /// commit that somebody waits for, so that it costs no sync of its own.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut taken = Taken::default();
        while let Some(first) = taken.held.take().or_else(|| queue.blocking_recv()) {
            if taken.gather(first, &mut queue) && !self.write(&mut taken, &mut queue) {
                return;
            }
        }
        if !taken.group.is_empty() {
            self.commit_group(&mut taken.group);
        }
    }

    /// As [`Writer::run`], as a task on simulated time.
    #[cfg(feature = "simulation")]
    pub(super) async fn run_simulated(
        mut self,
        mut queue: mpsc::Receiver<Waiting>,
        records: super::records::MemoryRecords,
    ) {
        let mut taken = Taken::default();
        loop {
            let first = match taken.held.take() {
                Some(first) => Some(first),
                None => queue.recv().await,
            };
            let Some(first) = first else { break };
            if taken.gather(first, &mut queue) {
                tokio::time::sleep(records.sync_takes()).await;
                if !self.write(&mut taken, &mut queue) {
                    return;
                }
            }
        }
        if !taken.group.is_empty() {
            self.commit_group(&mut taken.group);
        }
    }

    /// Writes what was taken; `false`, and everybody is told, when nothing may be written any more.
    fn write(&mut self, taken: &mut Taken, queue: &mut mpsc::Receiver<Waiting>) -> bool {
        if self.commit_group(&mut taken.group) {
            return true;
        }
        queue.close();
        let left = std::iter::from_fn(|| queue.try_recv().ok());
        for waiting in taken.held.take().into_iter().chain(left) {
            (waiting.done)(Err(WriteError::Stopped));
        }
        false
    }

    /// Makes the batches durable together and tells everybody; `false` when nothing may be written any more.
    fn commit_group(&mut self, group: &mut Vec<Waiting>) -> bool {
        let batches = group.iter_mut().map(|one| std::mem::take(&mut one.batch));
        let batches: Vec<Batch> = batches.collect();
        let result = catch_unwind(AssertUnwindSafe(|| self.commit(batches)))
            .unwrap_or(Err(FatalError::Panicked));
        if let Err(error) = &result {
            (self.on_fatal)(error);
        }
        for waiting in group.drain(..) {
            let told = if result.is_ok() {
                Ok(())
            } else {
                Err(WriteError::Stopped)
            };
            (waiting.done)(told);
        }
        result.is_ok()
    }

    /// Makes the batches durable together.
    fn commit(&mut self, batches: Vec<Batch>) -> Result<(), FatalError> {
        let number = self.last_commit + 1;
        let mut values = self.merge(batches).map_err(FatalError::Read)?;
        let last = Becomes::Fresh(number.to_le_bytes().to_vec());
        values.insert(commit_key(), last);
        let mut commit = Vec::new();
        for (key, becomes) in values {
            let (value, is_fresh) = match becomes {
                Becomes::Nothing => (None, false),
                Becomes::Value(value) => (Some(value), false),
                Becomes::Fresh(value) => (Some(value), true),
            };
            let kept = value.as_deref().map_or(0, chunks_of);
            if !is_fresh {
                let before = self.database.keys_of(key.as_bytes());
                for stored in before.map_err(FatalError::Database)? {
                    if split_key(&stored).is_some_and(|(_, chunk)| chunk >= kept) {
                        commit.push((stored.to_vec(), None));
                    }
                }
            }
            let value = value.unwrap_or_default();
            for chunk in 0..kept {
                let record = encode_chunk(key.as_bytes(), &value, chunk, number);
                commit.push((chunk_key(key.as_bytes(), chunk), Some(record)));
            }
        }
        self.database.commit(commit).map_err(FatalError::Database)?;
        let sync_error = |source| FatalError::Sync {
            path: self.database_path.clone(),
            source,
        };
        self.disk
            .sync_data(&self.database_path)
            .map_err(sync_error)?;
        if let Some(mark) = &self.mark {
            mark.write(number).map_err(sync_error)?;
        }
        self.last_commit = number;
        Ok(())
    }

    /// What each key holds after all changes.
    fn merge(&self, batches: Vec<Batch>) -> Result<BTreeMap<Key, Becomes>, ReadError> {
        let mut values: BTreeMap<Key, Becomes> = BTreeMap::new();
        for change in batches.into_iter().flat_map(|batch| batch.changes) {
            match change {
                Change::Put(key, value) => {
                    values.insert(key, Becomes::Value(value));
                }
                // Behind a change of the same commit it is looked at like any other.
                Change::PutFresh(key, value) => match values.get(&key) {
                    None | Some(Becomes::Fresh(_)) => {
                        values.insert(key, Becomes::Fresh(value));
                    }
                    Some(Becomes::Nothing | Becomes::Value(_)) => {
                        values.insert(key, Becomes::Value(value));
                    }
                },
                Change::Remove(key) => {
                    values.insert(key, Becomes::Nothing);
                }
                Change::RemoveRange(range) if range.start >= range.end => {}
                Change::RemoveRange(range) => {
                    for (_, value) in values.range_mut(range.clone()) {
                        *value = Becomes::Nothing;
                    }
                    let bounds = range.start.as_bytes().to_vec()..range.end.as_bytes().to_vec();
                    for stored in self.database.range(bounds) {
                        let (stored, _) = stored.map_err(ReadError::Database)?;
                        let (key, _) = split_key(&stored).ok_or_else(|| corrupt(&stored))?;
                        values.insert(Key::from_bytes(key.to_vec()), Becomes::Nothing);
                    }
                }
            }
        }
        Ok(values)
    }
}
