//! Runs copies of components as processes of this host, each under a shim that outlives the agent. What it starts is
//! known by boot, pid and start time; what it did not start it never touches.

pub mod environment;
pub mod ports;
mod program;
pub mod stop_all;
mod sweep;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dotmac_protocol::{
    ids::{PartName, UnitId},
    record::Limits,
    release::Component,
    time::Timestamp,
};
use dotmac_runtime::{
    clock::Clock,
    disk::create_private_dir,
    process::{ProcessIdentity, Signal},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::{environment::Rendering, ports::PortBook};
use crate::{
    driver::{SlotName, StartError},
    limits::{Caps, ControlGroups},
    shim::files::{End, Exit, Reply, SlotFiles, Spec, State},
};

/// How long a shim may take to say whether its child runs.
const REPLY_PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// What the driver needs to know of the host.
#[derive(Debug)]
pub struct ProcessDriver {
    /// The program that runs as `PROGRAM shim DIRECTORY`.
    pub shim_program: PathBuf,
    /// Ports, shared by all units of the agent.
    pub ports: PortBook,
    /// What limits can be had.
    pub groups: ControlGroups,
    /// Bytes of output kept per slot at least; at twice that the oldest are taken away.
    pub output_bytes_max: u64,
    /// Where programs without a slash are looked for.
    pub search_path: OsString,
    /// Time.
    pub clock: Clock,
}

/// Where one unit keeps its files.
#[derive(Debug, Clone)]
pub struct UnitFiles {
    /// `units/DEPLOYMENT` in the agent's data directory.
    pub root: PathBuf,
}

impl UnitFiles {
    /// The files of a unit.
    #[must_use]
    pub fn new(data_dir: &Path, unit: &UnitId) -> Self {
        Self {
            root: data_dir.join("units").join(unit.name()),
        }
    }

    /// The files of one of its slots.
    #[must_use]
    pub fn slot(&self, slot: &SlotName) -> SlotFiles {
        SlotFiles::new(&self.root.join("run").join(slot.to_string()))
    }

    /// A directory that survives restarts and upgrades.
    #[must_use]
    pub fn volume(&self, slot: &SlotName, volume: &PartName) -> PathBuf {
        self.root
            .join("volumes")
            .join(slot.to_string())
            .join(volume.as_str())
    }
}

/// What is to be started.
#[allow(
    missing_debug_implementations,
    reason = "it holds secrets, which must not be printable"
)]
pub struct Order<'a> {
    /// The slot.
    pub slot: &'a SlotName,
    /// Number of this start.
    pub launch: u64,
    /// What it is.
    pub component: &'a Component,
    /// What its references stand for.
    pub rendering: Rendering<'a>,
    /// What it may use.
    pub caps: Caps,
}

/// What was started.
#[derive(Debug)]
pub struct Started {
    /// By which shim, and the child.
    pub state: State,
    /// Whether its limits hold.
    pub limits: Limits,
}

/// What there is of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing was started, or nothing came of it.
    Nothing,
    /// A shim is there that has not said yet what it runs.
    Settling,
    /// It runs.
    Running(Box<State>),
    /// Its shim vanished without a word; what it left behind may still run.
    Orphaned(Box<State>),
    /// It ended.
    Ended(Exit),
}

impl ProcessDriver {
    /// Looks at a slot in which `launch` was the last start.
    ///
    /// # Errors
    /// When the slot's files cannot be read.
    pub fn look(&self, files: &SlotFiles, launch: u64) -> io::Result<Seen> {
        if let Some(exit) = ended(files, launch) {
            return Ok(Seen::Ended(exit));
        }
        let has_shim = files.has_shim()?;
        let state = files.state().filter(|state| state.launch == launch);
        Ok(match (has_shim, state) {
            (true, Some(state)) => Seen::Running(Box::new(state)),
            (true, None) => Seen::Settling,
            // It may have ended between the two looks.
            (false, Some(state)) => match ended(files, launch) {
                Some(exit) => Seen::Ended(exit),
                None => Seen::Orphaned(Box::new(state)),
            },
            (false, None) => Seen::Nothing,
        })
    }

