//! What one controller keeps on its disk, opened in the order in which each part needs the one before.

use dotmac_runtime::disk::SharedDisk;

use super::{
    config::{RaftConfig, START_BYTES_MIN, StartError},
    log_store::LogStore,
    state_machine::{StateMachine, View},
};
use crate::storage::{
    directory::Directory,
    engine::{Engine, OnFatal, free_bytes},
    ledger::Ledger,
    snapshots::Snapshots,
};

/// Everything that lies on the disk, open.
pub(super) struct Stores {
    pub(super) engine: Engine,
    pub(super) ledger: Ledger,
    pub(super) snapshots: Snapshots,
    pub(super) log: LogStore,
    pub(super) machine: StateMachine,
    pub(super) view: View,
}

impl Stores {
    /// Opens it, away from the threads that serve.
    pub(super) async fn open(
        config: &RaftConfig,
        disk: SharedDisk,
        on_fatal: OnFatal,
    ) -> Result<Self, StartError> {
        let (path, limits) = (config.directory.clone(), config.engine.clone());
        let opening = tokio::task::spawn_blocking(move || {
            let free_bytes = free_bytes(&path);
            if free_bytes < START_BYTES_MIN {
                return Err(StartError::NoRoom { path, free_bytes });
            }
            let directory = Directory::open(&path, disk.as_ref())?;
            let engine = Engine::open(directory, &limits, disk.clone(), on_fatal)?;
            let stores = Self::on(engine, Snapshots::open(&path, disk)?)?;
            let (snapshot, purged) = (*stores.view.applied().borrow(), stores.log.purged());
            if snapshot < purged {
                return Err(StartError::Gap {
                    snapshot,
                    purged,
                    path,
                });
            }
            // A snapshot may have come here otherwise than over the log, by a restore.
            let rules = stores.view.state().rules;
            stores.engine.raise_version(rules)?;
            Ok(stores)
        });
        opening.await.unwrap_or(Err(StartError::Interrupted))
    }

    /// All that lies in an engine, and beside it. Blocks.
    pub(super) fn on(engine: Engine, snapshots: Snapshots) -> Result<Self, StartError> {
        let ledger = Ledger::open(engine.clone())?;
        let log = LogStore::open(engine.clone(), ledger.clone())?.leaderless();
        let (machine, view) = StateMachine::open(ledger.clone(), snapshots.clone())?;
        Ok(Self {
            engine,
            ledger,
            snapshots,
            log,
            machine,
            view,
        })
    }
}
