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

/// What the thread owns.
pub(super) struct Writer {
    pub(super) database: sled::Db,
    pub(super) database_path: PathBuf,
    pub(super) disk: SharedDisk,
    pub(super) mark: Mark,
    pub(super) on_fatal: OnFatal,
    pub(super) last_commit: u64,
    /// Locked until the last batch is written.
    pub(super) _directory: Arc<Directory>,
}

impl Writer {
    /// Serves the queue until it is closed, or until something failed. What nobody waits for is kept for the next
    /// commit that somebody waits for, so that it costs no sync of its own.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut held = None;
        let mut group = Vec::new();
        while let Some(first) = held.take().or_else(|| queue.blocking_recv()) {
            group.push(first);
            let bytes =
                |group: &[Waiting]| group.iter().map(|one| one.batch.bytes()).sum::<usize>();
            while let Ok(next) = queue.try_recv() {
                if bytes(&group) + next.batch.bytes() > GROUP_BYTES_MAX {
                    held = Some(next);
                    break;
                }
                group.push(next);
            }
            let is_full = held.is_some() || group.len() >= UNHURRIED_MAX;
            if !is_full && !group.iter().any(|waiting| waiting.is_urgent) {
                continue;
            }
            if !self.commit_group(&mut group) {
                queue.close();
                let left = std::iter::from_fn(|| queue.try_recv().ok());
                for waiting in held.into_iter().chain(left) {
                    (waiting.done)(Err(WriteError::Stopped));
                }
                return;
            }
        }
        if !group.is_empty() {
            self.commit_group(&mut group);
        }
    }

    /// Makes the batches durable together and tells everybody; `false` when nothing may be written any more.
    fn commit_group(&mut self, group: &mut Vec<Waiting>) -> bool {
        let batches: Vec<&Batch> = group.iter().map(|waiting| &waiting.batch).collect();
        let result = catch_unwind(AssertUnwindSafe(|| self.commit(&batches)))
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
    fn commit(&mut self, batches: &[&Batch]) -> Result<(), FatalError> {
        let number = self.last_commit + 1;
        let mut values = self.merge(batches).map_err(FatalError::Read)?;
        values.insert(commit_key(), Some(number.to_le_bytes().to_vec()));
        let mut commit = sled::Batch::default();
        for (key, value) in values {
            let kept = value.as_deref().map_or(0, chunks_of);
            for stored in self.database.scan_prefix(key.as_bytes()).keys() {
                let stored = stored.map_err(FatalError::Database)?;
                if split_key(&stored).is_some_and(|(_, chunk)| chunk >= kept) {
                    commit.remove(stored);
                }
            }
            let value = value.unwrap_or_default();
            for chunk in 0..kept {
                commit.insert(
                    chunk_key(key.as_bytes(), chunk),
                    encode_chunk(key.as_bytes(), &value, chunk, number),
                );
            }
        }
        self.database
            .apply_batch(commit)
            .map_err(FatalError::Database)?;
        self.database.flush().map_err(FatalError::Database)?;
        let sync_error = |source| FatalError::Sync {
            path: self.database_path.clone(),
            source,
        };
        self.disk
            .sync_data(&self.database_path)
            .map_err(sync_error)?;
        self.mark.write(number).map_err(sync_error)?;
        self.last_commit = number;
        Ok(())
    }

    /// What each key holds after all changes; `None` for nothing.
    fn merge(&self, batches: &[&Batch]) -> Result<BTreeMap<Key, Option<Vec<u8>>>, ReadError> {
        let mut values: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            match change {
                Change::Put(key, value) => {
                    values.insert(key.clone(), Some(value.clone()));
                }
                Change::Remove(key) => {
                    values.insert(key.clone(), None);
                }
                Change::RemoveRange(range) if range.start >= range.end => {}
                Change::RemoveRange(range) => {
                    for (_, value) in values.range_mut(range.clone()) {
                        *value = None;
                    }
                    let bounds = range.start.as_bytes().to_vec()..range.end.as_bytes().to_vec();
                    for stored in self.database.range(bounds).keys() {
                        let stored = stored.map_err(ReadError::Database)?;
                        let (key, _) = split_key(&stored).ok_or_else(|| corrupt(&stored))?;
                        values.insert(Key::from_bytes(key.to_vec()), None);
                    }
                }
            }
        }
        Ok(values)
    }
}
