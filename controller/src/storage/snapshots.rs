//! Snapshot files: a header, a body and the SHA-256 of both, written whole or not at all, the last two kept.
//!
//! A file is `magic | length of the header | header | body | SHA-256`. Bodies are written and read in pieces. A newest file
//! that fails its checksum is set aside and the one before it is used; nothing unchecked is handed out.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use dotmac_protocol::digest::Digest;
use dotmac_runtime::disk::{SharedDisk, create_private_dir};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Bytes of one piece of a file on its way to another node at most.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a header at most.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Snapshots kept.
const KEPT: usize = 2;
const MAGIC: &[u8; 8] = b"DMSNAP01";
const FIXED_BYTES: usize = 12;
const DIGEST_BYTES: usize = 32;
const FOLDER: &str = "snapshots";
const ENDING: &str = ".snapshot";
const TEMPORARY_ENDING: &str = ".incoming";
const DAMAGED_ENDING: &str = ".damaged";

mod transfer;

pub use transfer::{FileMark, Incoming, Pieces};

/// Why a snapshot cannot be written or read.
#[derive(Debug, Error)]
pub enum SnapshotError {
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
    /// The file fails its checksum or its form.
    #[error("snapshot {path} is damaged")]
    Damaged {
        /// Which one.
        path: PathBuf,
    },
    /// A piece does not continue what arrived.
    #[error("a piece at {found} came when {expected} was due")]
    Order {
        /// Bytes received so far.
        expected: u64,
        /// Where the piece belongs.
        found: u64,
    },
}

/// The folder of snapshot files; clones share it.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
    disk: SharedDisk,
}

/// A checked snapshot file. A temporary one is removed with its last handle.
#[derive(Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    index: u64,
    header: Vec<u8>,
    bytes: u64,
    _temporary: Option<std::sync::Arc<Temporary>>,
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "SnapshotFile({}, {} bytes)",
            self.path.display(),
            self.bytes
        )
    }
}

