//! Keeps the processes of a local fleet alive: adopts what survived, starts what is missing, starts again what ended,
//! with back-off. A controller that ends because the cluster knows it no more is started no more. It decides nothing
//! about instances: those belong to their agents.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use dotmac_runtime::process::ProcessIdentity;
use futures::future::join_all;
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::Instant,
};

use super::{
    hold,
    layout::Layout,
    member::Member,
    pids::{Noted, PidFile},
    retired,
};
use crate::{app::Refusal, cli::failure::Failure};

/// How often what cannot be waited for (an adopted process, a token to come) is looked at.
const LOOK_MS: u64 = 50;
/// Bytes of a crash log after which a new one is begun.
const CRASH_LOG_BYTES_MAX: u64 = 256 * 1024;

/// Pauses before a process is started again: doubled from the first to the last, and short again once it ran a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Backoff {
    pause_ms: u64,
}

impl Backoff {
    const FIRST_MS: u64 = 250;
    const LAST_MS: u64 = 8_000;
    const STEADY_MS: u64 = 10_000;
    /// After an end that another try does not change by itself; somebody may have changed something meanwhile.
    const FINAL_MS: u64 = 60_000;

    fn new() -> Self {
        Self {
            pause_ms: Self::FIRST_MS,
        }
    }

    /// The pause after a run of `ran_ms` milliseconds.
    fn after(&mut self, ran_ms: u64) -> u64 {
        if ran_ms >= Self::STEADY_MS {
            self.pause_ms = Self::FIRST_MS;
        }
        let pause_ms = self.pause_ms;
        self.pause_ms = (pause_ms * 2).min(Self::LAST_MS);
        pause_ms
    }
}

/// One running process, ours or adopted.
enum Running {
    Child(Child),
    Adopted(ProcessIdentity),
}

/// Keeps all of the fleet alive until `stop` turns true, then waits for the ends of its own children.
pub(crate) async fn supervise(layout: &Layout, stop: watch::Receiver<bool>) {
    let members = Member::all(layout);
    join_all(
        members
            .iter()
            .map(|member| keep(layout, member, stop.clone())),
    )
    .await;
}

/// Notes this process as the supervisor.
pub(crate) fn note_own(layout: &Layout) -> Result<(), Failure> {
    supervisor_pid(layout).note(&ProcessIdentity::own())
}

/// Where the supervisor is noted.
pub(crate) fn supervisor_pid(layout: &Layout) -> PidFile {
    PidFile::new(layout, "supervisor")
}

async fn keep(layout: &Layout, member: &Member, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new();
    while wait_until_wanted(layout, member, &mut stop).await {
        let mut is_final = false;
        let started = Instant::now();
        let running = match member.pid_file.read() {
            Noted::Running(identity) => {
                tracing::info!(process = member.name, pid = identity.pid, "adopted");
                Ok(Running::Adopted(identity))
            }
            Noted::Stale | Noted::Nothing => start(layout, member),
        };
        match running {
            Ok(running) => {
                let status = running.ended().await;
                let refusal = status.and_then(|status| refusal_of(member, status));
                is_final = refusal.is_some_and(|refusal| !refusal.is_tried_again());
                let status =
                    status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
                let stopping = *stop.borrow();
                tracing::info!(
                    process = member.name,
                    end = status,
                    expected = stopping,
                    "ended"
                );
                if refusal == Some(Refusal::Removed) {
                    leave_out(member);
                }
            }
            Err(cause) => {
                tracing::error!(process = member.name, error = %cause, "cannot be started")
            }
        }
        let ran_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pause_ms = backoff.after(ran_ms);
        let pause = Duration::from_millis(if is_final {
            Backoff::FINAL_MS
        } else {
            pause_ms
        });
        // Only the end of the waiting matters; whether it was the stop is looked at above.
        let _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
    }
}

/// Why a controller will not run, by the exit code that it ended with.
fn refusal_of(member: &Member, status: ExitStatus) -> Option<Refusal> {
    let code = u8::try_from(status.code()?).ok()?;
    let mut refusals = Refusal::ALL.into_iter();
    let refusal = refusals.find(|refusal| refusal.exit_code() == code);
    refusal.filter(|_| member.is_controller())
}

