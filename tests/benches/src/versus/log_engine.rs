//! The Raft log alone: our engine on sled against `raft-log`, an append-only log. One writer appends records of 512 bytes,
//! so many at a time, and waits until they are on disk; and records as large as the entry that 256 writers' values become.
//! docs/decisions/0007-raft-log-engine.md judges by it.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use dotmac_controller::storage::{
    directory::Directory,
    engine::{Area, Batch, Engine, EngineConfig, Key, Priority, abort_on_fatal},
};
use dotmac_runtime::disk::SystemDisk;
use raft_log::{
    Config, RaftLog,
    api::{raft_log_writer::RaftLogWriter as _, types::Types},
};
use tokio::time::Instant;

use super::Settings;
use crate::{
    etcd::VALUE_BYTES,
    report::{Found, put, put_spread},
    samples::{Samples, median},
    tell,
};

/// What is appended at once.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    records: u64,
    bytes: u64,
}

/// The last is what the controllers write: all that waits becomes one entry.
const SHAPES: [Shape; 4] = [
    shape("1", 1, VALUE_BYTES),
    shape("16", 16, VALUE_BYTES),
    shape("256", 256, VALUE_BYTES),
    shape("entry_of_256", 1, 256 * VALUE_BYTES),
];

const fn shape(name: &'static str, records: u64, bytes: u64) -> Shape {
    Shape {
        name,
        records,
        bytes,
    }
}

/// The longest one round takes.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// Measures both in turn, each time in a new directory on the same disk.
pub(super) async fn compare(settings: &Settings, home: &Path, found: &mut Found) -> Result<()> {
    let over = settings.over().min(ROUND_MAX);
    for shape in SHAPES {
        let (mut sled, mut append_only) = (Vec::new(), Vec::new());
        for number in 0..settings.rounds {
            for turn in [number % 2, (number + 1) % 2] {
                let directory = tempfile::tempdir_in(home)?;
                if turn == 0 {
                    sled.push(on_sled(directory.path(), shape, over).await?);
                } else {
                    let path = directory.path().to_owned();
                    let task = tokio::task::spawn_blocking(move || on_file(&path, shape, over));
                    append_only.push(task.await??);
                }
            }
        }
        let names = [("sled", &sled), ("raft_log", &append_only)];
        for (name, rounds) in names {
            let rates: Vec<f64> = rounds.iter().map(Samples::rate).collect();
            put_spread(
                found,
                &format!("engine_{name}_{}_appends_per_second", shape.name),
                &rates,
            );
            let p50 = median(rounds.iter().map(|round| round.percentile(50)));
            put(found, format!("engine_{name}_{}_p50_ms", shape.name), p50);
            tell(&format!(
                "the log alone, {} x {} bytes an append, {name}: {:.0} appends/s, p50 {p50:.2} ms",
                shape.records,
                shape.bytes,
                median(rates)
            ));
        }
        let ratios = append_only
            .iter()
            .zip(&sled)
            .map(|(file, sled)| file.rate() / sled.rate());
        put(
            found,
            format!("engine_ratio_{}", shape.name),
            median(ratios),
        );
    }
    Ok(())
}

async fn on_sled(directory: &Path, shape: Shape, over: Duration) -> Result<Samples> {
    let disk = SystemDisk::shared();
    let directory = Directory::open(directory, disk.as_ref())?;
    let engine = Engine::open(directory, &EngineConfig::default(), disk, abort_on_fatal())?;
    let value = vec![b'x'; usize::try_from(shape.bytes)?];
    let mut samples = Samples::default();
    let (start, mut index) = (Instant::now(), 0);
    while start.elapsed() < over {
        let asked = Instant::now();
        let mut batch = Batch::new();
        for _ in 0..shape.records {
            batch.put(Key::of(Area::Log).number(index), value.clone());
            index += 1;
        }
        engine.write(batch, Priority::Essential).await?;
        samples.take(asked.elapsed());
    }
    samples.elapsed = start.elapsed();
    engine.close().await;
    Ok(samples)
}

/// What the append-only log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Records;

impl Types for Records {
    type LogId = (u64, u64);
    type LogPayload = String;
    type Vote = (u64, u64);
    type UserData = String;
    type Callback = SyncSender<io::Result<()>>;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        u64::try_from(payload.len()).unwrap_or(u64::MAX)
    }
}

fn on_file(directory: &Path, shape: Shape, over: Duration) -> Result<Samples> {
    let path = directory.to_str().context("a path that is no text")?;
    let mut config = Config::new(path);
    // Its default waits for others to share a sync with: here is one writer, and we do not wait either.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    let mut log = RaftLog::<Records>::open(Arc::new(config))?;
    let value = "x".repeat(usize::try_from(shape.bytes)?);
    let mut samples = Samples::default();
    let (start, mut index) = (Instant::now(), 0);
    while start.elapsed() < over {
        let asked = Instant::now();
        let entries: Vec<_> = (index..index + shape.records)
            .map(|index| ((1, index), value.clone()))
            .collect();
        index += shape.records;
        log.append(entries)?;
        let (told, synced) = sync_channel(1);
        log.flush(true, Some(told))?;
        synced.recv()??;
        samples.take(asked.elapsed());
    }
    samples.elapsed = start.elapsed();
    Ok(samples)
}
