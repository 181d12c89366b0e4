//! The Raft log on the storage engine. Appended entries and votes are on disk before Raft hears of them; the log is
//! thrown away only behind facts that are on disk. It refuses to leave holes.

use std::{
    fmt::Debug,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dotmac_domain::Envelope;
use dotmac_protocol::codec::{self, DecodeError, Format};
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader, storage::LogFlushed,
    storage::RaftLogStorage,
};
use thiserror::Error;

mod recent;

use recent::Recent;

use super::types::{
    Entry, Failure, LogId, LogIdRecord, LogRecord, RaftVote, TypeConfig, Verb, VoteRecord,
    log_failure,
};
use crate::storage::{
    engine::{Area, BATCH_BYTES_MAX, Batch, Engine, Key, Priority, ReadError, WriteError},
    ledger::Ledger,
};

/// Bytes of entries read at once for a follower, unless the first alone is larger.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// Entries removed in one batch.
const PURGE_STEP: u64 = 512;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
pub enum LogStoreError {
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored record is none of this program's.
    #[error("a record of the Raft log cannot be decoded")]
    Decode(#[from] DecodeError),
}

/// The log; clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    engine: Engine,
    ledger: Ledger,
    known: Arc<Mutex<Known>>,
}

/// The small values, as they are on disk or about to be.
#[derive(Debug, Default)]
struct Known {
    vote: Option<RaftVote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    recent: Recent,
}

impl LogStore {
    /// Opens the log of an engine. `ledger` holds the facts made from its entries.
    pub fn open(engine: Engine, ledger: Ledger) -> Result<Self, LogStoreError> {
        let purged = read::<LogIdRecord>(&engine, &purged_key())?.and_then(|record| record.0);
        let last = match engine.last(entry_key(0)..entries_end())? {
            Some((_, value)) => Some(codec::decode::<LogRecord>(&value)?.0.log_id),
            None => purged,
        };
        let known = Known {
            vote: read::<VoteRecord>(&engine, &vote_key())?.map(|record| record.0),
            committed: read::<LogIdRecord>(&engine, &committed_key())?.and_then(|record| record.0),
            purged,
            last,
            recent: Recent::default(),
        };
        Ok(Self {
            engine,
            ledger,
            known: Arc::new(Mutex::new(known)),
        })
    }

    /// Forgets who led, so that a leader stands for election like any other, and nobody names a leader that he has not heard
    /// of. Raft would let this node lead again from its start, and would answer reads by what it then knows to be committed:
    /// that may be less than was acknowledged. Whom it voted for stays.
    #[must_use]
    pub fn leaderless(self) -> Self {
        if let Some(vote) = &mut self.lock().vote {
            vote.committed = false;
        }
        self
    }

