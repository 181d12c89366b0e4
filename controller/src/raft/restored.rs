//! A store that begins from a restored State: its facts, one snapshot at the index and in the term that come after the
//! backup's, the new members, and a vote that was given to nobody else. It refuses a directory that is there already: a
//! node that forgets its vote could vote twice.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use dotmac_domain::{
    State,
    audit::{Fact, Stream},
    command::NodeCard,
};
use dotmac_protocol::{codec, ids::NodeId, record::ChainHead};
use dotmac_runtime::{causes, disk::SharedDisk};
use openraft::{CommittedLeaderId, Vote};
use thiserror::Error;

use super::{
    config::{START_BYTES_MIN, StartError, nodes},
    log_store::LogStore,
    state_machine::{StateMachineError, check_facts, write_state},
    types::{Failure, LogId, Membership, Meta, SnapshotHeader},
};
use crate::storage::{
    directory::Directory,
    engine::{Engine, EngineConfig, OnFatal, free_bytes},
    ledger::{Ledger, LedgerError},
    snapshots::{SnapshotError, Snapshots},
};

/// Where and as what a restored store begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The new directory.
    pub directory: PathBuf,
    /// Whose store it is.
    pub node: NodeId,
    /// All controllers; each votes.
    pub members: Vec<NodeCard>,
    /// The term of the snapshot.
    pub term: u64,
    /// The index of the snapshot.
    pub index: u64,
}

/// Why a restored store cannot be written.
#[derive(Debug, Error)]
pub enum RestoredError {
    /// There is a store already.
    #[error(
        "{0} exists: nothing is restored over a store, for a controller that forgets its vote could vote twice"
    )]
    Exists(PathBuf),
    /// There is not enough room for it.
    #[error(
        "{} has room for {free_bytes} bytes, and the restored store takes {needed_bytes} at least: make room there, or \
         give the controller another data_dir",
        path.display()
    )]
    Room {
        /// Where it would lie.
        path: PathBuf,
        /// What is free there.
        free_bytes: u64,
        /// What it takes.
        needed_bytes: u64,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] StartError),
    /// The facts cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The snapshot cannot be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// State and facts do not fit.
    #[error(transparent)]
    State(#[from] StateMachineError),
    /// The vote cannot be written.
    #[error("the vote cannot be written: {0}")]
    Vote(String),
    /// The disk failed while it was written.
    #[error("the disk below {} failed: {cause}", path.display())]
    Disk {
        /// The store's directory.
        path: PathBuf,
        /// What the first write said that failed.
        cause: String,
    },
    /// A blocking task ended early.
    #[error("the work was interrupted")]
    Interrupted,
}

/// A restored store that is being written. It ends with [`RestoredStore::close`], whatever came before: until then a
/// thread writes below its directory.
#[derive(Debug)]
pub struct RestoredStore {
    beginning: Beginning,
    disk: SharedDisk,
    engine: Engine,
    ledger: Ledger,
    /// What the first write said that failed.
    fatal: Arc<OnceLock<String>>,
}

/// Whether a directory has room for a store of a State and facts of so many bytes.
///
/// # Errors
/// When it has not: nothing was touched.
pub fn check_room(path: &Path, bytes: u64) -> Result<(), RestoredError> {
    let (free_bytes, needed_bytes) = (free_bytes(path), bytes.saturating_add(START_BYTES_MIN));
    if free_bytes < needed_bytes {
        let path = path.to_owned();
        return Err(RestoredError::Room {
            path,
            free_bytes,
            needed_bytes,
        });
    }
    Ok(())
}

