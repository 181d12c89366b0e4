//! Raft's own conformance suite on the real stores, and power cuts while they are at work.

use std::{path::Path, sync::Arc};

use dotmac_domain::audit::Stream;
use dotmac_runtime::disk::{SharedDisk, SystemDisk};
use openraft::{
    CommittedLeaderId, EntryPayload, LogIdOptionExt as _, RaftLogReader as _,
    RaftSnapshotBuilder as _, StorageHelper, Vote,
    storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _},
    testing::{StoreBuilder, Suite},
};

use super::{
    cluster_tests::fleet::{founding, note},
    log_store::LogStore,
    state_machine::{StateMachine, View, check_facts},
    types::{Entry, Failure, LogId, Proposal, TypeConfig},
};
use crate::storage::{
    directory::Directory,
    engine::{Engine, EngineConfig, FatalError, OnFatal, fail_on_fatal},
    fuse::Fuse,
    ledger::Ledger,
    snapshots::Snapshots,
};

struct Stores {
    engine: Engine,
    ledger: Ledger,
    log: LogStore,
    machine: StateMachine,
    view: View,
}

fn open(home: &Path, disk: SharedDisk, on_fatal: OnFatal) -> Stores {
    let directory = Directory::open(home, disk.as_ref()).unwrap();
    let config = EngineConfig::default();
    let engine = Engine::open(directory, &config, disk.clone(), on_fatal).unwrap();
    open_on(engine, home, disk)
}

fn open_on(engine: Engine, home: &Path, disk: SharedDisk) -> Stores {
    let ledger = Ledger::open(engine.clone()).unwrap();
    let snapshots = Snapshots::open(home, disk).unwrap();
    let log = LogStore::open(engine.clone(), ledger.clone()).unwrap();
    let (machine, view) = StateMachine::open(ledger.clone(), snapshots).unwrap();
    Stores {
        engine,
        ledger,
        log,
        machine,
        view,
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), Failure> {
        let home = tempfile::tempdir().unwrap();
        let stores = open(home.path(), SystemDisk::shared(), fail_on_fatal());
        Ok((home, stores.log, stores.machine))
    }
}

#[test]
fn the_stores_conform_to_what_raft_expects() {
    Suite::test_all(Builder).unwrap();
}

/// The records of the simulation in the place of the database.
#[cfg(feature = "simulation")]
struct InMemory;

#[cfg(feature = "simulation")]
impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for InMemory {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), Failure> {
        let home = tempfile::tempdir().unwrap();
        let records = crate::storage::engine::MemoryRecords::default();
        let config = EngineConfig::default();
        let engine = Engine::simulate(records, &config, fail_on_fatal()).unwrap();
        let stores = open_on(engine, home.path(), SystemDisk::shared());
        Ok((home, stores.log, stores.machine))
    }
}

#[cfg(feature = "simulation")]
#[test]
fn the_stores_of_the_simulation_conform_to_what_raft_expects() {
    Suite::test_all(InMemory).unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn entry(index: u64) -> Entry {
    let envelopes = match index {
        0 => vec![founding()],
        _ => vec![note(2 * index), note(2 * index + 1)],
    };
    Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(Proposal {
            envelopes: envelopes.into(),
        }),
    }
}

/// Appends, commits, applies, snapshots and purges until the power goes; gives the last acknowledged entry.
async fn work_until_cut(stores: &mut Stores, first: u64, acknowledged: &mut Option<u64>) {
    let Stores { log, machine, .. } = stores;
    for index in first..first + 400 {
        let entry = entry(index);
        if log.blocking_append([entry.clone()]).await.is_err() {
            return;
        }
        *acknowledged = Some(index);
        if log.save_committed(Some(log_id(index))).await.is_err()
            || machine.apply([entry]).await.is_err()
        {
            return;
        }
        if index % 7 == 6 {
            let built = machine.get_snapshot_builder().await.build_snapshot().await;
            if built.is_err() || log.purge(log_id(index.saturating_sub(3))).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn nobody_leads_after_a_start_and_votes_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let (led, stands) = (Vote::new_committed(3, 1), Vote::new(3, 1));
    let mut stores = open(home.path(), SystemDisk::shared(), fail_on_fatal());
    stores.log.save_vote(&led).await.unwrap();
    stores.engine.close().await;
    drop(stores);
    let stores = open(home.path(), SystemDisk::shared(), fail_on_fatal());
    let mut log = stores.log.clone().leaderless();
    assert_eq!(log.read_vote().await.unwrap(), Some(stands));
    stores.engine.close().await;
}

#[tokio::test]
async fn law_1_entries_and_their_facts_survive_power_cuts() {
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for round in 0..30_u64 {
        let disk = Arc::new(Fuse::new(home.path()));
        let mut stores = open(home.path(), disk.clone(), Arc::new(|_: &FatalError| {}));
        let mut helper = StorageHelper::new(&mut stores.log, &mut stores.machine);
        helper.get_initial_state().await.unwrap();
        let last = stores
            .log
            .get_log_state()
            .await
            .unwrap()
            .last_log_id
            .index();
        assert!(
            last >= acknowledged,
            "round {round}: {last:?} after {acknowledged:?}"
        );
        // Whatever was committed and not noted as such is applied now, as a leader would have it applied.
        let next = stores.machine.applied_state().await.unwrap().0.next_index();
        let end = last.map_or(0, |last| last + 1);
        let entries = stores.log.try_get_log_entries(next..end).await.unwrap();
        stores.machine.apply(entries).await.unwrap();
        stores.ledger.settle().await.unwrap();
        let state = stores.view.state();
        check_facts(&state, &stores.ledger).unwrap();
        let facts = stores.ledger.read(&Stream::Platform, 0, 1_000).unwrap();
        let sequences: Vec<u64> = facts.iter().map(|fact| fact.sequence).collect();
        let expected = state
            .streams
            .get(&Stream::Platform)
            .map_or(0, |head| head.sequence);
        assert_eq!(
            sequences,
            (1..=expected).collect::<Vec<_>>(),
            "round {round}"
        );
        assert_eq!(
            expected,
            last.map_or(0, |last| 2 * last + 1),
            "round {round}"
        );

        disk.blow_after(5 + round * 7 % 23);
        work_until_cut(&mut stores, end, &mut acknowledged).await;
        stores.engine.close().await;
        drop(stores);
        assert!(disk.is_blown(), "round {round} ended without a cut");
        disk.cut_power();
    }
}
