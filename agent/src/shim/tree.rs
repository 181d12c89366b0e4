//! The child and all its descendants. Orphans come to the shim, because it is their subreaper: so when it has no
//! child left, nothing is left.

use std::{fs, time::Duration};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, WaitOptions, WaitStatus, wait},
};
use tokio::time::Instant;

use super::{files::End, signals::Signals};

/// What ended since the last look.
pub(super) struct Reaped {
    /// How the child itself ended, if it did now.
    pub(super) child: Option<End>,
    /// Whether no descendant is left.
    pub(super) none_left: bool,
}

/// Takes note of everything that ended, without waiting.
pub(super) fn reap(child: Pid) -> Reaped {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => ended = end_of(status).or(ended),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                return Reaped {
                    child: ended,
                    none_left: false,
                };
            }
            // No child at all.
            Err(_) => {
                return Reaped {
                    child: ended,
                    none_left: true,
                };
            }
        }
    }
}

/// Kills every descendant, those that they fork meanwhile too, and gives the child's end if it was among them.
pub(super) fn kill_all(child: Pid, signals: &Signals, patience: Duration) -> Option<End> {
    let given_up = Instant::now() + patience;
    let mut ended = None;
    loop {
        signals.clear();
        let reaped = reap(child);
        ended = ended.or(reaped.child);
        if reaped.none_left || Instant::now() >= given_up {
            return ended;
        }
        for process in descendants(std::process::id()) {
            drop(process.send_signal(Signal::KILL));
        }
        // A death wakes at once; the limit finds what was forked between the look and the kill.
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let mut wake = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        let _woken = poll(&mut wake, Some(&limit));
    }
}

/// The identity of a child that was not waited for; a child that ended already keeps its pid as a zombie.
pub(super) fn identity_of_child(child: Pid) -> ProcessIdentity {
    let pid = child.as_raw_nonzero().get().unsigned_abs();
    ProcessIdentity::of(pid).unwrap_or_else(|| ProcessIdentity {
        pid,
        start_ticks: 0,
        ..ProcessIdentity::own()
    })
}

/// All living processes below one, by the table of processes.
pub(super) fn descendants(root: u32) -> Vec<ProcessIdentity> {
    let table: Vec<(u32, u32)> = processes().collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(
            table
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    family
        .into_iter()
        .skip(1)
        .filter_map(ProcessIdentity::of)
        .collect()
}

/// Every process and its parent.
fn processes() -> impl Iterator<Item = (u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name in parentheses: the state, then the parent.
        let (_, fields) = stat.rsplit_once(')')?;
        Some((pid, fields.split_ascii_whitespace().nth(1)?.parse().ok()?))
    })
}

fn end_of(status: WaitStatus) -> Option<End> {
    let code = status.exit_status().map(End::Code);
    code.or_else(|| status.terminating_signal().map(End::Signal))
}
