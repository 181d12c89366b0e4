//! Snapshot files in pieces: read for another node, or received from one. What was received counts for nothing before it
//! was checked.

use std::{fs::File, io::Write as _, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    DIGEST_BYTES, PIECE_BYTES_MAX, SnapshotError, SnapshotFile, Temporary, check, io_error,
};

/// What tells a snapshot file from every other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 at its end, over all before.
    pub digest: [u8; 32],
}

impl SnapshotFile {
    /// What tells it from every other one.
    pub fn mark(&self) -> Result<FileMark, SnapshotError> {
        let file = File::open(&self.path).map_err(io_error("open", &self.path))?;
        let mut digest = [0; DIGEST_BYTES];
        file.read_exact_at(&mut digest, self.bytes - DIGEST_BYTES as u64)
            .map_err(io_error("read", &self.path))?;
        let bytes = self.bytes;
        Ok(FileMark { bytes, digest })
    }
}

/// An open snapshot file on its way to another node.
#[derive(Debug)]
pub struct Pieces {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl Pieces {
    /// The piece at `offset`; empty at the end. Blocks.
    pub fn read(&self, offset: u64) -> Result<Vec<u8>, SnapshotError> {
        let left = self.bytes.saturating_sub(offset);
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(PIECE_BYTES_MAX);
        let mut piece = vec![0; length];
        self.file
            .read_exact_at(&mut piece, offset)
            .map_err(io_error("read", &self.path))?;
        Ok(piece)
    }
}

/// A snapshot that is being received; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    pub(super) temporary: Temporary,
    pub(super) index: u64,
    pub(super) bytes: u64,
}

impl Incoming {
    /// Bytes that are here.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.bytes
    }

    /// Takes the next piece. Blocks.
    pub fn write(&mut self, offset: u64, piece: &[u8]) -> Result<(), SnapshotError> {
        if offset != self.bytes {
            return Err(SnapshotError::Order {
                expected: self.bytes,
                found: offset,
            });
        }
        let mut file = &self.temporary.file;
        file.write_all(piece)
            .map_err(io_error("write", &self.temporary.path))?;
        self.bytes += piece.len() as u64;
        Ok(())
    }

    /// Checks what arrived. It becomes a snapshot of this node by [`super::Snapshots::adopt`] only.
    pub fn finish(self) -> Result<SnapshotFile, SnapshotError> {
        let mut file = check(&self.temporary.path)?;
        file.index = self.index;
        file._temporary = Some(Arc::new(self.temporary));
        Ok(file)
    }
}
