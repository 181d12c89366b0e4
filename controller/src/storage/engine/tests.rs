//! What holds for the engine while the power stays on.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use dotmac_runtime::disk::{Disk, SharedDisk, SystemDisk};

use super::{
    Area, BATCH_BYTES_MAX, Batch, Engine, EngineConfig, FOLDER, Key, OpenError, Priority,
    VALUE_BYTES_MAX, WriteError, fail_on_fatal,
};
use crate::storage::directory::Directory;

fn open_on(home: &Path, disk: SharedDisk) -> Engine {
    let directory = Directory::open(home, disk.as_ref()).unwrap();
    Engine::open(directory, &EngineConfig::default(), disk, fail_on_fatal()).unwrap()
}

fn open(home: &Path) -> Engine {
    open_on(home, SystemDisk::shared())
}

fn key(number: u64) -> Key {
    Key::of(Area::Log).number(number)
}

async fn put(engine: &Engine, number: u64, value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(key(number), value);
    engine.write(batch, Priority::New).await.unwrap();
}

fn content(engine: &Engine) -> Vec<(Key, Vec<u8>)> {
    engine
        .scan(key(0)..key(u64::MAX))
        .map(Result::unwrap)
        .collect()
}

#[tokio::test]
async fn values_of_all_sizes_come_back_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 7_935, 7_936, 7_937, 100_000, VALUE_BYTES_MAX - 100];
    let expected: Vec<_> = (0..)
        .zip(sizes)
        .map(|(number, size)| (key(number), vec![u8::try_from(number).unwrap(); size]))
        .collect();
    {
        let engine = open(home.path());
        for (number, (_, value)) in (0..).zip(&expected) {
            put(&engine, number, value.clone()).await;
        }
        assert_eq!(content(&engine), expected);
        engine.close().await;
    }
    let engine = open(home.path());
    assert_eq!(content(&engine), expected);
    let last = engine.last(key(0)..key(u64::MAX)).unwrap().unwrap();
    assert_eq!(last, expected[6]);
    let blobs = home.path().join("records/blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[tokio::test]
async fn a_shorter_value_leaves_nothing_of_the_longer_one() {
    let home = tempfile::tempdir().unwrap();
    let engine = open(home.path());
    put(&engine, 1, vec![1; 50_000]).await;
    put(&engine, 1, vec![2; 10]).await;
    assert_eq!(content(&engine), [(key(1), vec![2; 10])]);
    let mut batch = Batch::new();
    batch.put(key(2), vec![3; 20_000]);
    batch.put(key(3), vec![4]);
    batch.remove_range(key(1)..key(3));
    batch.put(key(2), vec![5; 9_000]);
    engine.write(batch, Priority::New).await.unwrap();
    assert_eq!(
        content(&engine),
        [(key(2), vec![5; 9_000]), (key(3), vec![4])]
    );
}

/// A disk that counts syncs and fails when told to.
#[derive(Debug, Default)]
struct CountingDisk {
    syncs: Mutex<u32>,
    broken: Mutex<bool>,
}

impl Disk for CountingDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        if *self.broken.lock().unwrap() {
            return Err(io::Error::other("broken on purpose"));
        }
        *self.syncs.lock().unwrap() += 1;
        SystemDisk.sync_data(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(path)
    }
}

#[tokio::test]
async fn waiting_writers_share_a_sync() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(CountingDisk::default());
    let engine = open_on(home.path(), disk.clone());
    let before = *disk.syncs.lock().unwrap();
    let writes = (0..100).map(|number| {
        let engine = engine.clone();
        async move { put(&engine, number, vec![7; 100]).await }
    });
    futures::future::join_all(writes).await;
    let syncs = *disk.syncs.lock().unwrap() - before;
    assert!((1..50).contains(&syncs), "{syncs} syncs for 100 writers");
    assert_eq!(content(&engine).len(), 100);
}

#[tokio::test]
async fn a_failed_sync_is_fatal_and_nothing_is_acknowledged_after_it() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(CountingDisk::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let directory = Directory::open(home.path(), &SystemDisk).unwrap();
    let on_fatal = Arc::new(move |error: &super::FatalError| {
        noted.lock().unwrap().push(error.to_string());
    });
    let engine = Engine::open(directory, &EngineConfig::default(), disk.clone(), on_fatal).unwrap();
    put(&engine, 1, vec![1]).await;
    *disk.broken.lock().unwrap() = true;
    for number in 2..5 {
        let mut batch = Batch::new();
        batch.put(key(number), vec![1]);
        let written = engine.write(batch, Priority::Essential).await;
        assert_eq!(written, Err(WriteError::Stopped));
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("cannot sync "), "{seen:?}");
}

