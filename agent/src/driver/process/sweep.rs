//! Ends what a killed shim left behind: the processes of its session, and whatever is still in its slot's control
//! groups, as a process that made a session of its own is. A session's number is not given to anybody else while one of
//! its processes lives, and nobody else is put into those groups, so that nobody else's are hit.

use std::{fs, io, path::PathBuf, time::Duration};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::time::Instant;

use crate::{limits::bases, shim::files::State};

/// Rounds of looking and killing; each finds what was forked during the one before.
const ROUNDS_MAX: usize = 256;
/// How long all rounds may take together. Longer means that the kernel holds something.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills every process of the shim's session and in the slot's groups until there is none, removes the groups, and
/// gives the first one that it killed.
pub(super) fn end_all(
    state: Option<&State>,
    groups: &[PathBuf],
) -> io::Result<Option<ProcessIdentity>> {
    let given_up = Instant::now() + PATIENCE;
    let mut first = None;
    for _ in 0..ROUNDS_MAX {
        let mut left = state.map_or_else(Vec::new, session);
        left.extend(bases::members(groups));
        if left.is_empty() {
            bases::remove(groups);
            return Ok(first);
        }
        for process in &left {
            drop(process.send_signal(Signal::KILL));
        }
        for process in &left {
            let patience = given_up.saturating_duration_since(Instant::now()).as_secs();
            await_end(process, i64::try_from(patience.min(2)).unwrap_or(0));
        }
        first = first.or_else(|| left.into_iter().next());
        if Instant::now() >= given_up {
            break;
        }
    }
    let first = first.map_or_else(String::new, |process| format!(", the first was {process}"));
    Err(io::Error::other(format!(
        "processes of an ended copy do not die{first}"
    )))
}

/// What lives of a shim's session, and its child.
fn session(state: &State) -> Vec<ProcessIdentity> {
    if state.shim.boot_id != ProcessIdentity::own().boot_id {
        return Vec::new();
    }
    let number = state.shim.pid;
    let stranger_leads = ProcessIdentity::of(number).is_some_and(|one| one != state.shim);
    let mut left = if stranger_leads {
        Vec::new()
    } else {
        members(number)
    };
    if state.child.is_alive() && !left.contains(&state.child) {
        left.push(state.child.clone());
    }
    left
}

/// Waits for the end of a process; `false` when it still lives after so many seconds.
pub(super) fn await_end(process: &ProcessIdentity, seconds: i64) -> bool {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Some(Ok(pinned)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return true;
    };
    if process.is_alive() {
        let limit = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let mut ended = [PollFd::new(&pinned, PollFlags::IN)];
        let _ended = poll(&mut ended, Some(&limit));
    }
    !process.is_alive()
}

fn members(session: u32) -> Vec<ProcessIdentity> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        // Behind the name: state, parent, group, session.
        let of: u32 = fields.split_ascii_whitespace().nth(3)?.parse().ok()?;
        (of == session).then(|| ProcessIdentity::of(pid)).flatten()
    });
    found.collect()
}
