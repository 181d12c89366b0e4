//! What holds for the ledger.

use dotmac_domain::audit::{Fact, Link, Stream};
use dotmac_runtime::disk::SystemDisk;

use super::{Ledger, LedgerError};
use crate::storage::{
    directory::Directory,
    engine::{Engine, EngineConfig, fail_on_fatal},
};

fn open(home: &std::path::Path) -> (Engine, Ledger) {
    let directory = Directory::open(home, &SystemDisk).unwrap();
    let config = EngineConfig::default();
    let engine = Engine::open(directory, &config, SystemDisk::shared(), fail_on_fatal()).unwrap();
    let ledger = Ledger::open(engine.clone()).unwrap();
    (engine, ledger)
}

fn fact(stream: &Stream, sequence: u64, body: &str) -> Fact {
    Fact {
        stream: stream.clone(),
        sequence,
        link: Link::Entry(body.as_bytes().to_vec()),
    }
}

#[tokio::test]
async fn every_fact_is_kept_once_across_replay_and_restart() {
    let home = tempfile::tempdir().unwrap();
    let tenant: Stream = "tenant/demo-isp-0190a1b2".parse().unwrap();
    let facts = [
        fact(&Stream::Platform, 1, "a"),
        fact(&tenant, 1, "b"),
        fact(&Stream::Platform, 2, "c"),
    ];
    {
        let (engine, ledger) = open(home.path());
        ledger.append(7, &facts[..2]).await.unwrap();
        ledger.append(7, &facts[..2]).await.unwrap();
        ledger.append(8, &facts).await.unwrap();
        ledger.settle().await.unwrap();
        assert_eq!(ledger.synced_index(), 8);
        engine.close().await;
    }
    let (_engine, ledger) = open(home.path());
    assert_eq!(ledger.synced_index(), 8);
    ledger.append(8, &facts).await.unwrap();
    ledger
        .append(9, &[fact(&Stream::Platform, 3, "d")])
        .await
        .unwrap();
    ledger.settle().await.unwrap();
    let platform = ledger.read(&Stream::Platform, 0, 10).unwrap();
    assert_eq!(
        platform,
        [
            facts[0].clone(),
            facts[2].clone(),
            fact(&Stream::Platform, 3, "d")
        ]
    );
    assert_eq!(
        ledger.read(&Stream::Platform, 1, 1).unwrap(),
        [facts[2].clone()]
    );
    assert_eq!(ledger.read(&tenant, 0, 10).unwrap(), [facts[1].clone()]);
    assert_eq!(ledger.heads().len(), 2);
}

#[tokio::test]
async fn gaps_and_second_versions_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (_engine, ledger) = open(home.path());
    ledger
        .append(1, &[fact(&Stream::Platform, 1, "a")])
        .await
        .unwrap();
    ledger.settle().await.unwrap();
    assert!(matches!(
        ledger.append(2, &[fact(&Stream::Platform, 3, "c")]).await,
        Err(LedgerError::Gap {
            head: 1,
            found: 3,
            ..
        })
    ));
    assert!(matches!(
        ledger
            .append(2, &[fact(&Stream::Platform, 1, "other")])
            .await,
        Err(LedgerError::Differs { sequence: 1, .. })
    ));
}
