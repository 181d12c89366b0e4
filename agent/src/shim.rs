//! The parent of one running copy of a component. It owns the copy's output file, records its end, stops it with all
//! its descendants, and outlives the agent.
//!
//! ```text
//!   agent --spec on stdin--> shim --spawn--> child (own process group) --> its descendants
//!         <--reply on stdout-                 |  stdout, stderr: out.log (append)
//!   state.json, exit.json, out.log <----------+
//! ```
//! It restarts nothing, decides nothing and needs no runtime: one thread that waits for signals.
//! SIGTERM, SIGINT and SIGHUP ask it to stop its child; SIGQUIT to kill it at once.

pub mod files;
mod groups;
mod output;
mod signals;
mod tree;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use dotmac_protocol::time::Timestamp;
use dotmac_runtime::{clock::Clock, process::ProcessIdentity};
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::time::Instant;

use self::{
    files::{End, Exit, Group, Reply, SPEC_BYTES_MAX, SlotFiles, Spec, State},
    output::OutputBound,
    signals::Signals,
};

/// How long what is left may take to die from SIGKILL. Longer means that the kernel holds it.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// Why a child was not started.
#[derive(Debug, Error)]
enum StartError {
    #[error("the order on standard input is not one")]
    Spec(#[source] io::Error),
    #[error("the slot's files cannot be made")]
    Files(#[source] io::Error),
    #[error("the shim cannot watch its child")]
    Watch(#[source] io::Error),
    #[error("program {0} cannot be started")]
    Spawn(PathBuf, #[source] io::Error),
    #[error("the state cannot be written")]
    State(#[source] io::Error),
}

/// Runs a shim in a slot's directory until its child and all descendants are gone.
/// Standard input holds the [`Spec`]; one line of [`Reply`] goes to standard output.
#[must_use]
pub fn run(directory: &Path) -> ExitCode {
    let files = SlotFiles::new(directory);
    match Shim::start(&files) {
        Ok((shim, state)) => {
            reply(&Reply::Started(state));
            shim.guard()
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            reply(&Reply::Failed(text));
            ExitCode::FAILURE
        }
    }
}

/// The agent may have died meanwhile: it finds the state file when it is back.
fn reply(reply: &Reply) {
    let mut line = serde_json::to_vec(reply).expect("a reply has text keys only");
    line.push(b'\n');
    let mut output = io::stdout().lock();
    drop(output.write_all(&line).and_then(|()| output.flush()));
}

struct Shim<'a> {
    files: &'a SlotFiles,
    launch: u64,
    child: Pid,
    stop_signal: Signal,
    patience: Duration,
    groups: Vec<Group>,
    signals: Signals,
    output: OutputBound,
    clock: Clock,
    /// Held while the shim lives: the proof that it does.
    _lock: File,
}

impl<'a> Shim<'a> {
    fn start(files: &'a SlotFiles) -> Result<(Self, State), StartError> {
        let spec = read_spec().map_err(StartError::Spec)?;
        // A session of its own: no terminal and no agent takes it along when it ends. It fails for a leader only.
        let _session = rustix::process::setsid();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| StartError::Watch(error.into()))?;
        let lock = files.lock_waiting().map_err(StartError::Files)?;
        let signals = Signals::watch().map_err(StartError::Watch)?;
        let log = output::open(&files.output()).map_err(StartError::Files)?;
        let output = OutputBound::watch(files, spec.output_bytes_max);
        fs::create_dir_all(&spec.directory).map_err(StartError::Files)?;

        let clock = Clock::system();
        let (spawned, limits_error) = groups::spawn_inside(&spec, || spawn(&spec, &log));
        let child = spawned.map_err(|error| StartError::Spawn(spec.program.clone(), error))?;
        let state = State {
            launch: spec.launch,
            shim: ProcessIdentity::own(),
            child: tree::identity_of_child(child),
            started_at: clock.now(),
            limits_error,
        };
        if let Err(error) = files.write_state(&state) {
            tree::kill_all(child, &signals, KILL_PATIENCE);
            return Err(StartError::State(error));
        }
        let shim = Self {
            files,
            launch: spec.launch,
            child,
            stop_signal: files::signal_of(spec.stop_signal),
            patience: Duration::from_millis(spec.patience_ms),
            groups: spec.groups,
            signals,
            output,
            clock,
            _lock: lock,
        };
        Ok((shim, state))
    }

    /// Waits until the child and everything it left behind are gone, and records its end.
    fn guard(mut self) -> ExitCode {
        let mut ended = None;
        let mut patience_ends = None;
        loop {
            let reaped = tree::reap(self.child);
            if let Some(end) = reaped.child {
                ended = Some((end, self.clock.now()));
            }
            if reaped.none_left {
                break;
            }
            if self.signals.stop_is_asked() && patience_ends.is_none() {
                let _gone = kill_process_group(self.child, self.stop_signal);
                patience_ends = Some(Instant::now() + self.patience);
            }
            let impatient = patience_ends.is_some_and(|end| end <= Instant::now());
            let orphans_only = ended.is_some() && patience_ends.is_none();
            if impatient || orphans_only || self.signals.kill_is_asked() {
                let last = tree::kill_all(self.child, &self.signals, KILL_PATIENCE);
                ended = ended.or_else(|| last.map(|end| (end, self.clock.now())));
                break;
            }
            let left = patience_ends.map(|end| end.saturating_duration_since(Instant::now()));
            self.output.wait(&self.signals, left);
        }
        self.output.bound();
        groups::remove(&self.groups);
        self.record(ended)
    }

    fn record(&self, ended: Option<(End, Timestamp)>) -> ExitCode {
        let (end, at) = ended.unwrap_or_else(|| {
            let text = "it does not end even when it is killed".to_owned();
            (End::Lost(text), self.clock.now())
        });
        let exit = Exit {
            launch: self.launch,
            end,
            at,
            asked: self.signals.stop_is_asked() || self.signals.kill_is_asked(),
        };
        match self.files.write_exit(&exit) {
            Ok(()) => ExitCode::SUCCESS,
            // Without the record the agent sees a shim that vanished, and says so.
            Err(_) => ExitCode::FAILURE,
        }
    }
}

/// The order holds secrets: it comes through a pipe and is dropped once the child has it.
fn read_spec() -> io::Result<Spec> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(SPEC_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

fn spawn(spec: &Spec, output: &File) -> io::Result<Pid> {
    let child = Command::new(&spec.program)
        .args(&spec.arguments)
        .env_clear()
        .envs(&spec.environment)
        .current_dir(&spec.directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}
