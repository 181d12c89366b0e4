//! The one place that knows the database engine (sled 0.34), made safe across a power cut.
//!
//! A flush of the database is no sync, so a single writer thread does both: it joins all waiting batches into one,
//! applies it, flushes, syncs the file, and only then acknowledges. Values are cut small, because large leaves would go
//! to files that are never synced; segments are so large that none freed since the last sync is overwritten before
//! the next one. Any error of a write or a sync ends the process: after a failed sync nobody knows what is on disk.
//!
//! It refuses new writes when the disk's reserve is reached, and it refuses to open data that lost acknowledged writes.

mod batch;
mod error;
mod fatal;
mod mark;
mod open;
mod record;
mod records;
mod scan;
#[cfg(feature = "simulation")]
mod simulation;
mod writer;

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use dotmac_runtime::disk::{SharedDisk, create_private_dir};
use tokio::sync::{mpsc, oneshot};

pub use batch::{Area, Batch, Key};
pub use error::{FatalError, OpenError, ReadError, WriteError};
#[cfg(test)]
pub(crate) use fatal::fail_on_fatal;
pub use fatal::{OnFatal, abort_on_fatal};
pub use record::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
#[cfg(feature = "simulation")]
pub use records::MemoryRecords;
pub use scan::Scan;

use crate::storage::directory::{Directory, DirectoryError};
use mark::Mark;
use open::{open_database, sync_files};
use record::{chunk_key, decode_chunk, split_key};
use records::Records;
use writer::{Waiting, Writer};

/// Bytes of a segment of the database file. One commit, rewritten leaves included, fills less than two of them.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of one batch at most.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Attempts to read a value that is being replaced.
const READ_ATTEMPTS: usize = 16;
const FOLDER: &str = "records";
const DATABASE_FILE: &str = "db";
const MARK_FILE: &str = "mark";

/// Limits of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Bytes of memory for the database's cache.
    pub cache_bytes: u64,
    /// Bytes that must stay free on the file system for new writes to be taken.
    pub reserve_bytes: u64,
    /// Batches that may wait; more wait outside.
    pub queue_batches_max: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            // The State answers from memory: only the ledger and a follower that fell behind read here.
            cache_bytes: 16 * 1024 * 1024,
            reserve_bytes: 256 * 1024 * 1024,
            queue_batches_max: 128,
        }
    }
}

/// Whether a batch may use the disk's reserve, and whether it is worth a sync of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Something new: refused below the reserve.
    New,
    /// What was promised before: votes, entries, removals.
    Essential,
    /// What can be made again from what is on disk already, such as facts of committed entries: it becomes durable with
    /// the next batch of another priority, at the latest when the engine is closed.
    Unhurried,
}

/// Called by the writer thread when a batch is on disk, or never will be. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A handle to the open database; clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    database: Records,
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reserve_bytes: u64,
    disk: SharedDisk,
    /// None for records in memory.
    directory: Option<Arc<Directory>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.shared.directory.as_ref();
        let path = directory.map_or(Path::new("memory"), |directory| directory.path());
        write!(formatter, "Engine({})", path.display())
    }
}

impl Engine {
    /// Opens the database in a directory. Blocks while it recovers.
    pub fn open(
        directory: Directory,
        config: &EngineConfig,
        disk: SharedDisk,
        on_fatal: OnFatal,
    ) -> Result<Self, OpenError> {
        let folder = directory.path().join(FOLDER);
        create_private_dir(&folder).map_err(open_io("create", &folder))?;
        let database_path = folder.join(DATABASE_FILE);
        if database_path.exists() {
            // What a killed process left in the page cache must be on disk before recovery builds on it.
            disk.sync_data(&database_path)
                .map_err(open_io("sync", &database_path))?;
        }
        let database = open_database(&folder, config.cache_bytes)?;
        sync_files(&folder, disk.as_ref()).map_err(open_io("sync", &folder))?;
        disk.sync_dir(directory.path())
            .map_err(open_io("sync", directory.path()))?;
        let mark_path = directory.path().join(MARK_FILE);
        let mark = Mark::open(&mark_path).map_err(open_io("open", &mark_path))?;
        let expected = mark.read().map_err(open_io("read", &mark_path))?;
        let database = Records::Database(database);
        let found = last_commit(&database).map_err(|error| OpenError::Damaged {
            path: folder.clone(),
            detail: error.to_string(),
        })?;
        if found < expected {
            return Err(OpenError::WentBack {
                path: folder,
                found,
                expected,
            });
        }
        let directory = Arc::new(directory);
        let (sender, receiver) = mpsc::channel(config.queue_batches_max.max(1));
        let writer = Writer {
            database: database.clone(),
            database_path,
            disk: Arc::clone(&disk),
            mark: Some(mark),
            on_fatal,
            last_commit: found,
            _directory: Some(Arc::clone(&directory)),
        };
        let thread = std::thread::Builder::new()
            .name("storage".into())
            .spawn(move || writer.run(receiver))
            .map_err(open_io("start the writer of", &folder))?;
        Ok(Self {
            shared: Arc::new(Shared {
                database,
                queue: Mutex::new(Some(sender)),
                writer: Mutex::new(Some(thread)),
                reserve_bytes: config.reserve_bytes,
                disk,
                directory: Some(directory),
            }),
        })
    }

    /// Notes on the disk which rules a program must know to read what is about to be written here. Blocks when it is news.
    pub fn raise_version(&self, version: u16) -> Result<(), DirectoryError> {
        match &self.shared.directory {
            Some(directory) => directory.raise(version, self.shared.disk.as_ref()),
            None => Ok(()),
        }
    }

