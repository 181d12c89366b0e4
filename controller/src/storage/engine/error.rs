//! Why the engine does not open, read or write.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why the database cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The database refuses its files.
    #[error("the database in {path} cannot be opened: {detail}")]
    Damaged {
        /// Which folder.
        path: PathBuf,
        /// What the database says.
        detail: String,
    },
    /// Writes that were acknowledged are missing.
    #[error(
        "the database in {path} went back to commit {found}, but commit {expected} was acknowledged: \
         its files are damaged"
    )]
    WentBack {
        /// Which folder.
        path: PathBuf,
        /// The last commit in the database.
        found: u64,
        /// The last one that was acknowledged.
        expected: u64,
    },
}

/// Why a value cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A record fails its checksum or misses a part.
    #[error("the record with key {key} is damaged")]
    Corrupt {
        /// The key in hexadecimal digits.
        key: String,
    },
    /// The database reports an error.
    #[error("the database cannot be read")]
    Database(#[source] sled::Error),
}

/// Why a batch is not stored.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// The disk's reserve is reached; reading goes on.
    #[error("the disk has {free_bytes} bytes left, below the reserve of {reserve_bytes}")]
    Reserve {
        /// What is free.
        free_bytes: u64,
        /// What must stay free.
        reserve_bytes: u64,
    },
    /// The batch exceeds [`super::BATCH_BYTES_MAX`].
    #[error("the batch has {found} bytes, allowed are {allowed}")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        allowed: usize,
    },
    /// The engine is closed, or it failed before; whether this batch is on disk is unknown.
    #[error("the storage has stopped")]
    Stopped,
}

/// A failed write or sync, after which the process must end.
#[derive(Debug, Error)]
pub enum FatalError {
    /// The database refused a batch or a flush.
    #[error("the database cannot be written")]
    Database(#[source] sled::Error),
    /// The file could not be synced.
    #[error("cannot sync {path}")]
    Sync {
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record that must be replaced cannot be read.
    #[error("a record to replace cannot be read")]
    Read(#[source] ReadError),
    /// The database panicked.
    #[error("the database panicked")]
    Panicked,
}
