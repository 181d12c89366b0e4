//! The ledger: facts by stream and sequence, each exactly once, and the end of every stream.
//!
//! Facts are queued while entries are applied and become durable in that order; whoever throws away what they could be
//! made again from (log entries) first waits until the ledger has settled. It refuses gaps, and a second fact that
//! differs from the first with its number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dotmac_domain::audit::{Fact, Stream};
use dotmac_protocol::{
    codec::{self, DecodeError, EncodeError},
    digest::Digest,
    record::ChainHead,
};
use thiserror::Error;
use tokio::sync::watch;

mod retention;

use crate::storage::engine::{Area, Batch, Engine, Key, Priority, ReadError, WriteError};

/// Facts read at once at most.
pub const READ_MAX: usize = 1000;
/// Bytes of facts in one batch, about.
const BATCH_BYTES: usize = 512 * 1024;

/// Why the ledger fails.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine takes no more.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A stored record is none.
    #[error("a record of the ledger cannot be decoded")]
    Decode(#[from] DecodeError),
    /// A fact exceeds its limit.
    #[error("a fact cannot be encoded")]
    Encode(#[from] EncodeError),
    /// A fact does not follow the last one.
    #[error("stream {stream} ends at {head}, so fact {found} leaves a gap")]
    Gap {
        /// Which stream.
        stream: Stream,
        /// Its last fact.
        head: u64,
        /// What came.
        found: u64,
    },
    /// A fact differs from the one that is kept under its number: the nodes disagree.
    #[error("fact {sequence} of stream {stream} differs from the one in the ledger")]
    Differs {
        /// Which stream.
        stream: Stream,
        /// Which fact.
        sequence: u64,
    },
    /// A fact follows another one than the last that is kept: this node has another past than the one it comes from.
    #[error(
        "fact {sequence} of stream {stream} does not follow the one before it in the ledger: this controller began with \
         another backup or genesis than the others"
    )]
    Forks {
        /// Which stream.
        stream: Stream,
        /// Which fact.
        sequence: u64,
    },
    /// The head of a stream is malformed.
    #[error("the head of stream {name} is malformed")]
    Head {
        /// Its name.
        name: String,
    },
}

/// A handle to the ledger; clones share it.
#[derive(Debug, Clone)]
pub struct Ledger {
    engine: Engine,
    heads: Arc<Mutex<Heads>>,
    durable: Arc<watch::Sender<Durable>>,
}

#[derive(Debug)]
struct Heads {
    streams: BTreeMap<Stream, ChainHead>,
    /// Batches queued so far.
    queued: u64,
    /// The last log index whose facts were queued.
    index: u64,
    /// Facts queued and not durable yet, by batch; as many as the engine's queue holds.
    pending: BTreeMap<u64, Vec<Fact>>,
    /// How far chains are to be dropped; no more than there are chains.
    drops: BTreeMap<Stream, retention::Drop>,
}

#[derive(Debug, Clone, Copy)]
struct Durable {
    batches: u64,
    index: u64,
    stopped: bool,
}

impl Ledger {
    /// Opens the ledger in an engine and reads the heads of its streams.
    pub fn open(engine: Engine) -> Result<Self, LedgerError> {
        let mut streams = BTreeMap::new();
        for record in engine.scan(Key::of(Area::Heads)..Key::of(Area::Heads).end()) {
            let (key, value) = record?;
            let (stream, head) = decode_head(&key, &value)?;
            streams.insert(stream, head);
        }
        let index = match engine.get(&index_key())? {
            Some(value) => decode_number(&value).ok_or_else(|| LedgerError::Head {
                name: "index".into(),
            })?,
            None => 0,
        };
        let heads = Heads {
            streams,
            queued: 0,
            index,
            pending: BTreeMap::new(),
            drops: BTreeMap::new(),
        };
        let durable = Durable {
            batches: 0,
            index,
            stopped: false,
        };
        Ok(Self {
            engine,
            heads: Arc::new(Mutex::new(heads)),
            durable: Arc::new(watch::Sender::new(durable)),
        })
    }