    /// Reads one value.
    pub fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
        read_value(&self.shared.database, key)
    }

    /// Reads all values of a half-open range in order. Batches written meanwhile may or may not show.
    #[must_use]
    pub fn scan(&self, range: Range<Key>) -> Scan {
        Scan::new(self.shared.database.clone(), &range)
    }

    /// The last value of a half-open range.
    pub fn last(&self, range: Range<Key>) -> Result<Option<(Key, Vec<u8>)>, ReadError> {
        if range.start >= range.end {
            return Ok(None);
        }
        let bounds = range.start.as_bytes().to_vec()..range.end.as_bytes().to_vec();
        let Some(found) = self.shared.database.last(bounds) else {
            return Ok(None);
        };
        let (stored, _) = found.map_err(ReadError::Database)?;
        let key = owned_key(&stored)?;
        let value = self.get(&key)?.ok_or_else(|| corrupt(key.as_bytes()))?;
        Ok(Some((key, value)))
    }

    /// Stores a batch and returns when it is on disk.
    pub async fn write(&self, batch: Batch, priority: Priority) -> Result<(), WriteError> {
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            // Nobody waits any more when the caller was dropped.
            let _ = sender.send(result);
        });
        self.submit(batch, priority, done).await?;
        receiver.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Queues a batch behind those queued before, waiting for room; `done` is called when it is on disk.
    pub async fn submit(
        &self,
        batch: Batch,
        priority: Priority,
        done: Done,
    ) -> Result<(), WriteError> {
        if batch.bytes() > BATCH_BYTES_MAX {
            return Err(WriteError::TooLarge {
                found: batch.bytes(),
                allowed: BATCH_BYTES_MAX,
            });
        }
        if priority == Priority::New {
            self.check_reserve()?;
        }
        let queue = lock(&self.shared.queue).clone();
        let queue = queue.ok_or(WriteError::Stopped)?;
        queue
            .send(Waiting {
                batch,
                done,
                is_urgent: priority != Priority::Unhurried,
            })
            .await
            .map_err(|_| WriteError::Stopped)
    }

    /// Bytes that are free on the disk, and how many must stay free.
    #[must_use]
    pub fn free_and_reserve(&self) -> (u64, u64) {
        (self.shared.free_bytes(), self.shared.reserve_bytes)
    }

    /// Whether new writes are taken at the moment.
    pub fn check_reserve(&self) -> Result<(), WriteError> {
        let (free_bytes, reserve_bytes) = self.free_and_reserve();
        if free_bytes < reserve_bytes {
            return Err(WriteError::Reserve {
                free_bytes,
                reserve_bytes,
            });
        }
        Ok(())
    }

    /// Whether so much of the reserve is used up that the rest is kept for votes and the like.
    #[must_use]
    pub fn is_below_half_reserve(&self) -> bool {
        let (free_bytes, reserve_bytes) = self.free_and_reserve();
        free_bytes < reserve_bytes / 2
    }

    /// Stores what is queued and stops; later writes fail. The directory is free once all clones are dropped.
    pub async fn close(&self) {
        lock(&self.shared.queue).take();
        let writer = lock(&self.shared.writer).take();
        if let Some(writer) = writer {
            // A panic of the writer was reported as fatal already.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

impl Shared {
    fn free_bytes(&self) -> u64 {
        match (&self.database, &self.directory) {
            #[cfg(feature = "simulation")]
            (Records::Memory(memory), _) => memory.free_bytes(),
            (_, Some(directory)) => free_bytes(directory.path()),
            (_, None) => 0,
        }
    }
}

fn commit_key() -> Key {
    Key::of(Area::Engine).text("commit")
}

fn last_commit(database: &Records) -> Result<u64, ReadError> {
    let Some(value) = read_value(database, &commit_key())? else {
        return Ok(0);
    };
    let bytes = value
        .try_into()
        .map_err(|_| corrupt(commit_key().as_bytes()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_value(database: &Records, key: &Key) -> Result<Option<Vec<u8>>, ReadError> {
    for _ in 0..READ_ATTEMPTS {
        let Some(first) = database
            .get(&chunk_key(key.as_bytes(), 0))
            .map_err(ReadError::Database)?
        else {
            return Ok(None);
        };
        let first = decode_chunk(key.as_bytes(), 0, &first)?;
        let mut value = first.payload.to_vec();
        let mut whole = true;
        for number in 1..first.chunks {
            let next = database
                .get(&chunk_key(key.as_bytes(), number))
                .map_err(ReadError::Database)?;
            let Some(next) = next else {
                whole = false;
                break;
            };
            let next = decode_chunk(key.as_bytes(), number, &next)?;
            if (next.stamp, next.chunks) != (first.stamp, first.chunks) {
                whole = false;
                break;
            }
            value.extend_from_slice(next.payload);
        }
        if whole {
            return Ok(Some(value));
        }
    }
    Err(corrupt(key.as_bytes()))
}

fn owned_key(stored: &[u8]) -> Result<Key, ReadError> {
    let (key, _) = split_key(stored).ok_or_else(|| corrupt(stored))?;
    Ok(Key::from_bytes(key.to_vec()))
}

fn corrupt(key: &[u8]) -> ReadError {
    ReadError::Corrupt {
        key: hex::encode(key),
    }
}

/// Bytes free for this user on the file system of a path, or of the folder that it will be made in; 0 when the file system
/// does not tell.
pub fn free_bytes(path: &Path) -> u64 {
    let known = path.ancestors().find(|path| path.exists());
    rustix::fs::statvfs(known.unwrap_or(path))
        .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn open_io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
