//! Reads a chain from disk, link by link, and proves it. It changes nothing and keeps nothing in memory but what
//! its visitor keeps.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use dotmac_protocol::{
    digest::Digest,
    ids::{AgentId, IncarnationId},
    keys::PublicKey,
    line::{self, LINE_BYTES_MAX},
    record::{ChainHead, Record, SignedRecord},
};
use thiserror::Error;

pub(super) const EXTENSION: &str = "jsonl";
const MARK_FILE: &str = "acknowledged";
const EPOCH_FILE: &str = "epoch";

/// A record that is not what the agent wrote, or is missing.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("record {sequence} ({}, line {line}): {reason}", file.display())]
pub struct BadRecord {
    /// Its number in the chain.
    pub sequence: u64,
    /// The file it should be in.
    pub file: PathBuf,
    /// The line there, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// What a proven chain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose chain it is; `None` when it is empty.
    pub owner: Option<(AgentId, IncarnationId)>,
    /// First record on disk; older ones were acknowledged and dropped. 0 when it is empty.
    pub first: u64,
    /// Last record; 0 when it is empty.
    pub last: u64,
    /// Digest of the last record: equal digests mean equal chains.
    pub digest: Digest,
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What a walk found besides the records.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) verified: Verified,
    /// Bad records that were tolerated.
    pub(super) bad: Vec<BadRecord>,
    /// First sequence and length in bytes (whole lines only) of each segment.
    pub(super) segments: Vec<(u64, u64)>,
}

/// Proves the chain in a directory with the agent's public key: every signature, every link, every readable word,
/// and that nothing that the controllers acknowledged is missing at its end.
///
/// # Errors
/// The first bad record.
pub fn verify(directory: &Path, key: &PublicKey) -> Result<Verified, BadRecord> {
    let acknowledged = read_mark(directory).map_err(|error| unreadable(directory, 0, &error))?;
    walk(directory, key, acknowledged, 0, |_, _, _| {}).map(|walked| walked.verified)
}

/// Walks all segments in order. Bad records up to `tolerate_through` are collected and stepped over; the first
/// later one ends the walk. A last line without its line break is what a crash left, and is not counted.
pub(super) fn walk(
    directory: &Path,
    key: &PublicKey,
    acknowledged: u64,
    tolerate_through: u64,
    mut visit: impl FnMut(&Record, &SignedRecord, Place),
) -> Result<Walked, BadRecord> {
    let files = segments(directory).map_err(|error| unreadable(directory, 0, &error))?;
    let mut walker = Walker {
        key,
        tolerate_through,
        head: None,
        sequence: files
            .first()
            .map_or(0, |(first, _)| first.saturating_sub(1)),
        owner: None,
        bad: Vec::new(),
    };
    walker.head = (walker.sequence == 0).then_some(ChainHead::START);
    let first = walker.sequence + 1;
    let mut lengths = Vec::new();
    for (number, file) in &files {
        let bytes = walker.segment(*number, file, &mut visit)?;
        lengths.push((*number, bytes));
    }
    let last = walker.sequence;
    if last < acknowledged {
        let file = files
            .last()
            .map_or(directory.to_owned(), |(_, file)| file.clone());
        return Err(BadRecord {
            sequence: last + 1,
            file,
            line: 0,
            reason: format!("it is missing; controllers acknowledged up to {acknowledged}"),
        });
    }
    let verified = Verified {
        owner: walker.owner,
        first: if last < first { 0 } else { first },
        last,
        digest: walker.head.map_or(Digest::ZERO, |head| head.digest),
    };
    Ok(Walked {
        verified,
        bad: walker.bad,
        segments: lengths,
    })
}

struct Walker<'a> {
    key: &'a PublicKey,
    tolerate_through: u64,
    /// The link before; unknown at the start of a chain whose beginning was dropped, and behind a bad record.
    head: Option<ChainHead>,
    sequence: u64,
    owner: Option<(AgentId, IncarnationId)>,
    bad: Vec<BadRecord>,
}

