//! Where the engine's records lie: in the database, or, for the simulation alone, in memory that loses what was not synced.
//!
//! It knows bytes and their order, and refuses to know what a record means.

#[cfg(feature = "simulation")]
mod memory;

use std::ops::Range;

use sled::IVec;

#[cfg(feature = "simulation")]
pub use memory::MemoryRecords;

/// What is asked of whoever keeps the records.
type Found<T> = Result<T, sled::Error>;

/// The records; clones share them.
#[derive(Clone)]
pub(super) enum Records {
    /// In the database.
    Database(sled::Db),
    /// In memory.
    #[cfg(feature = "simulation")]
    Memory(MemoryRecords),
}

/// Changes that become visible together: what each key holds from then on, `None` for nothing.
pub(super) type Commit = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Records {
    pub(super) fn get(&self, key: &[u8]) -> Found<Option<IVec>> {
        match self {
            Self::Database(database) => database.get(key),
            #[cfg(feature = "simulation")]
            Self::Memory(memory) => Ok(memory.get(key)),
        }
    }

    /// The records of a half-open range, in order.
    pub(super) fn range(&self, bounds: Range<Vec<u8>>) -> Walk {
        match self {
            Self::Database(database) => Walk::Database(Box::new(database.range(bounds))),
            #[cfg(feature = "simulation")]
            Self::Memory(memory) => Walk::Memory(memory.range(bounds)),
        }
    }

    /// The last record of a half-open range.
    pub(super) fn last(&self, bounds: Range<Vec<u8>>) -> Option<Found<(IVec, IVec)>> {
        match self {
            Self::Database(database) => database.range(bounds).next_back(),
            #[cfg(feature = "simulation")]
            Self::Memory(memory) => memory.last(bounds).map(Ok),
        }
    }

    /// The keys that begin like this.
    pub(super) fn keys_of(&self, prefix: &[u8]) -> Found<Vec<IVec>> {
        match self {
            Self::Database(database) => database.scan_prefix(prefix).keys().collect(),
            #[cfg(feature = "simulation")]
            Self::Memory(memory) => Ok(memory.keys_of(prefix)),
        }
    }

    /// Makes changes visible and hands them to the system. Nothing of them is durable before the next sync.
    pub(super) fn commit(&self, commit: Commit) -> Found<()> {
        match self {
            Self::Database(database) => {
                let mut batch = sled::Batch::default();
                for (key, value) in commit {
                    match value {
                        Some(value) => batch.insert(key, value),
                        None => batch.remove(key),
                    }
                }
                database.apply_batch(batch)?;
                database.flush().map(|_| ())
            }
            #[cfg(feature = "simulation")]
            Self::Memory(memory) => {
                memory.commit(commit);
                Ok(())
            }
        }
    }
}

/// Records on their way out.
pub(super) enum Walk {
    Database(Box<sled::Iter>),
    #[cfg(feature = "simulation")]
    Memory(std::vec::IntoIter<(IVec, IVec)>),
}

impl Iterator for Walk {
    type Item = Found<(IVec, IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Database(records) => records.next(),
            #[cfg(feature = "simulation")]
            Self::Memory(records) => records.next().map(Ok),
        }
    }
}
