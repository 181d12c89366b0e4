//! Files that survive a power cut: written whole or not at all, synced before anybody is told. It keeps no file
//! open longer than its owner wants and never follows a half-written one.

pub mod cut;
mod measured;

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use measured::MeasuredDisk;

/// What makes bytes durable. The real one syncs; a test's one remembers what was synced and drops the rest.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Returns once the file's bytes and length would survive a power cut.
    ///
    /// # Errors
    /// When the system cannot say so: the caller must then treat everything since the last sync as lost.
    fn sync_data(&self, path: &Path) -> io::Result<()>;

    /// Returns once the names in the directory would survive a power cut.
    ///
    /// # Errors
    /// As [`Disk::sync_data`].
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A disk that several owners share.
pub type SharedDisk = Arc<dyn Disk>;

/// The system's disk: fdatasync and fsync.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl SystemDisk {
    /// The system's disk, ready to be shared.
    #[must_use]
    pub fn shared() -> SharedDisk {
        Arc::new(Self)
    }
}

impl Disk for SystemDisk {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        // Another descriptor of the same file syncs all of the file's bytes.
        File::open(path)?.sync_data()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Replaces `path` by `bytes` with permissions `mode`: afterwards, and after a power cut, it is the old file or the new.
/// One writer per path at a time. A stale temporary file of a killed writer is overwritten.
///
/// # Errors
/// When any step fails; `path` is then the old file, or already the new one if only the last sync failed.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_atomic_on(&SystemDisk, path, bytes, mode)
}

/// As [`write_atomic`], on a given disk.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_atomic_on(disk: &dyn Disk, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_path(path)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| disk.sync_data(&temporary))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    disk.sync_dir(parent_of(path))
}

/// Makes a directory, and those above it, that only its owner may enter (0700); one that exists is narrowed to that.
/// The new name is durable when this returns.
///
/// # Errors
/// When it cannot be made, or `path` is something else.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700))?;
    }
    SystemDisk.sync_dir(parent_of(path))
}

/// A file that only grows at its end. What was appended is durable after [`Appender::sync`], not before.
#[derive(Debug)]
pub struct Appender {
    file: File,
    path: PathBuf,
    disk: SharedDisk,
    length: u64,
}

impl Appender {
    /// Opens the file at its end, or makes an empty one with mode 0600 whose name is durable when this returns.
    ///
    /// # Errors
    /// When it can be neither opened nor made.
    pub fn open(path: &Path, disk: SharedDisk) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        disk.sync_dir(parent_of(path))?;
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            path: path.to_owned(),
            disk,
            length,
        })
    }

    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// When the disk refuses; the part that was written already is cut off again.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        Ok(())
    }

    /// Returns once everything appended is durable.
    ///
    /// # Errors
    /// When the system cannot say so.
    pub fn sync(&mut self) -> io::Result<()> {
        self.disk.sync_data(&self.path)
    }

    /// Cuts the file to its first `length` bytes, such as a torn tail after a crash. Durable after the next sync.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }

    /// Bytes in the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory a path's name lies in; a bare name lies in the current one.
#[must_use]
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        let text = format!("{} names no file", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

    use super::{
        Appender, SystemDisk, create_private_dir, cut::CutDisk, write_atomic, write_atomic_on,
    };

    #[test]
    fn an_atomic_write_leaves_the_old_or_the_new_content_after_a_power_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        for syncs_before_the_cut in 0..=2 {
            let disk = CutDisk::new(directory.path()).unwrap();
            write_atomic_on(&disk, &path, b"old", 0o600).unwrap();
            disk.lose_syncs_after(syncs_before_the_cut);
            write_atomic_on(&disk, &path, b"new", 0o600).unwrap();
            disk.cut_power().unwrap();
            let expected: &[u8] = if syncs_before_the_cut == 2 {
                b"new"
            } else {
                b"old"
            };
            assert_eq!(fs::read(&path).unwrap(), expected, "{syncs_before_the_cut}");
        }
    }

    #[test]
    fn an_atomic_write_sets_the_mode_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(
            directory.path().join(".key.new"),
            b"left by a killed writer",
        )
        .unwrap();
        fs::write(&path, b"old and readable by all").unwrap();
        write_atomic(&path, b"secret", 0o600).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(
            (mode & 0o777, fs::read(&path).unwrap()),
            (0o600, b"secret".to_vec())
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_atomic_write_leaves_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"new", 0o600).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn appended_bytes_are_durable_after_sync_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let disk = Arc::new(CutDisk::new(directory.path()).unwrap());
        let mut appender = Appender::open(&path, disk.clone()).unwrap();
        appender.append(b"one").unwrap();
        appender.sync().unwrap();
        appender.append(b"two").unwrap();
        drop(appender);
        disk.cut_power().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let reopened = Appender::open(&path, SystemDisk::shared()).unwrap();
        assert_eq!(reopened.length(), 3);
    }

    #[test]
    fn a_private_directory_is_narrowed_when_it_was_wide() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        create_private_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
