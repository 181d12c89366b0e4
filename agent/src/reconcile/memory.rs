//! What a unit's task remembers on disk: which starts it made, which ports it gave, and what it has recorded already,
//! so that a new agent goes on where the old one was killed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use dotmac_protocol::{
    digest::Digest,
    ids::{Generation, PartName, Sequence, UnitId},
    record::{ComponentHealth, HealthStatus, Limits},
    time::Timestamp,
    trace::TraceContext,
};
use dotmac_runtime::disk::{create_private_dir, write_atomic};
use serde::{Deserialize, Serialize};

use super::plan::StopReason;
use crate::driver::{SlotName, process::UnitFiles};

/// A unit's memory. JSON; members are only ever added, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Whose memory it is.
    pub unit: UnitId,
    /// The generation last worked on.
    #[serde(default)]
    pub generation: Generation,
    /// The order whose application was recorded.
    #[serde(default)]
    pub applied: Option<(Generation, Sequence)>,
    /// The order whose failing was recorded.
    #[serde(default)]
    pub failing: Option<(Generation, Sequence)>,
    /// The newest generation that was ever healthy.
    #[serde(default)]
    pub healthy: Option<Generation>,
    /// The health last recorded.
    #[serde(default)]
    pub reported: Option<Reported>,
    /// The slots, also those that are not wanted any more.
    #[serde(default)]
    pub slots: BTreeMap<SlotName, SlotMemory>,
}

/// The health last recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Of which generation.
    pub generation: Generation,
    /// The summary.
    pub status: HealthStatus,
    /// Why.
    pub reason: String,
    /// The parts.
    pub components: Vec<ComponentHealth>,
}

/// What is remembered of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotMemory {
    /// Number of the last start; 0 for none.
    pub launch: u64,
    /// The last start whose end was recorded.
    pub booked: u64,
    /// What the last start was made from; [`None`] before the first.
    pub fingerprint: Option<Digest>,
    /// The trace that the last start belongs to; no process is replaced for another one.
    pub trace: Option<TraceContext>,
    /// The order whose trace has a start of this slot already.
    pub traced: Option<Sequence>,
    /// The generation it counts for.
    pub generation: Generation,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its ports.
    pub ports: BTreeMap<PartName, u16>,
    /// Milliseconds it gets to stop.
    pub patience_ms: u64,
    /// The start that was asked to stop, why, and when.
    pub stopping: Option<(u64, StopReason, Timestamp)>,
    /// Ends in a row that nobody asked for, without a healthy period in between.
    pub crashes: u32,
    /// Restarts since the generation was applied.
    pub restarts: u32,
    /// When it was last started again after a crash.
    pub restarted_at: Option<Timestamp>,
    /// The last end that nobody asked for.
    pub last_end: Option<LastEnd>,
    /// Why the last attempt started nothing.
    pub refused: Option<String>,
    /// The newest generation in which it was ready.
    pub ready: Option<Generation>,
    /// The newest generation for which a task's end counts.
    pub done: Option<Generation>,
    /// Whether its limits hold.
    pub limits: Option<Limits>,
    /// Bytes it had written when it was last looked at.
    pub output_bytes: u64,
}

/// An end that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// When.
    pub at: Timestamp,
    /// How, in a few words.
    pub how: String,
    /// The last lines of output, without secrets.
    pub lines: String,
}

/// The mark of a removal that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    generation: Generation,
    sequence: Sequence,
}

impl SlotMemory {
    /// Whether what runs was started again after an end that nobody asked for.
    pub(super) fn is_started_again(&self) -> bool {
        self.restarted_at == Some(self.started_at)
    }

    /// What went wrong does not count any more.
    pub(super) fn forgive(&mut self) {
        self.crashes = 0;
        self.last_end = None;
        self.restarted_at = None;
        self.refused = None;
    }
}

impl Memory {
    /// The memory of a unit of which nothing is known.
    #[must_use]
    pub fn new(unit: &UnitId) -> Self {
        Self {
            unit: unit.clone(),
            generation: Generation::default(),
            applied: None,
            failing: None,
            healthy: None,
            reported: None,
            slots: BTreeMap::new(),
        }
    }

    /// Reads a unit's memory. A missing one is new; in place of a damaged one stands what the slots' own files tell, so
    /// that nothing that runs is started twice.
    ///
    /// # Errors
    /// When the disk does not answer.
    pub fn load(unit: &UnitId, files: &UnitFiles) -> io::Result<Self> {
        let path = path(files);
        let memory = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(serde_json::from_slice(&read?)),
        };
        let mut memory = match memory {
            Some(Ok(memory)) => memory,
            Some(Err(error)) => {
                tracing::warn!(%unit, %error, "the unit's memory is damaged and is made anew");
                Self::new(unit)
            }
            None => Self::new(unit),
        };
        memory.find_slots(files);
        Ok(memory)
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save(&self, files: &UnitFiles) -> io::Result<()> {
        create_private_dir(&files.root)?;
        let bytes = serde_json::to_vec(self).expect("a memory has text keys only");
        write_atomic(&path(files), &bytes, 0o600)
    }

    fn find_slots(&mut self, files: &UnitFiles) {
        let entries = fs::read_dir(files.root.join("run"))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(name) = name else { continue };
            let state = files.slot(&name).state();
            if let Some(state) = state
                && !self.slots.contains_key(&name)
            {
                let slot = SlotMemory {
                    launch: state.launch,
                    started_at: state.started_at,
                    ..SlotMemory::default()
                };
                self.slots.insert(name, slot);
            }
        }
    }
}

/// Notes that a removal was recorded, outside the unit's directory, which is gone.
pub(super) fn mark_removed(
    data_dir: &Path,
    unit: &UnitId,
    generation: Generation,
    sequence: Sequence,
) -> io::Result<()> {
    let path = mark(data_dir, unit);
    create_private_dir(path.parent().expect("the mark lies in a directory"))?;
    write_atomic(
        &path,
        &serde_json::to_vec(&Removed {
            generation,
            sequence,
        })?,
        0o600,
    )
}

/// Whether this very removal, or a newer one, was recorded.
pub(super) fn is_marked_removed(
    data_dir: &Path,
    unit: &UnitId,
    generation: Generation,
    sequence: Sequence,
) -> bool {
    let read = fs::read(mark(data_dir, unit)).ok();
    let mark: Option<Removed> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    mark.is_some_and(|mark| (mark.generation, mark.sequence) >= (generation, sequence))
}

fn mark(data_dir: &Path, unit: &UnitId) -> PathBuf {
    data_dir
        .join("units")
        .join(".removed")
        .join(format!("{}.json", unit.name()))
}

fn path(files: &UnitFiles) -> PathBuf {
    files.root.join("unit.json")
}
