//! What older programs left on a disk, opened by this one: `tests/golden/VERSION.tar.xz`, written by real controllers and
//! never written again (`tests/golden/make.sh`). Log and snapshot have to tell the same, byte for byte, and the ledger
//! holds exactly the facts of the log.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use dotmac_domain::{
    State,
    audit::{Fact, Stream},
    command,
};
use dotmac_runtime::disk::SystemDisk;
use openraft::{
    EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _,
    storage::{RaftLogStorage as _, RaftStateMachine as _},
};

use super::{
    config::{RaftConfig, StartError},
    state_machine::{check_facts, read_state},
    stores::Stores,
    types::Entry,
};
use crate::{
    bootstrap,
    config::Config,
    metrics::Metrics,
    storage::{
        engine::{EngineConfig, fail_on_fatal},
        ledger::Ledger,
    },
    traces::Traces,
};

/// The versions whose data is kept.
const VERSIONS: [&str; 1] = ["v1"];

/// A home in which one controller of that version ran, and its configuration.
fn unpacked(version: &str) -> (tempfile::TempDir, Config) {
    let archive = folder().join(format!("{version}.tar.xz"));
    let home = tempfile::tempdir().unwrap();
    let unpacking = Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(home.path())
        .status()
        .expect("tar and xz are needed to read golden data");
    assert!(
        unpacking.success(),
        "{} cannot be unpacked",
        archive.display()
    );
    let config = home
        .path()
        .join(version)
        .join("controller-1/controller.toml");
    let config = Config::load(&config).unwrap();
    (home, config)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

async fn open(config: &Config) -> Stores {
    try_open(config).await.unwrap()
}

async fn try_open(config: &Config) -> Result<Stores, StartError> {
    let founding = bootstrap::read_beginning(&config.genesis).unwrap();
    assert_eq!(founding.rules, 1);
    let keys = bootstrap::load_keys(config).unwrap();
    let card = founding.genesis.card(config.node).unwrap();
    assert_eq!(card.incarnation, keys.incarnation);
    let config = RaftConfig {
        node: config.node,
        cluster: founding.genesis.cluster.clone(),
        members: founding.members,
        founds: founding.founds,
        directory: config.data_dir.join("store"),
        mark: None,
        engine: EngineConfig::default(),
        snapshot_every: super::SNAPSHOT_EVERY,
        traces: Traces::default(),
        metrics: Metrics::new(&dotmac_runtime::clock::Clock::system())
            .raft
            .clone(),
    };
    Stores::open(&config, SystemDisk::shared(), fail_on_fatal()).await
}

/// What a log makes of nothing: the State at each index that is asked for and at its end, and all facts.
fn replayed(entries: &[Entry], at: u64) -> (State, State, BTreeMap<Stream, Vec<Fact>>) {
    let (mut state, mut then) = (State::default(), State::default());
    let mut facts: BTreeMap<Stream, Vec<_>> = BTreeMap::new();
    for entry in entries {
        if let EntryPayload::Normal(proposal) = &entry.payload {
            for envelope in proposal.envelopes.iter() {
                for fact in state.apply(envelope).facts {
                    facts.entry(fact.stream.clone()).or_default().push(fact);
                }
            }
        }
        if entry.log_id.index == at {
            then = state.clone();
        }
    }
    (then, state, facts)
}

/// All facts of a stream.
fn all_facts(ledger: &Ledger, stream: &Stream) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    loop {
        let after = facts.last().map_or(0, |fact| fact.sequence);
        let more = ledger.read(stream, after, 500).unwrap();
        if more.is_empty() {
            return facts;
        }
        facts.extend(more);
    }
}

#[tokio::test]
async fn what_older_programs_left_is_opened_and_tells_the_same() {
    let kept: Vec<_> = std::fs::read_dir(folder()).unwrap().collect();
    assert_eq!(
        kept.len(),
        VERSIONS.len() + 1,
        "golden data that no test opens: {kept:?}"
    );
    for version in VERSIONS {
        let (_home, config) = unpacked(version);
        let mut stores = open(&config).await;
        let entries = stores.log.try_get_log_entries(0..).await.unwrap();
        assert_eq!(
            entries[0].log_id.index, 0,
            "the log of golden data is whole"
        );
        let file = stores.snapshots.newest().unwrap().expect("a snapshot");
        let (index, _) = stores.machine.applied_state().await.unwrap();
        let index = index.unwrap().index;
        let (then, last, facts) = replayed(&entries, index);

        let mut written = Vec::new();
        file.body().unwrap().read_to_end(&mut written).unwrap();
        assert_eq!(
            then.to_bytes().unwrap(),
            written,
            "{version}: the log says otherwise"
        );
        assert_eq!(read_state(&file).unwrap().digest(), then.digest());
        assert_eq!(last.rules, 1);
        check_facts(&last, &stores.ledger).unwrap();
        assert!(facts.len() > 5 && facts.values().map(Vec::len).sum::<usize>() > 2_000);
        for (stream, made) in &facts {
            let kept = all_facts(&stores.ledger, stream);
            let (last, first) = (made.len(), made[0].sequence);
            assert_eq!((kept.len(), first), (last, 1), "{version}: {stream}");
            assert!(
                &kept == made,
                "{version}: {stream} holds other facts than its log makes"
            );
        }
        assert_eq!(stores.ledger.heads().len(), facts.len());

        // What is still in the log is applied, and a snapshot of now is what the program of before can read.
        let tail = entries
            .into_iter()
            .filter(|entry| entry.log_id.index > index);
        stores.machine.apply(tail).await.unwrap();
        assert_eq!(stores.view.state().digest(), last.digest());
        let mut builder = stores.machine.get_snapshot_builder().await;
        let built = builder.build_snapshot().await.unwrap();
        let file = built.snapshot.file.unwrap();
        let mut first = [0; 1];
        file.body().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(first, [1]);
        assert_eq!(read_state(&file).unwrap(), last);
        let format = config.data_dir.join("store/FORMAT");
        let format = std::fs::read_to_string(format).unwrap();
        assert!(format.ends_with(" 1\n"), "{format}");
        assert!(matches!(
            &last.genesis,
            Some(command::Genesis { cluster, .. }) if cluster.as_str() == "dotmac"
        ));
        stores.engine.close().await;
    }
}

#[tokio::test]
async fn without_a_readable_snapshot_and_the_log_before_it_nothing_is_made_up() {
    let (_home, config) = unpacked(VERSIONS[0]);
    let mut stores = open(&config).await;
    let entries = stores.log.try_get_log_entries(700..701).await.unwrap();
    stores.log.purge(entries[0].log_id).await.unwrap();
    let path = stores
        .snapshots
        .newest()
        .unwrap()
        .unwrap()
        .path()
        .to_owned();
    stores.engine.close().await;
    drop(stores);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let refused = try_open(&config).await.err().expect("it opened");
    let StartError::Gap {
        snapshot, purged, ..
    } = &refused
    else {
        panic!("{refused}");
    };
    assert_eq!((*snapshot, *purged), (0, 700));
}
