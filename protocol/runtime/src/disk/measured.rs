//! A disk that says how long it takes to make bytes durable.

use std::{io, path::Path};

use tokio::time::Instant;

use super::{Disk, SharedDisk};
use crate::metrics::{Counter, Histogram};

/// Another disk, with its time taken.
#[derive(Debug)]
pub struct MeasuredDisk {
    /// What does the work.
    pub disk: SharedDisk,
    /// Seconds of each sync that succeeded.
    pub seconds: Histogram,
    /// Syncs that failed.
    pub failures: Counter,
}

impl MeasuredDisk {
    fn measure(&self, sync: impl FnOnce(&dyn Disk) -> io::Result<()>) -> io::Result<()> {
        let begun = Instant::now();
        let done = sync(self.disk.as_ref());
        match &done {
            Ok(()) => self.seconds.took(begun.elapsed()),
            Err(_) => {
                self.failures.inc();
            }
        }
        done
    }
}

impl Disk for MeasuredDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        self.measure(|disk| disk.sync_data(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.measure(|disk| disk.sync_dir(path))
    }
}
