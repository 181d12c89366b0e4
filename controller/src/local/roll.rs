//! `make up` after a pull, on a fleet that runs: what runs a program that was replaced since is restarted, one process at a
//! time, and only when all the others are well. Instances and their shims are not touched.
//!
//! ```text
//!   supervisor -> following controllers -> the leading one -> agents
//! ```
//! It stops at the first process that does not come back, and leaves the rest as it is; a second `make up` goes on there. A
//! controller that left the cluster is not touched.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    alive,
    layout::Layout,
    member::{Kind, Member},
    pids::Lock,
    retired, settle,
    supervise::supervisor_pid,
    up,
};
use crate::cli::{Client, cluster, elapsed_ms, failure::Failure, view};

/// Milliseconds for one process to come back and be well; a slow disk takes tens of thousands.
const PATIENCE_MS: u64 = 90_000;
/// Milliseconds for a process to end by itself before it is killed.
const END_PATIENCE_MS: u64 = 15_000;
/// Milliseconds between two looks.
const LOOK_MS: u64 = 100;

/// Restarts what runs a replaced program; gives the names of what was restarted.
///
/// # Errors
/// When a process does not come back, or the others are not well enough to take one of them down.
pub(super) async fn run(
    layout: &Layout,
    client: &Client,
    tell: &impl Fn(&str),
) -> Result<Vec<String>, Failure> {
    let mut restarted = Vec::new();
    if !is_behind(layout) {
        return Ok(restarted);
    }
    let Some(_turn) = Lock::take_named(layout, "roll")? else {
        return Err(Failure::Failed(
            "another `make up` is restarting the processes of this fleet: wait for it".into(),
        ));
    };
    tell("programs were replaced: restarting them one at a time");
    if replace_supervisor(layout, tell).await? {
        restarted.push("supervisor".to_owned());
    }
    let roll = Roll {
        layout,
        client,
        tell,
    };
    let members = Member::all(layout);
    while let Some(member) = roll.next_controller(&members).await? {
        roll.restart(member).await?;
        restarted.push(member.name.clone());
    }
    for member in members.iter().filter(|member| !member.is_controller()) {
        if runs_replaced(member) {
            roll.restart(member).await?;
            restarted.push(member.name.clone());
        }
    }
    Ok(restarted)
}

/// Whether anything runs a program that was replaced and can be restarted.
pub(super) fn is_behind(layout: &Layout) -> bool {
    detached_and_replaced(layout).is_some() || Member::all(layout).iter().any(runs_replaced)
}

/// A supervisor that runs a replaced program in a terminal of its own: only whoever sits there ends it.
pub(super) fn foreign_supervisor(layout: &Layout) -> Option<ProcessIdentity> {
    let supervisor = supervisor_pid(layout).running()?;
    let is_replaced = is_replaced(&supervisor, &layout.program("dotmac"));
    (is_replaced && !is_detached(&supervisor)).then_some(supervisor)
}

/// A controller that left the cluster is not one of those: it is left as it is.
fn runs_replaced(member: &Member) -> bool {
    let running = member.pid_file.running();
    running.is_some_and(|process| is_replaced(&process, &member.program)) && !member.is_retired()
}

fn detached_and_replaced(layout: &Layout) -> Option<ProcessIdentity> {
    let supervisor = supervisor_pid(layout).running()?;
    let is_replaced = is_replaced(&supervisor, &layout.program("dotmac"));
    (is_replaced && is_detached(&supervisor)).then_some(supervisor)
}

/// Whether a process runs another file than the one that is installed. The step before a program (`dotmac local
/// session`) is none yet.
fn is_replaced(process: &ProcessIdentity, program: &Path) -> bool {
    let link = format!("/proc/{}/exe", process.pid);
    let (Ok(runs), Ok(installed)) = (std::fs::metadata(link), std::fs::metadata(program)) else {
        return false;
    };
    (runs.dev(), runs.ino()) != (installed.dev(), installed.ino())
}

/// Whether a supervisor is one of `make up DETACH=1`.
fn is_detached(supervisor: &ProcessIdentity) -> bool {
    let words = std::fs::read(format!("/proc/{}/cmdline", supervisor.pid)).unwrap_or_default();
    words
        .split(|byte| *byte == 0)
        .any(|word| word == b"supervise")
}

/// Puts a new supervisor in the place of a detached old one. What it supervised runs on, and is adopted.
async fn replace_supervisor(layout: &Layout, tell: &impl Fn(&str)) -> Result<bool, Failure> {
    let Some(old) = detached_and_replaced(layout) else {
        return Ok(false);
    };
    // Told to end it would take the fleet along; killed it leaves nothing half done, as after a crash.
    if let Err(cause) = old.send_signal(Signal::KILL) {
        tracing::debug!(error = %cause, "not killed");
    }
    if !alive::wait(END_PATIENCE_MS, || !old.is_alive()).await {
        let pid = old.pid;
        return Err(Failure::Failed(format!(
            "the supervisor {pid} does not end"
        )));
    }
    up::detach(layout).await?;
    tell("supervisor restarted");
    Ok(true)
}

