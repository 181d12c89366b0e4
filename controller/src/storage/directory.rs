//! The storage directory: locked by one process, with a version that says whether this program may read it.
//! It refuses to touch a directory of a newer version, or one that is not a storage directory.
//!
//! The version is that of the rules that a program must know to read what lies there. It rises when the cluster is
//! finalized and not when a newer program opens the directory, so that the program of before can be put back.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use dotmac_domain::rules::{RULES_OLDEST, RULES_VERSION};
use dotmac_runtime::disk::{Disk, create_private_dir, write_atomic_on};
use thiserror::Error;

/// The newest version of a directory that this program reads.
pub const FORMAT_VERSION: u16 = RULES_VERSION;
/// The version that a directory begins with.
const FORMAT_FIRST: u16 = RULES_OLDEST;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const FORMAT_WORDS: &str = "dotmac controller storage";

/// Why a storage directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The data was written by a newer program.
    #[error(
        "{path} holds data of version {found}, newer than this program's version {known}; nothing was touched: start \
         the newer program again"
    )]
    Newer {
        /// Which directory.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version this program knows.
        known: u16,
    },
    /// The directory has files but no readable version.
    #[error("{path} is not empty and not a storage directory; nothing was touched")]
    Foreign {
        /// Which directory.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    Locked {
        /// Which directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A storage directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    version: AtomicU16,
    _lock: File,
}

impl Directory {
    /// Opens the directory, making it when it does not exist.
    pub fn open(path: &Path, disk: &dyn Disk) -> Result<Self, DirectoryError> {
        let version = check_version(path)?;
        create_private_dir(path).map_err(io_error("create", path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::Locked { path: path.into() });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &lock_path)(source)),
        }
        if version.is_none() {
            write_version(path, FORMAT_FIRST, disk)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            version: AtomicU16::new(version.unwrap_or(FORMAT_FIRST)),
            _lock: lock,
        })
    }

    /// Whether there is anything that [`Directory::open`] would not begin with.
    #[must_use]
    pub fn is_there(path: &Path) -> bool {
        !matches!(check_version(path), Ok(None))
    }

    /// Notes on the disk that only programs which know this version may open the directory from now on; it never goes
    /// back. To be called before anything of the version is written. Blocks when it is news.
    pub fn raise(&self, version: u16, disk: &dyn Disk) -> Result<(), DirectoryError> {
        if version <= self.version.load(Ordering::Acquire) {
            return Ok(());
        }
        write_version(&self.path, version, disk)?;
        self.version.fetch_max(version, Ordering::AcqRel);
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn write_version(path: &Path, version: u16, disk: &dyn Disk) -> Result<(), DirectoryError> {
    let format = path.join(FORMAT_FILE);
    let text = format!("{FORMAT_WORDS} {version}\n");
    write_atomic_on(disk, &format, text.as_bytes(), 0o600).map_err(io_error("write", &format))
}

/// The version of the directory, none if it is fresh; an error when its data is not for this program.
fn check_version(path: &Path) -> Result<Option<u16>, DirectoryError> {
    let format = path.join(FORMAT_FILE);
    let text = match std::fs::read_to_string(&format) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if holds_data(path)? {
                Err(DirectoryError::Foreign { path: path.into() })
            } else {
                Ok(None)
            };
        }
        Err(source) => return Err(io_error("read", &format)(source)),
    };
    let version = text
        .strip_prefix(FORMAT_WORDS)
        .and_then(|rest| rest.trim().parse().ok());
    match version {
        Some(found) if (FORMAT_FIRST..=FORMAT_VERSION).contains(&found) => Ok(Some(found)),
        Some(found) if found > FORMAT_VERSION => Err(DirectoryError::Newer {
            path: path.into(),
            found,
            known: FORMAT_VERSION,
        }),
        _ => Err(DirectoryError::Foreign { path: path.into() }),
    }
}

/// Whether anything but our own lock lies there: a first start may have died before it wrote the version.
fn holds_data(path: &Path) -> Result<bool, DirectoryError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(io_error("list", path)(source)),
    };
    for entry in entries {
        let name = entry.map_err(io_error("list", path))?.file_name();
        if name != LOCK_FILE && name != format!(".{FORMAT_FILE}.new").as_str() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::disk::SystemDisk;

    use super::{Directory, DirectoryError, FORMAT_FILE};

    #[test]
    fn a_second_opener_is_refused_until_the_first_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("storage");
        let first = Directory::open(&path, &SystemDisk).unwrap();
        assert!(matches!(
            Directory::open(&path, &SystemDisk),
            Err(DirectoryError::Locked { .. })
        ));
        drop(first);
        assert!(Directory::open(&path, &SystemDisk).is_ok());
    }

    #[test]
    fn data_of_a_newer_version_is_refused_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        std::fs::write(path.join(FORMAT_FILE), "dotmac controller storage 9\n").unwrap();
        std::fs::write(path.join("db"), "future").unwrap();
        assert!(matches!(
            Directory::open(path, &SystemDisk),
            Err(DirectoryError::Newer { found: 9, .. })
        ));
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [FORMAT_FILE, "db"]);
    }

    #[test]
    fn the_version_rises_and_never_goes_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("storage");
        let said = || std::fs::read_to_string(path.join(FORMAT_FILE)).unwrap();
        let directory = Directory::open(&path, &SystemDisk).unwrap();
        assert_eq!(said(), "dotmac controller storage 1\n");
        directory.raise(2, &SystemDisk).unwrap();
        assert_eq!(said(), "dotmac controller storage 2\n");
        drop(directory);
        let directory = Directory::open(&path, &SystemDisk).unwrap();
        directory.raise(1, &SystemDisk).unwrap();
        assert_eq!(said(), "dotmac controller storage 2\n");
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("thesis.txt"), "precious").unwrap();
        assert!(matches!(
            Directory::open(home.path(), &SystemDisk),
            Err(DirectoryError::Foreign { .. })
        ));
        assert!(!home.path().join("LOCK").exists());
    }
}
