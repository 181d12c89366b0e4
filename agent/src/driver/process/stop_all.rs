//! Stops every instance of an agent that does not run itself: how a product that is shut down on purpose takes its
//! instances along. It is not used when an agent merely ends: instances outlive that.

use std::{fs, io, path::Path, time::Duration};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use tokio::time::Instant;

use super::{split_group_name, sweep};
use crate::{
    limits::{bases::Bases, places},
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
    let (running, orphaned) = started(data_dir);
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
                drop(state.shim.send_signal(Signal::KILL));
                note_failure(sweep::end_all(Some(&state), &[]));
            }
        }
        stopped.push(Stopped {
            unit,
            slot,
            pid: state.child.pid,
            killed: !ended,
        });
    }
    for (unit, slot, state) in orphaned {
        if let Some(first) = note_failure(sweep::end_all(Some(&state), &[])) {
            let pid = first.pid;
            stopped.push(Stopped {
                unit,
                slot,
                pid,
                killed: true,
            });
        }
    }
    end_groups(&places(data_dir), &mut stopped);
    stopped
}

/// Ends what made sessions of its own and lost its shim, and removes all groups of the agent.
fn end_groups(bases: &Bases, stopped: &mut Vec<Stopped>) {
    for (name, groups) in bases.slots() {
        let Some(first) = note_failure(sweep::end_all(None, &groups)) else {
            continue;
        };
        let (unit, slot) = split_group_name(&name).map_or_else(
            || (name.clone(), String::new()),
            |(unit, slot)| (unit.to_owned(), slot.to_string()),
        );
        let is_known = |one: &Stopped| (&one.unit, &one.slot) == (&unit, &slot);
        if !stopped.iter().any(is_known) {
            let pid = first.pid;
            stopped.push(Stopped {
                unit,
                slot,
                pid,
                killed: true,
            });
        }
    }
    bases.remove_empty();
    bases.remove_leaves();
}

fn note_failure(ended: io::Result<Option<ProcessIdentity>>) -> Option<ProcessIdentity> {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "not everything could be stopped");
        None
    })
}

type Copies = Vec<(String, String, State)>;

/// What has a shim, and what lost it without a word.
fn started(data_dir: &Path) -> (Copies, Copies) {
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let (mut running, mut orphaned) = (Vec::new(), Vec::new());
    for unit in list(&data_dir.join("units")) {
        for slot in list(&unit.path().join("run")) {
            let files = SlotFiles::new(&slot.path());
            let Some(state) = files.state() else { continue };
            let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            let (unit, slot) = (name(&unit), name(&slot));
            let ended = |files: &SlotFiles| {
                let exit = files.exit();
                exit.is_some_and(|exit| exit.launch == state.launch)
            };
            if state.shim.is_alive() {
                running.push((unit, slot, state));
            } else if !ended(&files) {
                orphaned.push((unit, slot, state));
            }
        }
    }
    (running, orphaned)
}
