//! The Raft log alone: our engine on sled against `raft-log`, an append-only log. One writer appends records of 512 bytes,
//! so many at a time, and waits until they are on disk. docs/decisions/0007-raft-log-engine.md judges by it.

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

/// Records of one append.
const RECORDS: [u64; 3] = [1, 16, 256];
/// The longest one round takes.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// Measures both in turn, each time in a new directory on the same disk.
pub(super) async fn compare(settings: &Settings, home: &Path, found: &mut Found) -> Result<()> {
    let over = settings.over().min(ROUND_MAX);
    for records in RECORDS {
        let (mut sled, mut append_only) = (Vec::new(), Vec::new());
        for number in 0..settings.rounds {
            for turn in [number % 2, (number + 1) % 2] {
                let directory = tempfile::tempdir_in(home)?;
                if turn == 0 {
                    sled.push(on_sled(directory.path(), records, over).await?);
                } else {
                    let path = directory.path().to_owned();
                    let task = tokio::task::spawn_blocking(move || on_file(&path, records, over));
                    append_only.push(task.await??);
                }
            }
        }
        let names = [("sled", &sled), ("raft_log", &append_only)];
        for (name, rounds) in names {
            let rates: Vec<f64> = rounds.iter().map(Samples::rate).collect();
            put_spread(
                found,
                &format!("engine_{name}_{records}_appends_per_second"),
                &rates,
            );
            let p50 = median(rounds.iter().map(|round| round.percentile(50)));
            put(found, format!("engine_{name}_{records}_p50_ms"), p50);
            tell(&format!(
                "the log alone, {records} records an append, {name}: {:.0} appends/s, p50 {p50:.2} ms",
                median(rates)
            ));
        }
        let ratios = append_only
            .iter()
            .zip(&sled)
            .map(|(file, sled)| file.rate() / sled.rate());
        put(found, format!("engine_ratio_{records}"), median(ratios));
    }
    Ok(())
}

async fn on_sled(directory: &Path, records: u64, over: Duration) -> Result<Samples> {
    let disk = SystemDisk::shared();
    let directory = Directory::open(directory, disk.as_ref())?;
    let engine = Engine::open(directory, &EngineConfig::default(), disk, abort_on_fatal())?;
    let value = vec![b'x'; usize::try_from(VALUE_BYTES)?];
    let mut samples = Samples::default();
    let (start, mut index) = (Instant::now(), 0);
    while start.elapsed() < over {
        let asked = Instant::now();
        let mut batch = Batch::new();
        for _ in 0..records {
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

fn on_file(directory: &Path, records: u64, over: Duration) -> Result<Samples> {
    let path = directory.to_str().context("a path that is no text")?;
    let mut config = Config::new(path);
    // Its default waits for others to share a sync with: here is one writer, and we do not wait either.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    let mut log = RaftLog::<Records>::open(Arc::new(config))?;
    let value = "x".repeat(usize::try_from(VALUE_BYTES)?);
    let mut samples = Samples::default();
    let (start, mut index) = (Instant::now(), 0);
    while start.elapsed() < over {
        let asked = Instant::now();
        let entries: Vec<_> = (index..index + records)
            .map(|index| ((1, index), value.clone()))
            .collect();
        index += records;
        log.append(entries)?;
        let (told, synced) = sync_channel(1);
        log.flush(true, Some(told))?;
        synced.recv()??;
        samples.take(asked.elapsed());
    }
    samples.elapsed = start.elapsed();
    Ok(samples)
}
