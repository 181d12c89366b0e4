//! Raft's own conformance suite on the real stores.

use dotmac_runtime::disk::SystemDisk;
use openraft::testing::{StoreBuilder, Suite};

use super::{
    log_store::LogStore,
    state_machine::StateMachine,
    types::{Failure, TypeConfig},
};
use crate::storage::{
    directory::Directory,
    engine::{Engine, EngineConfig, abort_on_fatal},
    ledger::Ledger,
    snapshots::Snapshots,
};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), Failure> {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::open(home.path(), &SystemDisk).unwrap();
        let config = EngineConfig::default();
        let engine =
            Engine::open(directory, &config, SystemDisk::shared(), abort_on_fatal()).unwrap();
        let ledger = Ledger::open(engine.clone()).unwrap();
        let snapshots = Snapshots::open(home.path(), SystemDisk::shared()).unwrap();
        let log = LogStore::open(engine, ledger.clone()).unwrap();
        let (machine, _) = StateMachine::open(ledger, snapshots).unwrap();
        Ok((home, log, machine))
    }
}

#[test]
fn the_stores_conform_to_what_raft_expects() {
    Suite::test_all(Builder).unwrap();
}