    /// Starts a copy and waits until it runs or does not.
    ///
    /// # Errors
    /// When it was not started, and why.
    pub fn start(&self, unit: &UnitFiles, order: &Order<'_>) -> Result<Started, StartError> {
        let files = unit.slot(order.slot);
        let program = program::find(&order.rendering, &self.search_path)?;
        let directory = work_directory(&files);
        let volumes = order.component.volumes.iter();
        let made = volumes.map(|volume| unit.volume(order.slot, volume));
        for path in made.chain([files.directory().to_owned()]) {
            create_private_dir(&path).map_err(|source| StartError::Disk { path, source })?;
        }
        let environment = self.environment(unit, order.slot, &order.rendering)?;
        let arguments = order.rendering.arguments()?;
        let group = group_name(unit, order.slot);
        // A shim that was killed before it said anything leaves a child that nobody knows otherwise.
        self.end_group(&group)
            .map_err(|error| StartError::Shim(error.to_string()))?;
        let (groups, limits) = self.groups.prepare(&group, order.caps);
        let spec = Spec {
            launch: order.launch,
            program,
            arguments,
            environment,
            directory,
            output_bytes_max: self.output_bytes_max,
            stop_signal: order.component.stop.signal,
            patience_ms: order.component.stop.patience_ms.into(),
            groups,
        };
        let state = self.run_shim(&files, &spec).map_err(|reason| {
            if let Err(error) = self.end_group(&group) {
                tracing::warn!(path = %group, %error, "what a failed start left cannot be cleaned up");
            }
            StartError::Shim(reason)
        })?;
        let limits = match &state.limits_error {
            Some(reason) => Limits::NotEnforced {
                reason: reason.clone(),
            },
            None => limits,
        };
        Ok(Started { state, limits })
    }

    /// The whole environment that a copy is started with, and nothing besides: never the agent's own, which may hold
    /// secrets and proxies.
    ///
    /// # Errors
    /// As [`Rendering::environment`].
    pub fn environment(
        &self,
        unit: &UnitFiles,
        slot: &SlotName,
        rendering: &Rendering<'_>,
    ) -> Result<BTreeMap<String, String>, StartError> {
        let mut environment = rendering.environment()?;
        let path = self.search_path.to_string_lossy().into_owned();
        let home = work_directory(&unit.slot(slot));
        let home = home.to_string_lossy().into_owned();
        for (name, value) in [("PATH", path), ("HOME", home), ("LANG", "C.UTF-8".into())] {
            environment.entry(name.to_owned()).or_insert(value);
        }
        Ok(environment)
    }

    /// Asks a shim to stop its child: the child's stop signal, its patience, then SIGKILL for all that is left.
    pub fn stop(&self, state: &State) {
        // A shim that is gone has nothing to stop; the next look finds what became of it.
        drop(state.shim.send_signal(Signal::TERM));
    }

    /// Asks a shim to kill its child at once, and after a shim that does not obey kills both.
    pub fn kill(&self, state: &State) {
        if state.shim.send_signal(Signal::QUIT).is_ok() && !sweep::await_end(&state.shim, 2) {
            drop(state.shim.send_signal(Signal::KILL));
            sweep::await_end(&state.shim, 2);
        }
    }

    /// Ends what a vanished shim left behind, and records the end in its place.
    ///
    /// # Errors
    /// When something does not die, or the record cannot be written.
    pub fn sweep(
        &self,
        unit: &UnitFiles,
        slot: &SlotName,
        state: &State,
        now: Timestamp,
    ) -> io::Result<()> {
        let rebooted = ProcessIdentity::own().boot_id != state.shim.boot_id;
        let end = if rebooted {
            End::Rebooted
        } else {
            let groups = self.groups.bases().slot(&group_name(unit, slot));
            sweep::end_all(Some(state), &groups)?;
            End::Lost("its shim was killed, and it with it".into())
        };
        let exit = Exit {
            launch: state.launch,
            end,
            at: now,
            asked: false,
        };
        unit.slot(slot).write_exit(&exit)
    }

