//! A disk whose power can be cut, for tests: it remembers what was synced and afterwards drops the rest, as a real one
//! may. It models whole files and names, no torn sectors, and must never serve a running product.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Disk;

/// See the module's text. What lies under its root when it is made counts as synced.
#[derive(Debug)]
pub struct CutDisk {
    root: PathBuf,
    durable: Mutex<Durable>,
}

#[derive(Debug, Default)]
struct Durable {
    /// What a synced file held, by identity, so that a rename carries it along.
    contents: BTreeMap<FileIdentity, Vec<u8>>,
    /// The names a synced directory held.
    names: BTreeMap<PathBuf, BTreeMap<PathBuf, FileIdentity>>,
    /// How many more syncs take effect; all when absent.
    syncs_left: Option<u64>,
}

/// Inode number and birth time in nanoseconds: an inode number alone is used again.
type FileIdentity = (u64, u128);

impl CutDisk {
    /// A disk for the files under `root`.
    ///
    /// # Errors
    /// When `root` cannot be read.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut durable = Durable::default();
        for directory in directories(root)? {
            let names = names(&directory)?;
            for (path, identity) in &names {
                durable.contents.insert(*identity, fs::read(path)?);
            }
            durable.names.insert(directory, names);
        }
        Ok(Self {
            root: root.to_owned(),
            durable: Mutex::new(durable),
        })
    }

    /// Lets `count` more syncs take effect; the later ones claim success and are lost, as if the cut came before them.
    pub fn lose_syncs_after(&self, count: u64) {
        self.lock().syncs_left = Some(count);
    }

    /// Restores every file under the root to what was synced. Whoever holds one open must be gone before.
    ///
    /// # Errors
    /// When a file cannot be restored.
    pub fn cut_power(&self) -> io::Result<()> {
        let durable = self.lock();
        for directory in directories(&self.root)? {
            let synced = durable.names.get(&directory);
            let mut modes = BTreeMap::new();
            for (path, identity) in names(&directory)? {
                modes.insert(identity, fs::metadata(&path)?.permissions().mode());
                fs::remove_file(&path)?;
            }
            for (path, identity) in synced.into_iter().flatten() {
                fs::write(
                    path,
                    durable
                        .contents
                        .get(identity)
                        .map_or(&[][..], Vec::as_slice),
                )?;
                let mode = modes.get(identity).copied().unwrap_or(0o600);
                fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
            }
        }
        drop(durable);
        let renewed = Self::new(&self.root)?;
        *self.lock() = renewed
            .durable
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Durable {
    fn next_sync_counts(&mut self) -> bool {
        match &mut self.syncs_left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Disk for CutDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        let identity = identity(&fs::metadata(path)?)?;
        let bytes = fs::read(path)?;
        let mut durable = self.lock();
        if durable.next_sync_counts() {
            durable.contents.insert(identity, bytes);
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let names = names(path)?;
        let mut durable = self.lock();
        if durable.next_sync_counts() {
            durable.names.insert(path.to_owned(), names);
        }
        Ok(())
    }
}

fn directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn names(directory: &Path) -> io::Result<BTreeMap<PathBuf, FileIdentity>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.insert(entry.path(), identity(&entry.metadata()?)?);
        }
    }
    Ok(names)
}

fn identity(metadata: &fs::Metadata) -> io::Result<FileIdentity> {
    let born = metadata
        .created()?
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(io::Error::other)?;
    Ok((metadata.ino(), born.as_nanos()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::CutDisk;
    use crate::disk::Disk as _;

    #[test]
    fn what_was_not_synced_is_gone_after_a_cut() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, lost) = (directory.path().join("kept"), directory.path().join("lost"));
        fs::write(&kept, b"before").unwrap();
        let disk = CutDisk::new(directory.path()).unwrap();
        fs::write(&kept, b"after, unsynced").unwrap();
        fs::write(&lost, b"its name was never synced").unwrap();
        disk.sync_data(&lost).unwrap();
        disk.cut_power().unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"before");
        assert!(!lost.exists());
    }
}
