//! What of a local fleet runs at this moment, in numbers for people; and the way to end all of it, in the order in
//! which nothing starts again what was just stopped.

use std::time::Duration;

use dotmac_runtime::process::{ProcessIdentity, Signal};
use tokio::time::Instant;

use super::{
    layout::Layout,
    member::Member,
    slots::{self, Slot},
    supervise::supervisor_pid,
};

/// Milliseconds for agents and controllers to end by themselves.
const PATIENCE_MS: u64 = 8_000;
/// Milliseconds for instances to end by themselves; manifests may grant them more, the end of the product does not.
const INSTANCE_PATIENCE_MS: u64 = 15_000;
/// Milliseconds for the kernel to end what was killed.
const KILL_PATIENCE_MS: u64 = 10_000;
/// Milliseconds between two looks.
const LOOK_MS: u64 = 20;

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Alive {
    pub(crate) supervisor: Option<ProcessIdentity>,
    pub(crate) controllers: Vec<ProcessIdentity>,
    pub(crate) agents: Vec<ProcessIdentity>,
    pub(crate) slots: Vec<Slot>,
}

/// How many ended, and how many of them had to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ended {
    pub(crate) controllers: usize,
    pub(crate) agents: usize,
    pub(crate) instances: usize,
    pub(crate) killed: usize,
    /// What runs on in spite of all.
    pub(crate) left: usize,
}

impl Alive {
    /// Looks.
    pub(crate) fn look(layout: &Layout) -> Self {
        let mut alive = Self {
            supervisor: supervisor_pid(layout).running(),
            ..Self::default()
        };
        for member in Member::all(layout) {
            let processes = if member.is_controller() {
                &mut alive.controllers
            } else {
                &mut alive.agents
            };
            processes.extend(member.pid_file.running());
        }
        alive.slots = slots::running(layout);
        alive
    }

    /// Whether nothing runs.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        let supervisors = usize::from(self.supervisor.is_some());
        join(&[
            count(self.slots.len(), "instance process", "instance processes"),
            count(self.agents.len(), "agent", "agents"),
            count(self.controllers.len(), "controller", "controllers"),
            count(supervisors, "supervisor", "supervisors"),
        ])
    }
}

impl Ended {
    /// In words.
    pub(crate) fn describe(self) -> String {
        let mut text = join(&[
            count(self.instances, "instance process", "instance processes"),
            count(self.agents, "agent", "agents"),
            count(self.controllers, "controller", "controllers"),
        ]);
        if self.killed > 0 {
            text.push_str(&format!(" ({} had to be killed)", self.killed));
        }
        text
    }
}

/// Ends agents, then instances (which a living agent would start again), then controllers. The supervisor is the
/// caller, or is gone.
pub(crate) async fn end_all(layout: &Layout, mut tell: impl FnMut(&str)) -> Ended {
    let mut ended = Ended::default();
    let before = Alive::look(layout);
    if !before.agents.is_empty() {
        tell(&format!(
            "stopping {}",
            count(before.agents.len(), "agent", "agents").unwrap_or_default()
        ));
    }
    ended.agents = before.agents.len();
    ended.killed += end(&before.agents).await;
    let (instances, killed) = end_instances(layout, &mut tell).await;
    ended.instances = instances;
    ended.killed += killed;
    if !before.controllers.is_empty() {
        let controllers = count(before.controllers.len(), "controller", "controllers");
        tell(&format!("stopping {}", controllers.unwrap_or_default()));
    }
    ended.controllers = before.controllers.len();
    ended.killed += end(&before.controllers).await;
    let after = Alive::look(layout);
    ended.left = after.agents.len() + after.controllers.len() + after.slots.len();
    if ended.left == 0 {
        for member in Member::all(layout) {
            member.pid_file.forget();
        }
    }
    ended
}