impl Snapshots {
    /// Opens the folder below a storage directory and removes what a killed process left half-written.
    pub fn open(directory: &Path, disk: SharedDisk) -> Result<Self, SnapshotError> {
        let folder = directory.join(FOLDER);
        create_private_dir(&folder).map_err(io_error("create", &folder))?;
        for path in list(&folder, TEMPORARY_ENDING)? {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        disk.sync_dir(directory)
            .map_err(io_error("sync", directory))?;
        Ok(Self { folder, disk })
    }

    /// Writes a snapshot of log index `index`; `body` writes its bytes. Blocks.
    pub fn write(
        &self,
        index: u64,
        header: &[u8],
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<SnapshotFile, SnapshotError> {
        let temporary = Temporary::create(&self.folder)?;
        let path = &temporary.path;
        let written = write_file(&temporary.file, header, body);
        let bytes = written.map_err(io_error("write", path))?;
        let file = SnapshotFile {
            path: path.clone(),
            index,
            header: header.to_vec(),
            bytes,
            _temporary: None,
        };
        self.place(&file)
    }

    /// The newest snapshot whose checksum holds. Blocks while it reads.
    pub fn newest(&self) -> Result<Option<SnapshotFile>, SnapshotError> {
        for path in list(&self.folder, ENDING)?.into_iter().rev() {
            match check(&path) {
                Ok(file) => return Ok(Some(file)),
                Err(SnapshotError::Damaged { path }) => {
                    tracing::error!(path = %path.display(), "snapshot is damaged and set aside");
                    let aside = path.with_extension(&DAMAGED_ENDING[1..]);
                    fs::rename(&path, &aside).map_err(io_error("set aside", &path))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Starts to receive a snapshot of log index `index` in pieces.
    pub fn receive(&self, index: u64) -> Result<Incoming, SnapshotError> {
        let temporary = Temporary::create(&self.folder)?;
        Ok(Incoming {
            temporary,
            index,
            bytes: 0,
        })
    }

    /// Makes a snapshot the newest of this folder: a received one is moved, another folder's is copied. Blocks.
    pub fn adopt(&self, file: &SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        if file.path.parent() == Some(&self.folder) {
            if file._temporary.is_none() {
                return Ok(file.clone());
            }
            return self.place(file);
        }
        let temporary = Temporary::create(&self.folder)?;
        let path = temporary.path.clone();
        fs::copy(&file.path, &path).map_err(io_error("copy", &file.path))?;
        let mut copy = check(&path)?;
        copy.index = file.index;
        self.place(&copy)
    }

    /// Syncs a finished file, gives it its name, and removes those that are too many.
    fn place(&self, file: &SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        self.disk
            .sync_data(&file.path)
            .map_err(io_error("sync", &file.path))?;
        let known = list(&self.folder, ENDING)?;
        let number = known
            .iter()
            .filter_map(|path| parse_name(path))
            .map(|(_, number)| number);
        let number = number.max().unwrap_or(0) + 1;
        let path = self
            .folder
            .join(format!("{:020}-{number:010}{ENDING}", file.index));
        fs::rename(&file.path, &path).map_err(io_error("rename", &file.path))?;
        self.disk
            .sync_dir(&self.folder)
            .map_err(io_error("sync", &self.folder))?;
        // An index may be taken again after the newest was damaged: the newest by number stays in any case.
        for old in known
            .iter()
            .rev()
            .filter(|old| **old != path)
            .skip(KEPT - 1)
        {
            fs::remove_file(old).map_err(io_error("remove", old))?;
        }
        let mut placed = file.clone();
        placed.path = path;
        placed._temporary = None;
        Ok(placed)
    }
}

impl SnapshotFile {
    /// The header it was written with.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader of the body.
    pub fn body(&self) -> Result<impl Read + use<>, SnapshotError> {
        let mut file = File::open(&self.path).map_err(io_error("open", &self.path))?;
        let start = (FIXED_BYTES + self.header.len()) as u64;
        file.seek(SeekFrom::Start(start))
            .map_err(io_error("read", &self.path))?;
        let length = self.bytes - start - DIGEST_BYTES as u64;
        Ok(BufReader::with_capacity(256 * 1024, file).take(length))
    }

    /// A reader of the whole file in pieces, which stays readable when the file is removed meanwhile.
    pub fn pieces(&self) -> Result<Pieces, SnapshotError> {
        let file = File::open(&self.path).map_err(io_error("open", &self.path))?;
        Ok(Pieces {
            file,
            path: self.path.clone(),
            bytes: self.bytes,
        })
    }
}

/// A file under construction.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(folder: &Path) -> Result<Self, SnapshotError> {
        for number in 0..u32::MAX {
            let path = folder.join(format!("{number}{TEMPORARY_ENDING}"));
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match opened {
                Ok(file) => return Ok(Self { path, file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(io_error("create", &path)(source)),
            }
        }
        Err(SnapshotError::Damaged {
            path: folder.into(),
        })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Absent when it was renamed; whatever is left otherwise goes at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a whole file and says how long it is.
fn write_file(
    file: &File,
    header: &[u8],
    body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    let length = u32::try_from(header.len())
        .ok()
        .filter(|_| header.len() <= HEADER_BYTES_MAX)
        .ok_or_else(|| io::Error::other("the header is too long"))?;
    let mut writer = Hashing {
        inner: BufWriter::with_capacity(256 * 1024, file),
        hasher: Sha256::new(),
        bytes: 0,
    };
    writer.write_all(MAGIC)?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(header)?;
    body(&mut writer)?;
    let digest = writer.hasher.finalize();
    writer.inner.write_all(&digest)?;
    writer.inner.flush()?;
    Ok(writer.bytes + DIGEST_BYTES as u64)
}

/// Reads a file through and checks it.
fn check(path: &Path) -> Result<SnapshotFile, SnapshotError> {
    let damaged = || SnapshotError::Damaged { path: path.into() };
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_err(io_error("read", path))?.len();
    let covered = bytes.checked_sub(DIGEST_BYTES as u64).ok_or_else(damaged)?;
    let mut reader = BufReader::with_capacity(256 * 1024, &mut file).take(covered);
    let mut hasher = Sha256::new();
    let mut fixed = [0; FIXED_BYTES];
    reader.read_exact(&mut fixed).map_err(|_| damaged())?;
    hasher.update(fixed);
    let (magic, length) = fixed.split_at(8);
    let length = u32::from_be_bytes(length.try_into().expect("four bytes are left"));
    let length = usize::try_from(length).map_err(|_| damaged())?;
    if magic != MAGIC || length > HEADER_BYTES_MAX {
        return Err(damaged());
    }
    let mut header = vec![0; length];
    reader.read_exact(&mut header).map_err(|_| damaged())?;
    hasher.update(&header);
    let mut piece = vec![0; PIECE_BYTES_MAX];
    loop {
        let read = reader.read(&mut piece).map_err(io_error("read", path))?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
    }
    let mut stored = [0; DIGEST_BYTES];
    file.read_exact_at(&mut stored, covered)
        .map_err(io_error("read", path))?;
    if Digest::from_bytes(stored) != Digest::from_bytes(hasher.finalize().into()) {
        return Err(damaged());
    }
    Ok(SnapshotFile {
        path: path.to_path_buf(),
        index: parse_name(path).map_or(0, |(index, _)| index),
        header,
        bytes,
        _temporary: None,
    })
}

struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Index and number in a file's name.
fn parse_name(path: &Path) -> Option<(u64, u64)> {
    let (index, number) = path.file_stem()?.to_str()?.split_once('-')?;
    Some((index.parse().ok()?, number.parse().ok()?))
}

/// The folder's files with an ending, oldest first.
fn list(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, SnapshotError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let path = entry.map_err(io_error("list", folder))?.path();
        if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests;
