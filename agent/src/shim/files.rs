//! The files of one slot, and what agent and shim tell each other through them. JSON, because an agent of a newer
//! version adopts the shims of an older one: members are only ever added, with a default.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use dotmac_protocol::{release::StopSignal, time::Timestamp};
use dotmac_runtime::{
    disk::write_atomic,
    process::{ProcessIdentity, Signal},
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Bytes of an order to a shim at most: 256 variables and 128 arguments of 4 KiB each, as JSON.
pub const SPEC_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What a shim is to run. It holds secrets and has no `Debug`.
#[derive(Serialize, Deserialize)]
#[allow(
    missing_debug_implementations,
    reason = "it holds secrets, which must not be printable"
)]
pub struct Spec {
    /// Number of this start within the slot; what the shim writes carries it.
    pub launch: u64,
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// The directory it starts in; made if it is missing.
    pub directory: PathBuf,
    /// Bytes of output kept at least; at twice that the oldest are taken away.
    pub output_bytes_max: u64,
    /// The signal that asks it to end.
    pub stop_signal: StopSignal,
    /// Milliseconds until it is killed.
    pub patience_ms: u64,
    /// Control groups to start it in.
    #[serde(default)]
    pub groups: Vec<Group>,
}

/// A control group: the `cgroup.procs` file to start the child in, and the one the shim goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where the child belongs.
    pub enter: PathBuf,
    /// Where the shim belongs.
    pub leave: PathBuf,
}

/// What a shim answers once it has started its child, or has not.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It runs.
    Started(State),
    /// It does not, and why.
    Failed(String),
}

/// What a shim runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Number of the start.
    pub launch: u64,
    /// The shim.
    pub shim: ProcessIdentity,
    /// The program.
    pub child: ProcessIdentity,
    /// When it was started.
    pub started_at: Timestamp,
    /// Why the child is not in its control groups, if it is not.
    #[serde(default)]
    pub limits_error: Option<String>,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Number of the start.
    pub launch: u64,
    /// How.
    pub end: End,
    /// When.
    pub at: Timestamp,
    /// Whether the shim was asked to stop it.
    pub asked: bool,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody saw how, and why nobody did.
    Lost(String),
    /// With the machine.
    Rebooted,
}

impl std::fmt::Display for End {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
            Self::Lost(reason) => formatter.write_str(reason),
            Self::Rebooted => formatter.write_str("the machine was restarted"),
        }
    }
}

/// The signal that the manifest means.
#[must_use]
pub fn signal_of(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
    }
}

/// Where the files of one slot lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFiles {
    directory: PathBuf,
}

impl SlotFiles {
    /// The files in a slot's directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The slot's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the child writes.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.directory.join("out.log")
    }

    /// What it wrote before that, where the file system cannot take away a range of a file.
    #[must_use]
    pub fn output_before(&self) -> PathBuf {
        self.directory.join("out.log.1")
    }

    /// What the shim itself complains about.
    #[must_use]
    pub fn complaints(&self) -> PathBuf {
        self.directory.join("shim.log")
    }

    /// What the last shim that started ran or runs.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        read(&self.directory.join("state.json"))
    }

    /// How the last child that ended did.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        read(&self.directory.join("exit.json"))
    }

    /// Bytes that were cut off the output so far.
    pub(super) fn output_cut(&self) -> u64 {
        read(&self.directory.join("cut.json")).unwrap_or(0)
    }

    /// Bytes that were ever written to the output.
    #[must_use]
    pub fn output_total(&self) -> u64 {
        let Ok(file) = File::open(self.output()) else {
            return 0;
        };
        let (cut, length) = self.extent(&file);
        cut.saturating_add(length)
    }

    /// Bytes that were cut off the output so far, and bytes that are in it, of one moment: as long as `output` stays
    /// open nothing is cut off it. That stops the shim for as long, so be quick.
    #[must_use]
    pub fn extent(&self, output: &File) -> (u64, u64) {
        let _locked = flock(output, FlockOperation::LockShared);
        let length = output.metadata().map_or(0, |file| file.len());
        (self.output_cut(), length)
    }

    pub(super) fn write_state(&self, state: &State) -> io::Result<()> {
        self.write("state.json", state)
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        self.write("exit.json", exit)
    }

    pub(super) fn write_output_cut(&self, bytes: u64) -> io::Result<()> {
        self.write("cut.json", &bytes)
    }

    /// Whether a shim lives here: it holds the lock as long as it does, and nobody else ever does.
    ///
    /// # Errors
    /// When the lock's file cannot be opened.
    pub fn has_shim(&self) -> io::Result<bool> {
        let file = match File::open(self.directory.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the lock; waits for a shim that has just recorded its end and is about to leave.
    pub(super) fn lock_waiting(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.directory.join("lock"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        write_atomic(
            &self.directory.join(name),
            &serde_json::to_vec(value)?,
            0o600,
        )
    }
}

/// A missing or unreadable file is no statement.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