    /// Lets go of what a slot held besides its files: nothing that was started in it is left then.
    ///
    /// # Errors
    /// When something does not die.
    pub fn release(&self, unit: &UnitFiles, id: &UnitId, slot: &SlotName) -> io::Result<()> {
        self.end_group(&group_name(unit, slot))?;
        self.ports.release(id, slot);
        Ok(())
    }

    /// The same for a whole unit, and for slots of it that nobody remembers.
    ///
    /// # Errors
    /// When something does not die.
    pub fn release_unit<'a>(
        &self,
        unit: &UnitFiles,
        id: &UnitId,
        slots: impl Iterator<Item = &'a SlotName>,
    ) -> io::Result<()> {
        for slot in slots {
            self.release(unit, id, slot)?;
        }
        for group in self.groups.bases().slots().keys() {
            if let Some((name, slot)) = split_group_name(group)
                && unit.root.file_name().is_some_and(|file| file == name)
            {
                self.release(unit, id, &slot)?;
            }
        }
        Ok(())
    }

    fn end_group(&self, group: &str) -> io::Result<()> {
        sweep::end_all(None, &self.groups.bases().slot(group))?;
        self.groups.bases().remove_empty();
        Ok(())
    }

    fn run_shim(&self, files: &SlotFiles, spec: &Spec) -> Result<State, String> {
        let complaints = File::create(files.complaints())
            .map_err(|error| format!("{} cannot be made: {error}", files.complaints().display()))?;
        let mut shim = Command::new(&self.shim_program)
            .arg("shim")
            .arg(files.directory())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .map_err(|error| {
                format!(
                    "shim {} cannot be started: {error}",
                    self.shim_program.display()
                )
            })?;
        let answer = converse(&mut shim, spec);
        let failed = match answer {
            Ok(Reply::Started(state)) => return Ok(state),
            Ok(Reply::Failed(reason)) => reason,
            Err(error) => {
                // Its child, if it has one by now, is an orphan that the next look finds.
                drop(shim.kill());
                let said = fs::read_to_string(files.complaints()).unwrap_or_default();
                let said: String = said.chars().take(500).collect();
                format!("the shim did not answer: {error} {said}")
                    .trim()
                    .to_owned()
            }
        };
        drop(shim.wait());
        Err(failed)
    }
}

fn converse(shim: &mut Child, spec: &Spec) -> io::Result<Reply> {
    let mut order = shim.stdin.take().expect("standard input is a pipe");
    order.write_all(&serde_json::to_vec(spec)?)?;
    drop(order);
    let answer = shim.stdout.take().expect("standard output is a pipe");
    let mut ready = [PollFd::new(&answer, PollFlags::IN)];
    if poll(&mut ready, Some(&REPLY_PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut line = String::new();
    BufReader::new(answer).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::from)
}

/// Where a copy's program starts, and its home.
fn work_directory(files: &SlotFiles) -> PathBuf {
    files.directory().join("work")
}

fn ended(files: &SlotFiles, launch: u64) -> Option<Exit> {
    files.exit().filter(|exit| exit.launch == launch)
}

fn group_name(unit: &UnitFiles, slot: &SlotName) -> String {
    let name = unit.root.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.{slot}")
}

/// The unit's name and the slot.
fn split_group_name(group: &str) -> Option<(&str, SlotName)> {
    let (before, replica) = group.rsplit_once('.')?;
    let (unit, component) = before.rsplit_once('.')?;
    Some((unit, format!("{component}.{replica}").parse().ok()?))
}
