//! Where records lie in a controller's files, so that a bit of exactly one can be flipped. What there is comes from the
//! storage engine itself, on a copy; where it lies is found in the raw file by its bytes and proven by its checksum, which
//! covers the key. The engine keeps older copies of leaves, so a record may lie in several places of which one counts.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use dotmac_controller::storage::{
    directory::Directory,
    engine::{Area, Engine, EngineConfig, Key, abort_on_fatal},
};
use dotmac_runtime::{disk::SystemDisk, entropy::Entropy};
use memchr::memmem;

/// Bytes before a stored value: checksum, stamp, number of chunks.
const HEADER_BYTES: usize = 4 + 8 + 2;
/// Values that are stored in one chunk have at most so many bytes.
const ONE_CHUNK_MAX: usize = 8 * 1024 - 256;
/// The database below a data folder.
const DATABASE: &str = "store/records/db";
const SNAPSHOTS: &str = "store/snapshots";

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Vote,
    Snapshot,
    /// A fact; where it is told.
    Ledger {
        stream: String,
        sequence: u64,
    },
    /// The end of a stream.
    Head,
}

/// One place of one record.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub(crate) kind: Kind,
    /// The file, below the data folder.
    file: PathBuf,
    first: u64,
    bytes: u64,
}

/// A flipped bit.
#[derive(Debug)]
pub(crate) struct Flip {
    path: PathBuf,
    at: u64,
    after: u8,
    bit: u8,
}

impl Spot {
    /// Flips one bit of it, anywhere.
    pub(crate) fn flip(&self, data: &Path, entropy: &Entropy) -> Result<Flip> {
        let (path, at) = (
            data.join(&self.file),
            self.first + entropy.below(self.bytes),
        );
        let bit = 1 << entropy.below(8);
        let before = byte_at(&path, at)?;
        let flip = Flip {
            path,
            at,
            after: before ^ bit,
            bit,
        };
        flip.put(flip.after)?;
        Ok(flip)
    }
}

impl Flip {
    /// Takes it back, if what lies there is still what it left.
    pub(crate) fn take_back(&self) -> Result<()> {
        if self.path.exists() && byte_at(&self.path, self.at)? == self.after {
            self.put(self.after ^ self.bit)?;
        }
        Ok(())
    }

    fn put(&self, byte: u8) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all_at(&[byte], self.at)?;
        Ok(file.sync_all()?)
    }
}

fn byte_at(path: &Path, at: u64) -> Result<u8> {
    let mut byte = [0];
    fs::File::open(path)?.read_exact_at(&mut byte, at)?;
    Ok(byte[0])
}

/// Places of records in a data folder: the vote, snapshots, and of every other kind about so many records, the newest first
/// of the log. `copy` is a copy of the folder that may be opened.
pub(crate) fn find(data: &Path, copy: &Path, each: usize) -> Result<Vec<Spot>> {
    let database = fs::read(data.join(DATABASE))?;
    let newest_snapshot = snapshots(data)?.pop();
    let covered = newest_snapshot.as_deref().and_then(index_of).unwrap_or(0);
    let mut spots = Vec::new();
    for (key, value, kind) in records(copy, covered, each)? {
        for first in places(&database, key.as_bytes(), &value) {
            spots.push(Spot {
                kind: kind.clone(),
                file: DATABASE.into(),
                first: first as u64,
                bytes: (HEADER_BYTES + value.len()) as u64,
            });
        }
    }
    if let Some(path) = newest_snapshot {
        spots.push(Spot {
            kind: Kind::Snapshot,
            bytes: fs::metadata(&path)?.len(),
            file: path.strip_prefix(data)?.to_owned(),
            first: 0,
        });
    }
    Ok(spots)
}

/// Snapshot files of a data folder, the newest last.
pub(crate) fn snapshots(data: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(data.join(SNAPSHOTS)).context("no snapshots")?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "snapshot"));
    paths.sort();
    Ok(paths)
}