#[tokio::test]
async fn below_the_reserve_new_writes_are_refused_and_reads_go_on() {
    let home = tempfile::tempdir().unwrap();
    {
        let engine = open(home.path());
        put(&engine, 1, vec![1]).await;
        engine.close().await;
    }
    let directory = Directory::open(home.path(), &SystemDisk).unwrap();
    let config = EngineConfig {
        reserve_bytes: u64::MAX,
        ..EngineConfig::default()
    };
    let engine = Engine::open(directory, &config, SystemDisk::shared(), fail_on_fatal()).unwrap();
    let mut batch = Batch::new();
    batch.put(key(2), vec![2]);
    assert!(matches!(
        engine.write(batch.clone(), Priority::New).await,
        Err(WriteError::Reserve { .. })
    ));
    assert_eq!(engine.get(&key(1)).unwrap(), Some(vec![1]));
    engine.write(batch, Priority::Essential).await.unwrap();
    assert_eq!(engine.get(&key(2)).unwrap(), Some(vec![2]));
}

#[tokio::test]
async fn an_oversized_batch_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let engine = open(home.path());
    let mut batch = Batch::new();
    batch.put(key(1), vec![0; VALUE_BYTES_MAX]);
    assert!(matches!(
        engine.write(batch, Priority::New).await,
        Err(WriteError::TooLarge {
            allowed: BATCH_BYTES_MAX,
            ..
        })
    ));
}

#[tokio::test]
async fn a_database_behind_its_mark_is_refused() {
    let home = tempfile::tempdir().unwrap();
    {
        let engine = open(home.path());
        put(&engine, 1, vec![1]).await;
        engine.close().await;
    }
    std::fs::remove_dir_all(home.path().join("records")).unwrap();
    let directory = Directory::open(home.path(), &SystemDisk).unwrap();
    let config = EngineConfig::default();
    let opened = Engine::open(directory, &config, SystemDisk::shared(), fail_on_fatal());
    assert!(matches!(opened, Err(OpenError::WentBack { found: 0, .. })));
}

#[tokio::test]
async fn an_index_that_was_being_written_when_the_process_ended_does_not_count() {
    let home = tempfile::tempdir().unwrap();
    let engine = open(home.path());
    put(&engine, 1, b"kept".to_vec()).await;
    engine.close().await;
    drop(engine);
    // Named as the database names it, and later than any that it has.
    let unfinished = home
        .path()
        .join(FOLDER)
        .join("snap.7FFFFFFFFFFFFFFF.generating");
    std::fs::write(&unfinished, b"half of it").unwrap();
    let engine = open(home.path());
    assert_eq!(content(&engine), [(key(1), b"kept".to_vec())]);
    assert!(!unfinished.exists());
    engine.close().await;
}

/// Flips single bits all over the database file. Every outcome is allowed but one: wrong data.
#[tokio::test]
async fn a_flipped_bit_never_gives_wrong_data_silently() {
    let home = tempfile::tempdir().unwrap();
    {
        let engine = open(home.path());
        for number in 0..120 {
            put(&engine, number, vec![u8::try_from(number).unwrap(); 3_000]).await;
        }
        engine.close().await;
    }
    let template = tempfile::tempdir().unwrap();
    copy_tree(home.path(), template.path());
    let database = home.path().join("records/db");
    let bytes = std::fs::read(template.path().join("records/db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut noticed, mut unharmed) = (0, 0);
    for round in 0..40_usize {
        std::fs::remove_dir_all(home.path()).unwrap();
        copy_tree(template.path(), home.path());
        let mut damaged = bytes.clone();
        let position = used * (2 * round + 1) / 80;
        damaged[position] ^= 1 << (round % 8);
        std::fs::write(&database, &damaged).unwrap();
        let directory = Directory::open(home.path(), &SystemDisk).unwrap();
        let config = EngineConfig::default();
        let opened = Engine::open(directory, &config, SystemDisk::shared(), fail_on_fatal());
        let Ok(engine) = opened else {
            noticed += 1;
            continue;
        };
        let read: Result<Vec<_>, _> = engine.scan(key(0)..key(u64::MAX)).collect();
        match read {
            Err(_) => noticed += 1,
            Ok(values) => {
                let expected: Vec<_> = (0..120_u8)
                    .map(|number| (key(number.into()), vec![number; 3_000]))
                    .collect();
                assert_eq!(values.len(), expected.len(), "byte {position}");
                assert!(values == expected, "byte {position}");
                unharmed += 1;
            }
        }
        engine.close().await;
    }
    assert!(
        noticed >= 3,
        "{noticed} noticed, {unharmed} unharmed: the flips missed the data"
    );
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