impl RestoredStore {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    pub async fn create(beginning: Beginning, disk: SharedDisk) -> Result<Self, RestoredError> {
        if beginning.directory.exists() {
            return Err(RestoredError::Exists(beginning.directory));
        }
        let (path, shared) = (beginning.directory.clone(), disk.clone());
        let fatal = Arc::new(OnceLock::new());
        let on_fatal = keep_fatal(Arc::clone(&fatal));
        let opening = tokio::task::spawn_blocking(move || {
            let directory = Directory::open(&path, shared.as_ref())?;
            let engine = Engine::open(directory, &EngineConfig::default(), shared, on_fatal)?;
            let ledger = Ledger::open(engine.clone())?;
            Ok::<_, StartError>((engine, ledger))
        });
        let (engine, ledger) = opening.await.map_err(|_| RestoredError::Interrupted)??;
        Ok(Self {
            beginning,
            disk,
            engine,
            ledger,
            fatal,
        })
    }

    /// Takes facts, in the order of their streams. A stream may begin with a later one than its first: those before were
    /// dropped after their retention.
    ///
    /// # Errors
    /// When they do not follow each other, or the disk fails.
    pub async fn append(&self, facts: &[Fact]) -> Result<(), RestoredError> {
        let mut begun: Option<&Stream> = None;
        for fact in facts {
            if begun == Some(&fact.stream) {
                continue;
            }
            begun = Some(&fact.stream);
            if fact.sequence > 1 && self.ledger.head(&fact.stream).is_none() {
                let (sequence, digest) = (
                    fact.sequence - 1,
                    fact.link.place().map_err(LedgerError::from)?.1,
                );
                let before = ChainHead { sequence, digest };
                self.ledger.begin_behind(&fact.stream, before).await?;
            }
        }
        Ok(self.ledger.append(self.beginning.index, facts).await?)
    }

    /// Writes the State: once the store is closed, a controller can start from it.
    ///
    /// # Errors
    /// When the facts are not those of the State, or the disk fails.
    pub async fn finish(&self, state: State) -> Result<(), RestoredError> {
        // A stream may have ended long ago: then nothing of it is left but its end.
        for (stream, retained) in &state.retained {
            self.ledger.begin_behind(stream, retained.dropped).await?;
        }
        self.ledger.settle().await?;
        check_facts(&state, &self.ledger)?;
        let Beginning {
            directory,
            node,
            members,
            term,
            index,
        } = &self.beginning;
        let (term, index) = (*term, *index);
        let voters: BTreeSet<u64> = members.iter().map(|card| card.node.0).collect();
        let first = voters.first().copied().unwrap_or_default();
        let log_id = LogId::new(CommittedLeaderId::new(term, first), index);
        let members = openraft::Membership::new(vec![voters], nodes(members));
        let meta = Meta {
            last_log_id: Some(log_id),
            last_membership: Membership::new(Some(log_id), members),
            snapshot_id: format!("{term}-{index}"),
        };
        let header =
            codec::encode(&SnapshotHeader(meta)).expect("the members of a cluster fit in a header");
        let snapshots = Snapshots::open(directory, self.disk.clone())?;
        let writing = tokio::task::spawn_blocking(move || {
            snapshots.write(index, &header, |body| write_state(&state, body))
        });
        writing.await.map_err(|_| RestoredError::Interrupted)??;
        let failed = |error: Failure| RestoredError::Vote(error.to_string());
        let log =
            LogStore::open(self.engine.clone(), self.ledger.clone()).map_err(StartError::from)?;
        log.begin_at(log_id, Vote::new(term, node.0))
            .await
            .map_err(failed)
    }

    /// Ends the store's thread: behind this nothing is written below its directory any more.
    ///
    /// # Errors
    /// What the disk said, when it failed at any time since the store was made. That counts before every other error, for
    /// those come from it.
    pub async fn close(&self) -> Result<(), RestoredError> {
        self.engine.close().await;
        match self.fatal.get() {
            None => Ok(()),
            Some(cause) => Err(RestoredError::Disk {
                path: self.beginning.directory.clone(),
                cause: cause.clone(),
            }),
        }
    }
}

/// Keeps the first error for [`RestoredStore::close`]. Nobody relies on this store yet, so the process need not end.
fn keep_fatal(kept: Arc<OnceLock<String>>) -> OnFatal {
    Arc::new(move |error| {
        kept.get_or_init(|| causes::in_full(error));
    })
}