/// Snapshots that a controller found damaged and set aside.
pub(crate) fn set_aside(data: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(data.join(SNAPSHOTS))?.flatten();
    let paths = entries.map(|entry| entry.path());
    Ok(paths
        .filter(|path| path.extension().is_some_and(|end| end == "damaged"))
        .collect())
}

/// The log index that a snapshot's name tells.
fn index_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.split_once('-')?.0.parse().ok()
}

type Record = (Key, Vec<u8>, Kind);

/// Records of a storage directory that is opened for it.
fn records(data: &Path, covered: u64, each: usize) -> Result<Vec<Record>> {
    let directory = Directory::open(&data.join("store"), &SystemDisk)?;
    let config = EngineConfig::default();
    let engine = Engine::open(directory, &config, SystemDisk::shared(), abort_on_fatal())?;
    let mut found: Vec<Record> = Vec::new();
    let vote = Key::of(Area::Raft).text("vote");
    if let Some(value) = engine.get(&vote)? {
        found.push((vote, value, Kind::Vote));
    }
    let fact = |key: &Key| {
        let (name, sequence) = key.as_bytes().get(2..)?.split_last_chunk::<8>()?;
        let stream = String::from_utf8(name.to_vec()).ok()?;
        let sequence = u64::from_be_bytes(*sequence);
        Some(Kind::Ledger { stream, sequence })
    };
    let entry = |key: &Key| {
        let index = key
            .as_bytes()
            .last_chunk()
            .copied()
            .map(u64::from_be_bytes)?;
        // What a snapshot covers is read only for a follower that fell behind.
        (index > covered).then_some(Kind::Log)
    };
    for area in [Area::Log, Area::Facts, Area::Heads] {
        let kind = |key: &Key| match area {
            Area::Log => entry(key),
            Area::Facts => fact(key),
            _ => Some(Kind::Head),
        };
        let mut all: Vec<Record> = Vec::new();
        for record in engine.scan(Key::of(area)..Key::of(area).end()) {
            let (key, value) = record?;
            if let Some(kind) = kind(&key).filter(|_| value.len() <= ONE_CHUNK_MAX) {
                all.push((key, value, kind));
            }
        }
        let step = (all.len() / each.max(1)).max(1);
        found.extend(all.into_iter().rev().step_by(step).take(each));
    }
    Ok(found)
}

/// Where a record's stored form begins, in each of its copies.
fn places(database: &[u8], key: &[u8], value: &[u8]) -> Vec<usize> {
    // One chunk: its number and the number of chunks, before the value.
    let body = [&1_u16.to_le_bytes(), value].concat();
    let found = memmem::find_iter(database, &body);
    let starts = found.filter_map(|at| at.checked_sub(HEADER_BYTES - 2));
    starts
        .filter(|start| {
            let stored = &database[*start..*start + HEADER_BYTES + value.len()];
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(key);
            checksum.update(&0_u16.to_be_bytes());
            checksum.update(&stored[4..]);
            stored[..4] == checksum.finalize().to_le_bytes()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADER_BYTES, places};

    #[test]
    fn a_record_is_found_only_with_the_checksum_of_its_key() {
        let (key, value) = (b"key".as_slice(), b"a value".as_slice());
        let mut stored = vec![0; 4];
        stored.extend(7_u64.to_le_bytes());
        stored.extend(1_u16.to_le_bytes());
        stored.extend(value);
        let checksum = crc32fast::hash(&[key, &[0, 0], &stored[4..]].concat());
        stored[..4].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(stored.len(), HEADER_BYTES + value.len());
        let file = [b"before".as_slice(), &stored, b"between", &stored].concat();
        let second = 6 + stored.len() + 7;
        assert_eq!(places(&file, key, value), [6, second]);
        assert!(places(&file, b"another", value).is_empty());
        let mut changed = file;
        changed[second + 5] ^= 1;
        assert_eq!(places(&changed, key, value), [6]);
    }
}
