//! Instances' processes, found by the files that their shims keep below each agent's data. They outlive agents, so
//! stopping the product stops them here, by asking their shims.

use std::path::{Path, PathBuf};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde::Deserialize;

use super::{layout::Layout, member::Member};

/// How deep below `units` a shim's directory may lie.
const DEPTH_MAX: usize = 8;

/// One running copy of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The shim's directory.
    pub(crate) directory: PathBuf,
    /// The deployment it belongs to.
    pub(crate) deployment: String,
    /// The shim, where it lives.
    pub(crate) shim: Option<ProcessIdentity>,
    /// The program, where it lives.
    pub(crate) child: Option<ProcessIdentity>,
}

/// What this module needs of a shim's state file.
#[derive(Deserialize)]
struct State {
    shim: ProcessIdentity,
    child: ProcessIdentity,
}

impl Slot {
    /// Asks the shim to stop the program in its own way; without a shim, the program itself.
    pub(crate) fn ask(&self) {
        self.signal(Signal::TERM, Signal::TERM);
    }

    /// Ends the program and its descendants at once.
    pub(crate) fn kill(&self) {
        self.signal(Signal::QUIT, Signal::KILL);
    }

    fn signal(&self, to_shim: Signal, to_child: Signal) {
        let sent = match (&self.shim, &self.child) {
            (Some(shim), _) => shim.send_signal(to_shim),
            (None, Some(child)) => child.send_signal(to_child),
            (None, None) => Ok(()),
        };
        if let Err(cause) = sent {
            tracing::debug!(path = %self.directory.display(), error = %cause, "not signalled");
        }
    }
}

/// Everything of instances that runs, of all agents.
pub(crate) fn running(layout: &Layout) -> Vec<Slot> {
    let agents = Member::all(layout)
        .into_iter()
        .filter(|member| !member.is_controller());
    agents.flat_map(|member| of_agent(&member.data())).collect()
}

/// Everything of instances that runs, of the agent with this data directory.
pub(crate) fn of_agent(data: &Path) -> Vec<Slot> {
    let units = data.join("units");
    let mut slots = Vec::new();
    for unit in children(&units) {
        let deployment = unit
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut states = Vec::new();
        find_states(&unit, DEPTH_MAX, &mut states);
        slots.extend(states.iter().filter_map(|state| read(state, &deployment)));
    }
    slots
}

fn read(state: &Path, deployment: &str) -> Option<Slot> {
    let found: State = serde_json::from_slice(&std::fs::read(state).ok()?).ok()?;
    let alive = |identity: ProcessIdentity| identity.is_alive().then_some(identity);
    let (shim, child) = (alive(found.shim), alive(found.child));
    if shim.is_none() && child.is_none() {
        return None;
    }
    let directory = state.parent()?.to_owned();
    Some(Slot {
        directory,
        deployment: deployment.to_owned(),
        shim,
        child,
    })
}

fn find_states(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let state = directory.join("state.json");
    if state.is_file() {
        found.push(state);
    }
    if depth > 0 {
        for child in children(directory) {
            find_states(&child, depth - 1, found);
        }
    }
}

/// Directories in a directory, in order; links are not followed.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut children: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    children.sort();
    children
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use dotmac_runtime::process::ProcessIdentity;

    use super::of_agent;

    #[test]
    fn only_processes_that_still_are_who_they_were_are_found_and_stopped() {
        let data = tempfile::tempdir().unwrap();
        let mut program = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of(program.id()).unwrap();
        let gone = ProcessIdentity {
            start_ticks: 1,
            ..identity.clone()
        };
        for (unit, child) in [
            ("demo-isp-0190a1b2", &identity),
            ("old-isp-0190a1b2", &gone),
        ] {
            let slot = data.path().join("units").join(unit).join("web/0");
            std::fs::create_dir_all(&slot).unwrap();
            let state =
                serde_json::json!({"launch": 1, "shim": gone, "child": child, "started_at": 1});
            std::fs::write(slot.join("state.json"), state.to_string()).unwrap();
        }
        let slots = of_agent(data.path());
        assert_eq!(slots.len(), 1);
        assert_eq!(
            (slots[0].deployment.as_str(), &slots[0].child),
            ("demo-isp-0190a1b2", &Some(identity))
        );
        slots[0].ask();
        let status = program.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(15)
        );
        assert!(of_agent(data.path()).is_empty());
    }
}
