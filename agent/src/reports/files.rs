//! The files in which reports are remembered, one a unit: a line for each record, appended once the record is in the
//! chain. Lines are not synced: the records are, and what a power cut takes is read from them again at the start.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use dotmac_protocol::{
    ids::{IncarnationId, UnitId},
    record::{Event, Outcome, Record},
};
use dotmac_runtime::disk;

use super::memory::{Entry, Memory};

const EXTENSION: &str = "jsonl";
/// Bytes that a file may grow by before it is written anew with what still counts in it.
const GROWTH_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that is remembered of one unit, in memory and on disk.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) memory: Memory,
    file: PathBuf,
    incarnation: String,
    /// Bytes that were appended since the file was written whole; `None` when it has to be.
    grown: Option<u64>,
}

/// What is remembered of all units, while the chain is read.
#[derive(Debug)]
pub struct ReportFiles {
    pub(super) directory: PathBuf,
    pub(super) incarnation: String,
    pub(super) units: BTreeMap<UnitId, Remembered>,
}

impl ReportFiles {
    /// Reads all files of a directory. A damaged line is told and its record read from the chain again.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(directory: &Path, incarnation: &IncarnationId) -> io::Result<Self> {
        disk::create_private_dir(directory)?;
        let incarnation = incarnation.to_string();
        let mut units = BTreeMap::new();
        for file in fs::read_dir(directory)? {
            let file = file?.path();
            if let Some(unit) = unit_of(&file) {
                units.insert(unit, Remembered::read(file, &incarnation)?);
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            incarnation,
            units,
        })
    }

    /// Takes a record of the chain, in order: what its line should say and does not is written down again.
    pub fn repair(&mut self, record: &Record) {
        let Some(unit) = &record.unit else { return };
        match &record.event {
            Event::Reports(reports) => {
                let file = file_of(&self.directory, unit);
                let incarnation = &self.incarnation;
                let remembered = self
                    .units
                    .entry(unit.clone())
                    .or_insert_with(|| Remembered::new(file, incarnation));
                if record.sequence > remembered.memory.through() {
                    remembered
                        .take(|memory| memory.take(record.sequence, record.at, false, reports));
                }
            }
            Event::Receipt(receipt) if receipt.outcome == Outcome::Removed => {
                if let Some(remembered) = self.units.remove(unit) {
                    remembered.remove();
                }
            }
            Event::Receipt(_) | Event::Health(_) | Event::Audit { .. } => {}
        }
    }
}

impl Remembered {
    pub(super) fn new(file: PathBuf, incarnation: &str) -> Self {
        Self {
            memory: Memory::default(),
            file,
            incarnation: incarnation.to_owned(),
            grown: None,
        }
    }

    /// Changes what is remembered and writes the change down. A failing disk is told; the file is then written whole
    /// the next time.
    pub(super) fn take(&mut self, change: impl FnOnce(&mut Memory) -> Entry) {
        let entry = change(&mut self.memory);
        let written = match self.grown {
            Some(grown) if grown < GROWTH_BYTES_MAX => self.append(&entry).map(|more| grown + more),
            _ => self.write_whole().map(|()| 0),
        };
        match written {
            Ok(grown) => self.grown = Some(grown),
            Err(error) => {
                self.grown = None;
                let file = self.file.display();
                tracing::error!(%error, path = %file, "reports are not remembered on disk");
            }
        }
    }

    /// Forgets all of it, on disk too.
    pub(super) fn remove(self) {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let file = self.file.display();
                tracing::warn!(%error, path = %file, "what is remembered of a removed unit stays on disk");
            }
            _ => {}
        }
    }

    fn read(file: PathBuf, incarnation: &str) -> io::Result<Self> {
        let text = fs::read(&file)?;
        let mut remembered = Self::new(file, incarnation);
        let mut is_whole = text.ends_with(b"\n");
        let mut is_ours = false;
        for line in text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice::<Entry>(line) {
                Ok(entry) => {
                    is_ours |= entry.incarnation.as_deref() == Some(incarnation);
                    remembered.memory.merge(entry);
                }
                Err(_) => is_whole = false,
            }
        }
        if is_whole && is_ours {
            // Also counts what was there before: it is written whole a little earlier than it had to be.
            remembered.grown = Some(u64::try_from(text.len()).unwrap_or(u64::MAX));
        } else {
            let file = remembered.file.display();
            tracing::warn!(path = %file, "what is remembered of reports is damaged or of an earlier life; reading the records again");
            remembered.memory.restart();
        }
        Ok(remembered)
    }

    fn append(&self, entry: &Entry) -> io::Result<u64> {
        let line = line_of(entry);
        let mut file = OpenOptions::new().append(true).open(&self.file)?;
        file.write_all(&line)?;
        Ok(u64::try_from(line.len()).unwrap_or(u64::MAX))
    }

    fn write_whole(&self) -> io::Result<()> {
        let entries = self.memory.entries(&self.incarnation);
        let lines: Vec<u8> = entries.iter().flat_map(line_of).collect();
        disk::write_atomic(&self.file, &lines, 0o600)
    }
}

pub(super) fn file_of(directory: &Path, unit: &UnitId) -> PathBuf {
    let name = unit.as_str().replace('/', ".");
    directory.join(format!("{name}.{EXTENSION}"))
}

fn unit_of(file: &Path) -> Option<UnitId> {
    file.extension().filter(|found| *found == EXTENSION)?;
    let stem = file.file_stem()?.to_str()?;
    stem.replacen('.', "/", 1).parse().ok()
}

fn line_of(entry: &Entry) -> Vec<u8> {
    let mut line = serde_json::to_vec(entry).expect("numbers and texts have a JSON form");
    line.push(b'\n');
    line
}