/// Ends all instances; gives how many there were and how many were killed.
async fn end_instances(layout: &Layout, tell: &mut impl FnMut(&str)) -> (usize, usize) {
    let slots = slots::running(layout);
    if slots.is_empty() {
        return (0, 0);
    }
    let words = count(slots.len(), "instance process", "instance processes").unwrap_or_default();
    tell(&format!("stopping {words}"));
    slots.iter().for_each(Slot::ask);
    let gone = || slots::running(layout).is_empty();
    if wait(INSTANCE_PATIENCE_MS, gone).await {
        return (slots.len(), 0);
    }
    let stubborn = slots::running(layout);
    stubborn.iter().for_each(Slot::kill);
    wait(KILL_PATIENCE_MS, gone).await;
    (slots.len(), stubborn.len())
}

/// Asks processes to end and kills what does not; gives how many were killed.
async fn end(processes: &[ProcessIdentity]) -> usize {
    let signal_all = |signal: Signal| {
        for process in processes.iter().filter(|process| process.is_alive()) {
            if let Err(cause) = process.send_signal(signal) {
                tracing::debug!(pid = process.pid, error = %cause, "not signalled");
            }
        }
    };
    let gone = || processes.iter().all(|process| !process.is_alive());
    signal_all(Signal::TERM);
    if wait(PATIENCE_MS, gone).await {
        return 0;
    }
    let stubborn = processes
        .iter()
        .filter(|process| process.is_alive())
        .count();
    signal_all(Signal::KILL);
    wait(KILL_PATIENCE_MS, gone).await;
    stubborn
}

/// Waits until it holds; false when it still does not after `patience_ms`.
pub(crate) async fn wait(patience_ms: u64, holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_millis(patience_ms);
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

fn count(number: usize, one: &str, many: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{number} {many}")),
    }
}

fn join(parts: &[Option<String>]) -> String {
    let parts: Vec<_> = parts.iter().flatten().map(String::as_str).collect();
    match parts.as_slice() {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use dotmac_runtime::process::ProcessIdentity;

    use super::{Alive, Ended, end_all};
    use crate::local::{layout::Layout, member::Member};

    #[test]
    fn what_was_stopped_is_said_count_by_count() {
        let ended = Ended {
            controllers: 3,
            agents: 5,
            instances: 1,
            killed: 0,
            left: 0,
        };
        assert_eq!(
            ended.describe(),
            "1 instance process, 5 agents and 3 controllers"
        );
        assert_eq!(
            Ended { killed: 2, ..ended }.describe().split(" (").nth(1),
            Some("2 had to be killed)")
        );
        assert_eq!(Ended::default().describe(), "nothing");
        assert_eq!(Alive::default().describe(), "nothing");
    }

    #[tokio::test]
    async fn the_end_of_the_product_leaves_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        layout.prepare().unwrap();
        let members = Member::all(&layout);
        let mut programs = Vec::new();
        for member in [&members[0], &members[3]] {
            let program = Command::new("sleep").arg("600").spawn().unwrap();
            member
                .pid_file
                .note(&ProcessIdentity::of(program.id()).unwrap())
                .unwrap();
            programs.push(program);
        }
        let instance = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of(instance.id()).unwrap();
        let slot = members[3].data().join("units/demo-isp-0190a1b2/web/0");
        std::fs::create_dir_all(&slot).unwrap();
        let state = serde_json::json!({"shim": identity, "child": identity});
        std::fs::write(slot.join("state.json"), state.to_string()).unwrap();
        programs.push(instance);
        assert_eq!(
            Alive::look(&layout).describe(),
            "1 instance process, 1 agent and 1 controller"
        );

        let ended = end_all(&layout, |_| {}).await;
        assert_eq!(
            ended,
            Ended {
                controllers: 1,
                agents: 1,
                instances: 1,
                killed: 0,
                left: 0
            }
        );
        assert!(Alive::look(&layout).is_nothing());
        for mut program in programs {
            program.wait().unwrap();
        }
    }
}
