//! A byte search through all files below a directory, as somebody would do it who stole the disk.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Bytes read at once.
const STEP_BYTES: usize = 1 << 20;

/// A file that holds what was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// Files below `directory` that hold `needle`, and how many files were read. Links are not followed; programs below
/// `bin` are not read, for nothing writes them.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn files_with(directory: &Path, needle: &[u8]) -> Result<(Vec<Found>, usize)> {
    let (mut found, mut read) = (Vec::new(), 0);
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && entry.file_name() != "bin" {
                open.push(path);
            } else if kind.is_file() {
                // A file that was renamed away meanwhile is looked at under its new name.
                let Ok(file) = File::open(&path) else {
                    continue;
                };
                read += 1;
                let mode = file.metadata()?.permissions().mode() & 0o7777;
                if holds(file, needle)
                    .with_context(|| format!("{} cannot be read", path.display()))?
                {
                    found.push(Found { path, mode });
                }
            }
        }
    }
    Ok((found, read))
}

fn holds(mut file: File, needle: &[u8]) -> Result<bool> {
    let mut kept = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = file.read(&mut step)?;
        if read == 0 {
            return Ok(false);
        }
        kept.extend_from_slice(&step[..read]);
        if crate::processes::contains(&kept, needle) {
            return Ok(true);
        }
        let tail = kept.len().saturating_sub(needle.len());
        kept.drain(..tail);
    }
}

#[cfg(test)]
mod tests {
    use super::files_with;

    #[test]
    fn a_needle_across_two_reads_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![b'.'; super::STEP_BYTES - 3];
        bytes.extend_from_slice(b"needle");
        std::fs::write(directory.path().join("file"), bytes).unwrap();
        let (found, read) = files_with(directory.path(), b"needle").unwrap();
        assert_eq!((found.len(), read), (1, 1));
        assert!(
            files_with(directory.path(), b"needles")
                .unwrap()
                .0
                .is_empty()
        );
    }
}