impl Walker<'_> {
    fn segment(
        &mut self,
        number: u64,
        file: &Path,
        visit: &mut impl FnMut(&Record, &SignedRecord, Place),
    ) -> Result<u64, BadRecord> {
        let failed = |sequence, error: io::Error| unreadable(file, sequence, &error);
        let mut reader = BufReader::new(File::open(file).map_err(|error| failed(number, error))?);
        let (mut offset, mut line_number) = (0_u64, 0_u64);
        let mut line = Vec::new();
        if number > self.sequence.saturating_add(1) {
            self.note_bad(file, 0, format!("it is missing; {number} follows"))?;
            (self.sequence, self.head) = (number - 1, None);
        }
        loop {
            line.clear();
            let limit = u64::try_from(LINE_BYTES_MAX).expect("a small constant");
            let length = reader
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut line)
                .map_err(|error| failed(self.sequence + 1, error))?;
            if line.last() != Some(&b'\n') && length < LINE_BYTES_MAX {
                return Ok(offset);
            }
            line_number += 1;
            let place = Place {
                segment: number,
                offset,
                length: u32::try_from(length).expect("a line is short"),
            };
            offset += u64::from(place.length);
            self.line(file, line_number, &line[..length - 1], place, visit)?;
        }
    }

    fn line(
        &mut self,
        file: &Path,
        line_number: u64,
        line: &[u8],
        place: Place,
        visit: &mut impl FnMut(&Record, &SignedRecord, Place),
    ) -> Result<(), BadRecord> {
        let checked = line::check(line, self.key, self.head).and_then(|(record, signed, head)| {
            let expected = self.sequence + 1;
            if record.sequence != expected {
                return Err(format!("record {} is in its place", record.sequence));
            }
            let owner = (record.agent.clone(), record.incarnation.clone());
            if *self.owner.get_or_insert_with(|| owner.clone()) != owner {
                return Err(format!("it belongs to agent {}", record.agent));
            }
            Ok((record, signed, head))
        });
        match checked {
            Ok((record, signed, head)) => {
                visit(&record, &signed, place);
                (self.sequence, self.head) = (head.sequence, Some(head));
            }
            Err(reason) => {
                self.note_bad(file, line_number, reason)?;
                (self.sequence, self.head) = (self.sequence + 1, None);
            }
        }
        Ok(())
    }

    fn note_bad(&mut self, file: &Path, line: u64, reason: String) -> Result<(), BadRecord> {
        let bad = BadRecord {
            sequence: self.sequence + 1,
            file: file.to_owned(),
            line,
            reason,
        };
        if bad.sequence > self.tolerate_through {
            return Err(bad);
        }
        self.bad.push(bad);
        Ok(())
    }
}

/// First sequence and file of each segment, in order.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let file = file?.path();
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        if file
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
            && let Some(first) = stem.and_then(|stem| stem.parse::<u64>().ok())
        {
            found.push((first, file));
        }
    }
    found.sort();
    Ok(found)
}

/// The last sequence that controllers acknowledged.
pub(super) fn read_mark(directory: &Path) -> io::Result<u64> {
    match std::fs::read_to_string(directory.join(MARK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the acknowledged mark is no number",
            )
        }),
    }
}

/// The last epoch for which everything was sent again; the first one needs that never.
pub(super) fn read_epoch(directory: &Path) -> io::Result<u64> {
    match std::fs::read_to_string(directory.join(EPOCH_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the epoch is no number")),
    }
}

pub(super) fn write_epoch(directory: &Path, epoch: u64) -> io::Result<()> {
    let text = format!("{epoch}\n");
    dotmac_runtime::disk::write_atomic(&directory.join(EPOCH_FILE), text.as_bytes(), 0o600)
}

pub(super) fn write_mark(directory: &Path, acknowledged: u64) -> io::Result<()> {
    let text = format!("{acknowledged}\n");
    dotmac_runtime::disk::write_atomic(&directory.join(MARK_FILE), text.as_bytes(), 0o600)
}

fn unreadable(file: &Path, sequence: u64, error: &io::Error) -> BadRecord {
    BadRecord {
        sequence,
        file: file.to_owned(),
        line: 0,
        reason: format!("it cannot be read: {error}"),
    }
}
