//! The disk under an agent's record chain: a power loss takes what was appended since the last sync, all of it or its end.
//! What the agent replaces as a whole (journal, trust, marks) it syncs before it counts, on the real file system.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use dotmac_runtime::disk::Disk;

use crate::random::Random;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct AgentDisk {
    /// Bytes of each file that are safe.
    synced: Mutex<BTreeMap<PathBuf, u64>>,
}

impl AgentDisk {
    /// Takes what was not synced.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        for (path, safe) in self.synced.lock().unwrap().iter_mut() {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            let unsafe_bytes = length.saturating_sub(*safe);
            *safe = length - unsafe_bytes + random.below(unsafe_bytes + 1);
            file.set_len(*safe).unwrap();
        }
    }
}

impl Disk for AgentDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        let length = std::fs::metadata(path)?.len();
        self.synced.lock().unwrap().insert(path.to_owned(), length);
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}