    /// Lets an empty log begin behind an entry, with a vote.
    pub(super) async fn begin_at(&self, log_id: LogId, vote: RaftVote) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.put(purged_key(), encode(&LogIdRecord(Some(log_id))));
        batch.put(vote_key(), encode(&VoteRecord(vote)));
        self.write(batch).await?;
        let mut known = self.lock();
        (known.purged, known.last, known.vote) = (Some(log_id), Some(log_id), Some(vote));
        Ok(())
    }

    /// Index of the last entry that is known to be committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.lock().committed.map_or(0, |last| last.index)
    }

    /// Index of the last entry that was removed; 0 while there is none.
    #[must_use]
    pub fn purged(&self) -> u64 {
        self.lock().purged.map_or(0, |last| last.index)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, batch: Batch) -> Result<(), Failure> {
        let written = self.engine.write(batch, Priority::Essential).await;
        written.map_err(|error| log_failure(Verb::Write, &error))
    }

    async fn write_entries(&self, entries: impl Iterator<Item = Entry>) -> Result<(), Failure> {
        let mut batch = Batch::new();
        let mut written = Vec::new();
        for entry in entries {
            self.mark_version(&entry)?;
            let key = entry_key(entry.log_id.index);
            let record = LogRecord(entry);
            let bytes = codec::encode(&record).map_err(|error| log_failure(Verb::Write, &error))?;
            if batch.bytes() + bytes.len() + 64 > BATCH_BYTES_MAX {
                self.write(std::mem::take(&mut batch)).await?;
                self.note_written(std::mem::take(&mut written));
            }
            written.push((record.0, bytes.len()));
            batch.put(key, bytes);
        }
        if !batch.is_empty() {
            self.write(batch).await?;
            self.note_written(written);
        }
        Ok(())
    }

    /// Before an entry that older programs cannot read is written, they are told. News once in the life of a version.
    #[allow(clippy::result_large_err, reason = "the size is Raft's")]
    fn mark_version(&self, entry: &Entry) -> Result<(), Failure> {
        let EntryPayload::Normal(proposal) = &entry.payload else {
            return Ok(());
        };
        let versions = proposal.envelopes.iter().map(Envelope::rules_to_read);
        let marked = self.engine.raise_version(versions.max().unwrap_or(0));
        marked.map_err(|error| log_failure(Verb::Write, &error))
    }

    /// These are on disk, behind all others.
    fn note_written(&self, written: Vec<(Entry, usize)>) {
        let mut known = self.lock();
        if let Some((last, _)) = written.last() {
            known.last = Some(last.log_id);
        }
        known.recent.extend(written);
    }

    /// Entries of a half-open range in order, up to about `bytes_max`, at least one if there is one.
    #[allow(clippy::result_large_err, reason = "the size is Raft's")]
    fn entries(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, Failure> {
        if let Some(recent) = self.lock().recent.read(start, end, bytes_max) {
            return Ok(recent);
        }
        let failure = |error: LogStoreError| log_failure(Verb::Read, &error);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for record in self.engine.scan(entry_key(start)..entry_key(end)) {
            let (_, value) = record.map_err(|error| failure(error.into()))?;
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            let record: LogRecord = codec::decode(&value).map_err(|error| failure(error.into()))?;
            entries.push(record.0);
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, Failure> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, Failure> {
        self.entries(start, end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failure> {
        let known = self.lock();
        Ok(LogState {
            last_purged_log_id: known.purged,
            last_log_id: known.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.put(vote_key(), encode(&VoteRecord(*vote)));
        self.write(batch).await?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, Failure> {
        Ok(self.lock().vote)
    }

    /// Queued, not awaited: what is committed is known again from the leader, this only shortens a restart.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.put_fresh(committed_key(), encode(&LogIdRecord(committed)));
        self.lock().committed = committed;
        let done = Box::new(|_: Result<(), WriteError>| {});
        let queued = self.engine.submit(batch, Priority::Unhurried, done).await;
        queued.map_err(|error| log_failure(Verb::Write, &error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, Failure> {
        Ok(self.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let written = self.write_entries(entries.into_iter()).await;
        callback.log_io_completed(match &written {
            Ok(()) => Ok(()),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        });
        written
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), Failure> {
        let mut batch = Batch::new();
        batch.remove_range(entry_key(log_id.index)..entries_end());
        self.lock().recent.clear();
        self.write(batch).await?;
        let last = self
            .engine
            .last(entry_key(0)..entries_end())
            .map_err(|error| log_failure(Verb::Read, &error))?;
        let last = last.map(|(_, value)| codec::decode::<LogRecord>(&value));
        let last = last
            .transpose()
            .map_err(|error| log_failure(Verb::Read, &error))?;
        let mut known = self.lock();
        known.last = last.map_or(known.purged, |record| Some(record.0.log_id));
        Ok(())
    }

    /// Waits for the ledger first: facts are made from these entries, and cannot be made again without them.
    async fn purge(&mut self, log_id: LogId) -> Result<(), Failure> {
        let settled = self.ledger.settle().await;
        settled.map_err(|error| log_failure(Verb::Write, &error))?;
        let first = {
            let mut known = self.lock();
            known.recent.forget_through(log_id.index);
            known.purged.map_or(0, |purged| purged.index + 1)
        };
        let mut start = first;
        loop {
            let end = start.saturating_add(PURGE_STEP).min(log_id.index + 1);
            let mut batch = Batch::new();
            batch.put(purged_key(), encode(&LogIdRecord(Some(log_id))));
            batch.remove_range(entry_key(start)..entry_key(end));
            self.write(batch).await?;
            start = end;
            if start > log_id.index {
                break;
            }
        }
        let mut known = self.lock();
        known.purged = known.purged.max(Some(log_id));
        known.last = known.last.max(Some(log_id));
        Ok(())
    }
}

fn read<T: Format>(engine: &Engine, key: &Key) -> Result<Option<T>, LogStoreError> {
    let value = engine.get(key)?;
    Ok(value.map(|value| codec::decode(&value)).transpose()?)
}

fn encode<T: Format>(record: &T) -> Vec<u8> {
    codec::encode(record).expect("a vote or a place in the log is small")
}

fn entry_key(index: u64) -> Key {
    Key::of(Area::Log).number(index)
}

fn entries_end() -> Key {
    Key::of(Area::Log).end()
}

fn vote_key() -> Key {
    Key::of(Area::Raft).text("vote")
}

fn committed_key() -> Key {
    Key::of(Area::Raft).text("committed")
}

fn purged_key() -> Key {
    Key::of(Area::Raft).text("purged")
}