    /// Queues the facts of log entry `index`, leaving out those it has. Returns before they are durable. One caller at
    /// a time.
    pub async fn append(&self, index: u64, facts: &[Fact]) -> Result<(), LedgerError> {
        let mut batch = Batch::new();
        let mut heads = BTreeMap::new();
        let mut fresh = Vec::new();
        for fact in facts {
            let bytes = codec::encode(fact)?;
            let head = heads
                .get(&fact.stream)
                .copied()
                .or_else(|| self.head(&fact.stream))
                .unwrap_or(ChainHead::START);
            if fact.sequence <= head.sequence {
                self.check_same(fact, &bytes)?;
                continue;
            }
            if fact.sequence != head.sequence + 1 {
                return Err(LedgerError::Gap {
                    stream: fact.stream.clone(),
                    head: head.sequence,
                    found: fact.sequence,
                });
            }
            batch.put_fresh(fact_key(&fact.stream, fact.sequence), bytes);
            fresh.push(fact.clone());
            heads.insert(
                fact.stream.clone(),
                ChainHead {
                    sequence: fact.sequence,
                    digest: fact.link.digest(),
                },
            );
            if batch.bytes() >= BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                let (heads, fresh) = (std::mem::take(&mut heads), std::mem::take(&mut fresh));
                self.queue(full, heads, fresh, None).await?;
            }
        }
        if batch.is_empty() {
            let mut heads = self.lock();
            heads.index = heads.index.max(index);
            return Ok(());
        }
        self.queue(batch, heads, fresh, Some(index)).await
    }

    /// That facts of another controller go on from this one's: the first new one of each stream follows the last that is kept.
    /// Those behind it are checked by whoever reads the chain.
    ///
    /// # Errors
    /// When one follows something else, or does not parse.
    pub fn check_follows(&self, facts: &[Fact]) -> Result<(), LedgerError> {
        for fact in facts {
            let head = self.head(&fact.stream).unwrap_or(ChainHead::START);
            if fact.sequence == head.sequence + 1 && fact.link.previous()? != head.digest {
                return Err(LedgerError::Forks {
                    stream: fact.stream.clone(),
                    sequence: fact.sequence,
                });
            }
        }
        Ok(())
    }

    /// Waits until everything queued so far is durable.
    pub async fn settle(&self) -> Result<(), LedgerError> {
        let queued = self.lock().queued;
        if self.durable.borrow().batches < queued {
            // Nothing by itself, but somebody waits for it: all that was queued before goes with it.
            self.engine.write(Batch::new(), Priority::Essential).await?;
        }
        let mut durable = self.durable.subscribe();
        let reached = durable
            .wait_for(|durable| durable.stopped || durable.batches >= queued)
            .await;
        match reached {
            Ok(durable) if durable.batches >= queued => Ok(()),
            Ok(_) | Err(_) => Err(WriteError::Stopped.into()),
        }
    }

    /// The last log index whose facts, and those of all before it, are durable.
    #[must_use]
    pub fn synced_index(&self) -> u64 {
        let heads = self.lock();
        let durable = *self.durable.borrow();
        if durable.batches == heads.queued && !durable.stopped {
            heads.index
        } else {
            durable.index
        }
    }

    /// The facts of one stream behind `after`, in order, at most `limit` and [`READ_MAX`]; queued ones too.
    pub fn read(
        &self,
        stream: &Stream,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Fact>, LedgerError> {
        // First what is queued: what becomes durable meanwhile is then found in the engine.
        let queued: Vec<Fact> = {
            let heads = self.lock();
            let queued = heads.pending.values().flatten();
            queued
                .filter(|fact| fact.stream == *stream)
                .cloned()
                .collect()
        };
        let limit = limit.min(READ_MAX);
        let end = Key::of(Area::Facts).text(&stream.to_string()).end();
        let range = fact_key(stream, after.saturating_add(1))..end;
        let mut facts: Vec<Fact> = Vec::new();
        for record in self.engine.scan(range).take(limit) {
            facts.push(codec::decode(&record?.1)?);
        }
        let last = facts.last().map_or(after, |fact| fact.sequence);
        let behind = queued.into_iter().filter(|fact| fact.sequence > last);
        facts.extend(behind.take(limit - facts.len()));
        Ok(facts)
    }

    /// The end of one stream.
    #[must_use]
    pub fn head(&self, stream: &Stream) -> Option<ChainHead> {
        self.lock().streams.get(stream).copied()
    }

    /// The ends of all streams.
    #[must_use]
    pub fn heads(&self) -> BTreeMap<Stream, ChainHead> {
        self.lock().streams.clone()
    }

    async fn queue(
        &self,
        mut batch: Batch,
        heads: BTreeMap<Stream, ChainHead>,
        facts: Vec<Fact>,
        index: Option<u64>,
    ) -> Result<(), LedgerError> {
        for (stream, head) in &heads {
            batch.put_fresh(head_key(stream), encode_head(head));
        }
        if let Some(index) = index {
            batch.put_fresh(index_key(), index.to_le_bytes().to_vec());
        }
        let (ticket, index) = {
            let mut known = self.lock();
            known.streams.extend(heads);
            known.queued += 1;
            known.index = known.index.max(index.unwrap_or(0));
            let ticket = known.queued;
            known.pending.insert(ticket, facts);
            (ticket, index)
        };
        let (durable, known) = (Arc::clone(&self.durable), Arc::clone(&self.heads));
        let done = Box::new(move |result: Result<(), WriteError>| {
            if result.is_ok() {
                lock(&known).pending.remove(&ticket);
            }
            durable.send_modify(|durable| match result {
                Ok(()) => {
                    durable.batches = ticket;
                    durable.index = durable.index.max(index.unwrap_or(0));
                }
                Err(_) => durable.stopped = true,
            });
        });
        let queued = self.engine.submit(batch, Priority::Unhurried, done).await;
        if queued.is_err() {
            self.durable.send_modify(|durable| durable.stopped = true);
        }
        Ok(queued?)
    }

    fn check_same(&self, fact: &Fact, bytes: &[u8]) -> Result<(), LedgerError> {
        // One that is still queued was made by this very process from the same entry.
        let kept = self.engine.get(&fact_key(&fact.stream, fact.sequence))?;
        if kept.is_some_and(|kept| kept != bytes) {
            return Err(LedgerError::Differs {
                stream: fact.stream.clone(),
                sequence: fact.sequence,
            });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Heads> {
        lock(&self.heads)
    }
}

fn lock(heads: &Mutex<Heads>) -> MutexGuard<'_, Heads> {
    heads.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fact_key(stream: &Stream, sequence: u64) -> Key {
    Key::of(Area::Facts)
        .text(&stream.to_string())
        .number(sequence)
}

fn head_key(stream: &Stream) -> Key {
    Key::of(Area::Heads).text(&stream.to_string())
}

fn index_key() -> Key {
    Key::of(Area::Raft).text("ledger")
}

fn encode_head(head: &ChainHead) -> Vec<u8> {
    let mut bytes = head.sequence.to_le_bytes().to_vec();
    bytes.extend_from_slice(head.digest.as_bytes());
    bytes
}

fn decode_head(key: &Key, value: &[u8]) -> Result<(Stream, ChainHead), LedgerError> {
    // The key is the area, a length and the name.
    let name = key.as_bytes().get(2..).unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let decoded = || {
        let (sequence, digest) = value.split_at_checked(8)?;
        Some(ChainHead {
            sequence: decode_number(sequence)?,
            digest: Digest::from_bytes(digest.try_into().ok()?),
        })
    };
    match (name.parse(), decoded()) {
        (Ok(stream), Some(head)) => Ok((stream, head)),
        _ => Err(LedgerError::Head { name }),
    }
}

fn decode_number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