/// Notes that a controller is none of the cluster's any more; where that fails it is started again and says so again.
fn leave_out(member: &Member) {
    let process = &member.name;
    match retired::note_ended(member) {
        Ok(()) => tracing::info!(process, "it left the cluster: it is started no more"),
        Err(failure) => tracing::error!(process, error = %failure, "not noted as retired"),
    }
}

/// Waits for what a process needs and for the end of any hold on it; false when the fleet stops.
async fn wait_until_wanted(
    layout: &Layout,
    member: &Member,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    loop {
        if *stop.borrow() {
            return false;
        }
        let adoptable = member.pid_file.running().is_some();
        if adoptable || (member.may_start() && !hold::is_held(layout, &member.name)) {
            return true;
        }
        let _ =
            tokio::time::timeout(Duration::from_millis(LOOK_MS), stop.wait_for(|stop| *stop)).await;
    }
}

impl Running {
    async fn ended(self) -> Option<ExitStatus> {
        match self {
            Self::Child(mut child) => child.wait().await.ok(),
            Self::Adopted(identity) => {
                while identity.is_alive() {
                    tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
                }
                None
            }
        }
    }
}

/// Starts a process in a session of its own; it notes its own pid before it becomes the program, so that it is found
/// even if this supervisor ends at that moment.
fn start(layout: &Layout, member: &Member) -> Result<Running, Failure> {
    let crash_log = open_crash_log(&member.crash_log())?;
    let errors = crash_log
        .try_clone()
        .map_err(|cause| Failure::io("open", &member.crash_log(), &cause))?;
    let dotmac = own_program(layout)?;
    let child = Command::new(&dotmac)
        .args(["local", "session", "--pid-file"])
        .arg(member.pid_file.path())
        .arg("--")
        .arg(&member.program)
        .args(["run", "--config"])
        .arg(member.config())
        .current_dir(&member.directory)
        .env_remove("DOTMAC_TOKEN")
        .env_remove("DOTMAC_TOKEN_FILE")
        .stdin(Stdio::null())
        .stdout(crash_log)
        .stderr(errors)
        .spawn()
        .map_err(|cause| Failure::io("start", &dotmac, &cause))?;
    tracing::info!(process = member.name, pid = child.id(), "started");
    Ok(Running::Child(child))
}

/// This program: the installed one, because the file that this process runs may have been replaced since.
fn own_program(layout: &Layout) -> Result<PathBuf, Failure> {
    let installed = layout.program("dotmac");
    if installed.exists() {
        return Ok(installed);
    }
    std::env::current_exe().map_err(|cause| Failure::io("find", layout.home(), &cause))
}

/// Opens the file for what a process says outside its log; a large one becomes `crash.log.1`.
fn open_crash_log(path: &Path) -> Result<File, Failure> {
    let failed = |cause: std::io::Error| Failure::io("write", path, &cause);
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > CRASH_LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1")).map_err(failed)?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use tokio::{sync::watch, time::timeout};

    use super::{Backoff, keep};
    use crate::{
        app::Refusal,
        local::{alive, layout::Layout, member::Member},
    };

    #[test]
    fn what_keeps_ending_is_started_less_and_less_often_until_it_runs_again() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..7).map(|_| backoff.after(5)).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(backoff.after(Backoff::STEADY_MS), 250);
    }

    #[tokio::test]
    async fn a_controller_that_the_cluster_knows_no_more_is_noted_and_not_started_again() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path().join("home"));
        layout.prepare().unwrap();
        let member = Member::all(&layout).swap_remove(1);
        fs::create_dir_all(member.data().join("keys")).unwrap();
        fs::write(member.data().join("keys/incarnation"), "its disk\n").unwrap();
        let program = layout.program("dotmac");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let code = Refusal::Removed.exit_code();
        fs::write(&program, format!("#!/bin/sh\necho started\nexit {code}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();

        let (stop, stopped) = watch::channel(false);
        let end_when_noted = async {
            let is_noted = alive::wait(10_000, || member.is_retired()).await;
            stop.send_replace(true);
            is_noted
        };
        let keeping = timeout(Duration::from_secs(20), keep(&layout, &member, stopped));
        let (kept, is_noted) = tokio::join!(keeping, end_when_noted);
        assert!(is_noted && kept.is_ok());
        assert_eq!(fs::read_to_string(member.crash_log()).unwrap(), "started\n");
        assert!(!member.may_start());
        fs::write(member.data().join("keys/incarnation"), "another disk").unwrap();
        assert!(member.may_start());
    }
}
