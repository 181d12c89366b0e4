//! What holds for the ledger.

use dotmac_domain::{
    audit::{AuditRecord, Entry, Fact, Link, Stream},
    envelope::Actor,
};
use dotmac_protocol::{codec, digest::Digest, record::ChainHead, time::Timestamp};
use dotmac_runtime::disk::SystemDisk;

use super::{Ledger, LedgerError};
use crate::storage::{
    directory::Directory,
    engine::{Batch, Engine, EngineConfig, Priority, fail_on_fatal},
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

#[tokio::test]
async fn facts_of_another_past_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (_engine, ledger) = open(home.path());
    let record = |sequence, previous| {
        let entry = Entry {
            actor: Actor::Planner,
            action: "test.noted".into(),
            tenant: None,
            unit: None,
            request: "f0".repeat(16).parse().unwrap(),
            detail: String::new(),
            warrant: None,
        };
        let at = Timestamp(1);
        let record = AuditRecord {
            sequence,
            previous,
            at,
            entry,
        };
        Fact {
            stream: Stream::Platform,
            sequence,
            link: Link::Entry(codec::encode(&record).unwrap()),
        }
    };
    let first = record(1, Digest::ZERO);
    ledger.check_follows(std::slice::from_ref(&first)).unwrap();
    ledger
        .append(1, std::slice::from_ref(&first))
        .await
        .unwrap();
    let second = record(2, first.link.digest());
    ledger.check_follows(&[first, second]).unwrap();
    let other = ledger.check_follows(&[record(2, Digest::of(b"another past"))]);
    assert!(matches!(other, Err(LedgerError::Forks { sequence: 2, .. })));
}

#[tokio::test]
async fn the_front_of_a_chain_goes_in_bounded_steps_and_the_rest_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (engine, ledger) = open(home.path());
    let count = super::retention::STEP + 500;
    for sequence in 1..=count {
        let facts = [fact(&Stream::Platform, sequence, "old")];
        ledger.append(sequence, &facts).await.unwrap();
    }
    ledger.settle().await.unwrap();
    assert!(!ledger.sweep().await.unwrap(), "nothing was asked for");
    let through = count - 10;
    ledger.drop_through(&Stream::Platform, through);
    assert!(ledger.sweep().await.unwrap(), "one step is not all");
    assert!(!ledger.sweep().await.unwrap());
    engine
        .write(Batch::new(), Priority::Essential)
        .await
        .unwrap();
    let first = |ledger: &Ledger| ledger.read(&Stream::Platform, 0, 1).unwrap()[0].sequence;
    assert_eq!(first(&ledger), through + 1);
    ledger
        .append(count + 1, &[fact(&Stream::Platform, count + 1, "new")])
        .await
        .unwrap();
    ledger.settle().await.unwrap();
    engine.close().await;
    drop((engine, ledger));
    let (engine, ledger) = open(home.path());
    assert_eq!(first(&ledger), through + 1);
    assert_eq!(ledger.read(&Stream::Platform, 0, 100).unwrap().len(), 11);
    // Whoever is told more than there is keeps what is not written yet.
    ledger.drop_through(&Stream::Platform, u64::MAX);
    while ledger.sweep().await.unwrap() {}
    let next = count + 2;
    ledger
        .append(next, &[fact(&Stream::Platform, next, "newer")])
        .await
        .unwrap();
    ledger.settle().await.unwrap();
    assert_eq!(first(&ledger), next);
    engine.close().await;
}

#[tokio::test]
async fn a_chain_without_its_front_goes_on_behind_it() {
    let home = tempfile::tempdir().unwrap();
    let (engine, ledger) = open(home.path());
    let old = fact(&Stream::Platform, 1, "old");
    ledger.append(1, std::slice::from_ref(&old)).await.unwrap();
    let behind = fact(&Stream::Platform, 5, "behind");
    let gap = ledger.append(2, std::slice::from_ref(&behind)).await;
    assert!(matches!(
        gap,
        Err(LedgerError::Gap {
            head: 1,
            found: 5,
            ..
        })
    ));
    let head = ChainHead {
        sequence: 4,
        digest: behind.link.digest(),
    };
    ledger.begin_behind(&Stream::Platform, head).await.unwrap();
    ledger
        .append(2, std::slice::from_ref(&behind))
        .await
        .unwrap();
    while ledger.sweep().await.unwrap() {}
    ledger.settle().await.unwrap();
    assert_eq!(ledger.read(&Stream::Platform, 0, 9).unwrap(), [behind]);
    // What is here already is newer.
    ledger
        .begin_behind(&Stream::Platform, ChainHead::START)
        .await
        .unwrap();
    assert_eq!(ledger.head(&Stream::Platform).unwrap().sequence, 5);
    engine.close().await;
}
