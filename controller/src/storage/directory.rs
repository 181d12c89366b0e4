//! The storage directory: locked by one process, with a version that says whether this program may read it.
//! It refuses to touch a directory of a newer version, or one that is not a storage directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use dotmac_runtime::disk::{Disk, create_private_dir, write_atomic_on};
use thiserror::Error;

/// The version of everything below the directory that this program writes.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const FORMAT_WORDS: &str = "dotmac controller storage";

/// Why a storage directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The data was written by a newer program.
    #[error(
        "{path} holds data of version {found}, newer than this program's version {known}; nothing was touched"
    )]
    Newer {
        /// Which directory.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program knows.
        known: u32,
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
    _lock: File,
}

impl Directory {
    /// Opens the directory, making it when it does not exist.
    pub fn open(path: &Path, disk: &dyn Disk) -> Result<Self, DirectoryError> {
        let fresh = check_version(path)?;
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
        if fresh {
            let format = path.join(FORMAT_FILE);
            let text = format!("{FORMAT_WORDS} {FORMAT_VERSION}\n");
            write_atomic_on(disk, &format, text.as_bytes(), 0o600)
                .map_err(io_error("write", &format))?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the directory is fresh; an error when its data is not for this program.
fn check_version(path: &Path) -> Result<bool, DirectoryError> {
    let format = path.join(FORMAT_FILE);
    let text = match std::fs::read_to_string(&format) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if holds_data(path)? {
                Err(DirectoryError::Foreign { path: path.into() })
            } else {
                Ok(true)
            };
        }
        Err(source) => return Err(io_error("read", &format)(source)),
    };
    let version = text
        .strip_prefix(FORMAT_WORDS)
        .and_then(|rest| rest.trim().parse().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(false),
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
        std::fs::write(path.join(FORMAT_FILE), "dotmac controller storage 2\n").unwrap();
        std::fs::write(path.join("db"), "future").unwrap();
        assert!(matches!(
            Directory::open(path, &SystemDisk),
            Err(DirectoryError::Newer { found: 2, .. })
        ));
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [FORMAT_FILE, "db"]);
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
