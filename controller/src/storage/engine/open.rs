//! Opening the database, which recovers from whatever end its process had, and making durable what recovery wrote.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use dotmac_runtime::disk::Disk;

use super::{OpenError, SEGMENT_BYTES, open_io};

/// How often, and how long after each other, files that are still held are looked at.
const LOOKS_MAX: u32 = 1_000;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Opens the database of a directory that is this process's alone.
pub(super) fn open_database(folder: &Path, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    let damaged = |detail: String| OpenError::Damaged {
        path: folder.to_path_buf(),
        detail,
    };
    remove_unfinished(folder).map_err(open_io("tidy up", folder))?;
    let config = sled::Config::new()
        .path(folder)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None);
    for look in 0.. {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(database)) => return Ok(database),
            // No other process has them, for the directory is locked: threads of a database that this one closed just now.
            Ok(Err(error)) if look < LOOKS_MAX && error.to_string().contains("acquire lock") => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Ok(Err(error)) => return Err(damaged(error.to_string())),
            Err(_) => break,
        }
    }
    Err(damaged("it panicked during recovery".into()))
}

/// Removes the database's indexes of itself that were being written when a process ended. The database would take the newest
/// of them for a finished one, for it looks for another ending than it gives, and refuse its files from then on. It makes
/// them anew from its log.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Syncs what recovery wrote: the records, the database's settings and its index of them.
pub(super) fn sync_files(folder: &Path, disk: &dyn Disk) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            disk.sync_data(&entry.path())?;
        }
    }
    disk.sync_dir(folder)
}
