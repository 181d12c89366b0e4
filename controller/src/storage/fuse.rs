//! A disk for tests whose power goes at a chosen sync: from then on every sync fails, and what was not synced before can be
//! taken away.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use dotmac_runtime::disk::{Disk, cut::CutDisk};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Fuse {
    disk: CutDisk,
    syncs_left: AtomicU64,
    blown: AtomicBool,
}

impl Fuse {
    /// A disk with the power on; what lies under `home` counts as synced.
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            disk: CutDisk::new(home).unwrap(),
            syncs_left: AtomicU64::new(u64::MAX),
            blown: AtomicBool::new(false),
        }
    }

    /// Lets `syncs` more of them through.
    pub(crate) fn blow_after(&self, syncs: u64) {
        self.syncs_left.store(syncs, Ordering::SeqCst);
    }

    /// Makes every further sync a lie: it succeeds and does nothing.
    pub(crate) fn lose_all_syncs(&self) {
        self.disk.lose_syncs_after(0);
    }

    /// Whether a sync came after the power was gone.
    pub(crate) fn is_blown(&self) -> bool {
        self.blown.load(Ordering::SeqCst)
    }

    /// Leaves of every file what was synced, then the power is back. Nobody may have one open.
    pub(crate) fn cut_power(&self) {
        self.disk.cut_power().unwrap();
        self.blow_after(u64::MAX);
        self.blown.store(false, Ordering::SeqCst);
    }
}

impl Disk for Fuse {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        let left = |left: u64| (left < u64::MAX).then(|| left.saturating_sub(1));
        let before = self
            .syncs_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        if before == Ok(0) {
            self.blown.store(true, Ordering::SeqCst);
            return Err(io::Error::other("the power is cut"));
        }
        self.disk.sync_data(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.is_blown() {
            return Err(io::Error::other("the power is cut"));
        }
        self.disk.sync_dir(path)
    }
}
