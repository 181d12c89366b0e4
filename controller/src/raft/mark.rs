//! Beside a controller's keys it is noted which store is theirs: a store that is gone, or another one, is a wiped disk, also
//! when nobody else is left who would remember. Whoever begins again with an empty store under an old number could found
//! the cluster anew, or vote twice.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dotmac_runtime::disk::{Disk, write_atomic_on};

use super::{config::StartError, lives::Life};
use crate::storage::directory::Directory;

/// Instead of a life: whichever store was restored there.
const RESTORED: &str = "restored";

/// The note.
#[derive(Debug, Clone)]
pub struct StoreMark(PathBuf);

impl StoreMark {
    /// The note at this path.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether anything is noted.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// Whether a store has served with these keys: another one under the same number forgets what it promised.
    ///
    /// # Errors
    /// When the note cannot be read.
    pub fn has_served(&self) -> Result<bool, StartError> {
        Ok(self.read()?.is_some_and(|noted| noted != RESTORED))
    }

    /// Notes that a restored store is about to be there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn expect_restored(&self, disk: &dyn Disk) -> io::Result<()> {
        self.write(RESTORED, disk)
    }

    /// Refuses a store that is not there although it was. Nothing is touched.
    pub(super) fn check_there(&self, store: &Path) -> Result<(), StartError> {
        match self.read()? {
            Some(_) if !Directory::is_there(store) => Err(self.wiped(store)),
            _ => Ok(()),
        }
    }

    /// Refuses another store than the one that was there, and notes a first or a restored one. Blocks when it is news.
    pub(super) fn check_life(
        &self,
        store: &Path,
        own: Life,
        disk: &dyn Disk,
    ) -> Result<(), StartError> {
        let own = hex::encode(own);
        match self.read()?.as_deref() {
            Some(known) if known == own => Ok(()),
            None | Some(RESTORED) => self.write(&own, disk).map_err(|source| self.failed(source)),
            Some(_) => Err(self.wiped(store)),
        }
    }

    fn read(&self) -> Result<Option<String>, StartError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn write(&self, text: &str, disk: &dyn Disk) -> io::Result<()> {
        write_atomic_on(disk, &self.0, format!("{text}\n").as_bytes(), 0o600)
    }

    fn failed(&self, source: io::Error) -> StartError {
        StartError::Mark {
            path: self.0.clone(),
            source,
        }
    }

    fn wiped(&self, store: &Path) -> StartError {
        StartError::Wiped {
            store: store.to_owned(),
            mark: self.0.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::disk::SystemDisk;

    use super::{RESTORED, StoreMark};
    use crate::{raft::config::StartError, storage::directory::Directory};

    #[test]
    fn a_store_that_is_gone_or_another_one_is_a_wiped_disk() {
        let home = tempfile::tempdir().unwrap();
        let (store, path) = (home.path().join("store"), home.path().join("mark"));
        let mark = StoreMark::at(path.clone());
        let check = |life| mark.check_life(&store, life, &SystemDisk);
        mark.check_there(&store).unwrap();
        drop(Directory::open(&store, &SystemDisk).unwrap());
        check([1; 16]).unwrap();
        mark.check_there(&store).unwrap();
        check([1; 16]).unwrap();
        assert!(matches!(check([2; 16]), Err(StartError::Wiped { .. })));

        std::fs::remove_dir_all(&store).unwrap();
        assert!(matches!(
            mark.check_there(&store),
            Err(StartError::Wiped { .. })
        ));
        // A restore that was broken off before its store was there is no store either.
        assert!(mark.has_served().unwrap());
        mark.expect_restored(&SystemDisk).unwrap();
        assert!(!mark.has_served().unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), RESTORED);
        assert!(matches!(
            mark.check_there(&store),
            Err(StartError::Wiped { .. })
        ));
        drop(Directory::open(&store, &SystemDisk).unwrap());
        mark.check_there(&store).unwrap();
        check([2; 16]).unwrap();
        assert!(matches!(check([1; 16]), Err(StartError::Wiped { .. })));
    }
}
