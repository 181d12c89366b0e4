//! Stops every instance of an agent that does not run itself: how a product that is shut down on purpose takes its
//! instances along. It is not used when an agent merely ends: instances outlive that.

use std::{fs, path::Path, time::Duration};

use dotmac_runtime::process::Signal;
use tokio::time::Instant;

use super::sweep;
use crate::{
    limits::remove_groups,
    shim::files::{SlotFiles, State},
};

/// What became of one running copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The unit's name, such as `demo-isp-0190a1b2`.
    pub unit: String,
    /// The slot, such as `web.0`.
    pub slot: String,
    /// The process that ran.
    pub pid: u32,
    /// Whether it had to be killed.
    pub killed: bool,
}

/// Asks all shims to stop what they run and waits; after `patience` it kills. The agent must not run: it would start
/// everything again. What was stopped so starts again with the agent, and counts as no crash.
#[must_use]
pub fn stop_all(data_dir: &Path, patience: Duration) -> Vec<Stopped> {
    let running = running(data_dir);
    for (_, _, state) in &running {
        drop(state.shim.send_signal(Signal::TERM));
    }
    let ends = Instant::now() + patience;
    let mut stopped = Vec::new();
    for (unit, slot, state) in running {
        let left = ends.saturating_duration_since(Instant::now()).as_secs();
        let ended = sweep::await_end(&state.shim, i64::try_from(left).unwrap_or(i64::MAX));
        if !ended {
            drop(state.shim.send_signal(Signal::QUIT));
            if !sweep::await_end(&state.shim, 5) {
                drop(sweep::kill_session(&state));
            }
        }
        stopped.push(Stopped {
            unit,
            slot,
            pid: state.child.pid,
            killed: !ended,
        });
    }
    remove_groups(data_dir);
    stopped
}

fn running(data_dir: &Path) -> Vec<(String, String, State)> {
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for unit in list(&data_dir.join("units")) {
        for slot in list(&unit.path().join("run")) {
            let files = SlotFiles::new(&slot.path());
            if let Some(state) = files.state().filter(|state| state.shim.is_alive()) {
                let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
                found.push((name(&unit), name(&slot), state));
            }
        }
    }
    found
}
