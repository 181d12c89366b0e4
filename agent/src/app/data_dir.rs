//! The agent's data directory: names of its parts, and the lock that keeps a second agent out. It reads nothing in them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use dotmac_runtime::disk;
use thiserror::Error;

/// A data directory that this process alone uses, for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// It cannot be made or written.
    #[error("data_dir {} cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("data_dir {} is in use by another agent", .0.display())]
    InUse(PathBuf),
}

impl DataDir {
    /// Makes the directory private and locks it.
    ///
    /// # Errors
    /// When it cannot be written or another agent runs on it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Write {
            path: path.to_owned(),
            source,
        };
        disk::create_private_dir(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("agent.lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Keys and certificate.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// Trust roots.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.path.join("trust")
    }

    /// Accepted orders.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Signed records.
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.path.join("chain")
    }

    /// Secrets of instances.
    #[must_use]
    pub fn platform(&self) -> PathBuf {
        self.path.join("platform")
    }

    /// What is remembered of instances' reports.
    #[must_use]
    pub fn reports(&self) -> PathBuf {
        self.path.join("reports")
    }

    /// The highest time of licences.
    #[must_use]
    pub fn license_time(&self) -> PathBuf {
        self.path.join("license_time")
    }

    /// The port under which the agent tells how it is.
    #[must_use]
    pub fn status_port_file(&self) -> PathBuf {
        self.path.join("status.port")
    }

    /// How far ahead of the clock used tokens of instances were issued.
    #[must_use]
    pub fn tokens_file(&self) -> PathBuf {
        self.path.join("instance_api.tokens")
    }

    /// The port of the instance API.
    #[must_use]
    pub fn port_file(&self) -> PathBuf {
        self.path.join("instance_api.port")
    }
}

#[cfg(test)]
mod tests {
    use super::{DataDir, DataDirError};

    #[test]
    fn a_second_agent_is_kept_out_while_the_first_lives() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::open(directory.path()).unwrap();
        let second = DataDir::open(directory.path());
        assert!(matches!(second, Err(DataDirError::InUse(_))));
        drop(first);
        assert!(DataDir::open(directory.path()).is_ok());
    }
}
