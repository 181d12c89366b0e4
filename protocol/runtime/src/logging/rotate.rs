//! A file that never grows past its bound: when full it becomes `.1`, `.1` becomes `.2`, and the oldest goes.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// See the module's text. One process at a time may write; others may read any of the files.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    bytes_max: u64,
    keep: u32,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    /// Opens the file at its end, or makes it with mode 0600. A `bytes_max` of 0 counts as 1.
    ///
    /// # Errors
    /// When it can be neither opened nor made.
    pub fn open(path: &Path, bytes_max: u64, keep: u32) -> io::Result<Self> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            bytes_max: bytes_max.max(1),
            keep,
            file,
            bytes,
        })
    }

    /// The path of the `number`th older file; 0 is the current one.
    #[must_use]
    pub fn path_of(path: &Path, number: u32) -> PathBuf {
        if number == 0 {
            return path.to_owned();
        }
        let mut name = OsString::from(path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..self.keep).rev() {
            let older = Self::path_of(&self.path, number + 1);
            match fs::rename(Self::path_of(&self.path, number), older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        self.file = open(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}

impl Write for RotatingFile {
    /// Writes to one file: what does not fit begins a new one, and what fits in none is taken in parts.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        if self.bytes > 0 && self.bytes.saturating_add(wanted) > self.bytes_max {
            self.rotate()?;
        }
        let fits = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
        let written = self.file.write(&bytes[..bytes.len().min(fits)])?;
        self.bytes += u64::try_from(written).expect("a length fits in 64 bits");
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, path::Path};

    use super::RotatingFile;

    fn sizes(directory: &Path) -> Vec<u64> {
        let mut sizes: Vec<u64> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn a_rotating_file_stays_within_its_bound_and_keeps_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatingFile::open(&path, 100, 2).unwrap();
        for number in 0..1_000 {
            writeln!(file, "line {number:04}").unwrap();
            let sizes = sizes(directory.path());
            assert!(
                sizes.len() <= 3 && sizes.iter().all(|size| *size <= 100),
                "{sizes:?}"
            );
        }
        let texts: Vec<String> = (0..3)
            .rev()
            .map(|number| fs::read_to_string(RotatingFile::path_of(&path, number)).unwrap())
            .collect();
        let text = texts.concat();
        assert!(text.ends_with("line 0998\nline 0999\n"));
        let lines: Vec<&str> = text.lines().collect();
        let first = 1_000 - lines.len();
        let expected: Vec<String> = (first..1_000).map(|n| format!("line {n:04}")).collect();
        assert_eq!(lines, expected, "no line is split, lost or repeated");
    }

    #[test]
    fn a_write_larger_than_the_bound_is_taken_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatingFile::open(&path, 10, 1).unwrap();
        file.write_all(&[b'x'; 35]).unwrap();
        assert_eq!(sizes(directory.path()), [5, 10]);
    }

    #[test]
    fn a_reopened_file_goes_on_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        RotatingFile::open(&path, 10, 0)
            .unwrap()
            .write_all(b"12345678")
            .unwrap();
        RotatingFile::open(&path, 10, 0)
            .unwrap()
            .write_all(b"abc")
            .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(sizes(directory.path()), [3]);
    }
}
