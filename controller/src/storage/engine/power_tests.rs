//! Law 1, acknowledged is durable: power cuts under concurrent writers, and the proof that the test would notice.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use dotmac_runtime::supervise;

use super::{Area, Batch, Engine, EngineConfig, Key, Priority, WriteError};
use crate::storage::{directory::Directory, fuse::Fuse};

type Acknowledged = BTreeMap<u64, u8>;

fn open(home: &Path, disk: Arc<Fuse>) -> Engine {
    let directory = Directory::open(home, disk.as_ref()).unwrap();
    let on_fatal = Arc::new(|_: &super::FatalError| {});
    Engine::open(directory, &EngineConfig::default(), disk, on_fatal).unwrap()
}

fn key(number: u64) -> Key {
    Key::of(Area::Log).number(number)
}

/// What writer `writer` stores: two keys at once, of which one spans several chunks.
fn pair(number: u64, round: u8) -> Batch {
    let mut batch = Batch::new();
    batch.put(key(2 * number), vec![round; 200]);
    batch.put(key(2 * number + 1), vec![round; 9_000 + usize::from(round)]);
    batch
}

/// Writes with eight writers until the power is cut; gives what was acknowledged.
async fn write_until_cut(engine: &Engine, round: u8) -> Acknowledged {
    let acknowledged = Arc::new(Mutex::new(Acknowledged::new()));
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let (engine, acknowledged) = (engine.clone(), acknowledged.clone());
            supervise::spawn("writer", async move {
                for step in 0..1_000 {
                    let number = writer + 8 * (step % 20);
                    match engine.write(pair(number, round), Priority::New).await {
                        Ok(()) => acknowledged.lock().unwrap().insert(number, round),
                        Err(WriteError::Stopped) => return,
                        Err(error) => panic!("{error}"),
                    };
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    Arc::into_inner(acknowledged).unwrap().into_inner().unwrap()
}

/// How many acknowledged writes are missing; asserts that no batch is there by half.
fn lost(engine: &Engine, acknowledged: &Acknowledged, round: u8) -> usize {
    let mut lost = 0;
    for number in 0..160 {
        let first = engine.get(&key(2 * number)).unwrap();
        let second = engine.get(&key(2 * number + 1)).unwrap();
        let first = first.map(|value| (value[0], value.len()));
        let second = second.map(|value| (value[0], value.len() - usize::from(value[0])));
        assert_eq!(
            first.map(|one| one.0),
            second.map(|one| one.0),
            "half a batch"
        );
        assert!(first.is_none_or(|(_, length)| length == 200));
        assert!(second.is_none_or(|(_, length)| length == 9_000));
        if let Some(expected) = acknowledged.get(&number) {
            // A write of this round that was not acknowledged may be there too, never an older one.
            let found = first.map(|one| one.0);
            if found != Some(*expected) && found != Some(round) {
                lost += 1;
            }
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_1_acknowledged_writes_survive_power_cuts() {
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut cuts = 0;
    for round in 1..=24_u8 {
        let disk = Arc::new(Fuse::new(home.path()));
        let engine = open(home.path(), disk.clone());
        assert_eq!(lost(&engine, &acknowledged, round - 1), 0, "round {round}");
        disk.blow_after(3 + u64::from(round) % 7);
        let written = write_until_cut(&engine, round).await;
        assert!(!written.is_empty());
        acknowledged.extend(written);
        engine.close().await;
        drop(engine);
        cuts += usize::from(disk.is_blown());
        disk.cut_power();
    }
    assert_eq!(cuts, 24, "every round must end in a cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sync_the_same_test_loses_acknowledged_writes() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(Fuse::new(home.path()));
    let engine = open(home.path(), disk.clone());
    disk.lose_all_syncs();
    disk.blow_after(20);
    let acknowledged = write_until_cut(&engine, 1).await;
    engine.close().await;
    drop(engine);
    disk.cut_power();
    let engine = open(home.path(), disk);
    assert_eq!(lost(&engine, &acknowledged, 1), acknowledged.len());
    assert!(!acknowledged.is_empty());
}