struct Roll<'r, T> {
    layout: &'r Layout,
    client: &'r Client,
    tell: &'r T,
}

impl<T: Fn(&str)> Roll<'_, T> {
    /// A controller that is behind, once all are well; the leading one last.
    async fn next_controller<'m>(
        &self,
        members: &'m [Member],
    ) -> Result<Option<&'m Member>, Failure> {
        let is_behind = |member: &&Member| member.is_controller() && runs_replaced(member);
        if !members.iter().any(|member| is_behind(&member)) {
            return Ok(None);
        }
        let leader = self.all_well("before the next restart").await?;
        // Looked at again: meanwhile one may be known to have left the cluster.
        let mut behind: Vec<&Member> = members.iter().filter(is_behind).collect();
        behind.sort_by_key(|member| member.kind == Kind::Controller(leader));
        Ok(behind.first().copied())
    }

    /// Ends a process, lets the supervisor start it, and waits until it and everything else is well.
    async fn restart(&self, member: &Member) -> Result<(), Failure> {
        let name = &member.name;
        self.all_well(&format!("before {name} is restarted"))
            .await?;
        let Some(old) = member.pid_file.running() else {
            return Ok(());
        };
        let started = Instant::now();
        if let Err(cause) = old.send_signal(Signal::TERM) {
            tracing::debug!(error = %cause, "not signalled");
        }
        if !alive::wait(END_PATIENCE_MS, || !old.is_alive()).await
            && let Err(cause) = old.send_signal(Signal::KILL)
        {
            tracing::debug!(error = %cause, "not killed");
        }
        let came_back = alive::wait(PATIENCE_MS, || {
            let now = member.pid_file.running();
            now.is_some_and(|now| now != old && !is_replaced(&now, &member.program))
        });
        if !came_back.await {
            return Err(self.stopped(&format!("{name} does not start again")));
        }
        self.all_well(&format!("after {name} was restarted"))
            .await?;
        let seconds = elapsed_ms(started) / 100;
        (self.tell)(&format!(
            "{name} restarted in {}.{} s",
            seconds / 10,
            seconds % 10
        ));
        Ok(())
    }

    /// Waits until every controller is ready, one leads and every agent has its session; gives the leader.
    async fn all_well(&self, when: &str) -> Result<u16, Failure> {
        let started = Instant::now();
        loop {
            let lacking = match self.lacking().await {
                Ok(leader) => return Ok(leader),
                Err(lacking) => lacking,
            };
            if elapsed_ms(started) >= PATIENCE_MS {
                return Err(self.stopped(&format!("{when}: {lacking}")));
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// The leader when all is well, otherwise what is lacking.
    async fn lacking(&self) -> Result<u16, String> {
        if let Err(lacking) = self.all_ready().await {
            // It may be one that was taken out of the cluster.
            let left = retired::note(self.layout, self.client).await;
            let left = left.unwrap_or_default();
            if left.is_empty() {
                return Err(lacking);
            }
            left.iter().for_each(|line| (self.tell)(line));
            self.all_ready().await?;
        }
        let status = self.client.get(cluster::PATH).await;
        let status: Value = status.map_err(|failure| failure.to_string())?;
        let away = view::items(&status, "nodes")
            .iter()
            .find(|node| node["state"] == "unreachable");
        if let Some(node) = away {
            return Err(format!(
                "controller {} is not reached by the others",
                node["id"]
            ));
        }
        let wanted = Layout::agents().count();
        let sessions = settle::sessions(&status);
        if sessions < wanted {
            return Err(format!("{sessions} of {wanted} agents are connected"));
        }
        let leader = status["leader"].as_u64();
        leader
            .and_then(|leader| u16::try_from(leader).ok())
            .ok_or_else(|| "no controller leads".to_owned())
    }

    /// Whether every controller of the fleet that is a member of the cluster is ready.
    async fn all_ready(&self) -> Result<(), String> {
        let found = retired::readiness(self.layout, self.client).await;
        for (name, readiness) in found.map_err(|failure| failure.to_string())? {
            match readiness {
                Ok(true) => {}
                Ok(false) => return Err(format!("{name} is not ready")),
                Err(cause) => return Err(format!("{name}: {cause}")),
            }
        }
        Ok(())
    }

    fn stopped(&self, why: &str) -> Failure {
        let home = self.layout.home().display();
        Failure::Failed(format!(
            "{why}; nothing more was restarted, and the rest runs the program of before (logs in {home}): put it right \
             and call `make up` again"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use dotmac_runtime::process::ProcessIdentity;

    use super::is_replaced;

    #[test]
    fn a_program_is_replaced_when_another_file_has_its_name() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("sleeper");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("60").spawn().unwrap();
        let process = ProcessIdentity::of(child.id()).unwrap();
        assert!(!is_replaced(&process, &program));
        let new = home.path().join("sleeper.new");
        std::fs::copy("/bin/sleep", &new).unwrap();
        std::fs::rename(&new, &program).unwrap();
        assert!(is_replaced(&process, &program));
        std::fs::remove_file(&program).unwrap();
        assert!(!is_replaced(&process, &program));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
