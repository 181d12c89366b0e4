//! The mark: the number of the last durable commit, kept outside the database.
//!
//! The database takes a damaged record for the torn end of its log and drops all behind it. The mark is written
//! after each sync and itself not synced: it is never ahead of what is on disk, so a database behind its mark has lost
//! what was acknowledged. It refuses to repair anything.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

const SLOT_BYTES: usize = 12;

/// An open mark file of two slots, written in turn.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Mark {
    /// Opens or creates the file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        Ok(Self { file })
    }

    /// The newest readable number; 0 when there is none.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut newest = 0;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            match self
                .file
                .read_exact_at(&mut bytes, slot * SLOT_BYTES as u64)
            {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            let (number, crc) = bytes.split_at(8);
            if crc == crc32fast::hash(number).to_le_bytes() {
                let number = number.try_into().expect("split at 8");
                newest = newest.max(u64::from_le_bytes(number));
            }
        }
        Ok(newest)
    }

    /// Notes that commit `number` is on disk.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_le_bytes());
        self.file
            .write_all_at(&bytes, number % 2 * SLOT_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::Mark;

    #[test]
    fn the_newest_readable_slot_counts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("mark");
        let mark = Mark::open(&path).unwrap();
        assert_eq!(mark.read().unwrap(), 0);
        mark.write(6).unwrap();
        mark.write(7).unwrap();
        assert_eq!(mark.read().unwrap(), 7);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[13] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Mark::open(&path).unwrap().read().unwrap(), 6);
    }
}
