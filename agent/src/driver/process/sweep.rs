//! Ends what a killed shim left behind: the processes of its session. A session's number is not given to anybody
//! else while one of its processes lives, so that nobody else's are hit.

use std::{fs, io};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::shim::files::State;

/// Rounds of looking and killing; each finds what was forked during the one before.
const ROUNDS_MAX: usize = 16;

/// Kills every process of the shim's session.
pub(super) fn kill_session(state: &State) -> io::Result<()> {
    let session = state.shim.pid;
    for _ in 0..ROUNDS_MAX {
        let stranger_leads = ProcessIdentity::of(session).is_some_and(|one| one != state.shim);
        let mut left: Vec<ProcessIdentity> = if stranger_leads {
            Vec::new()
        } else {
            members(session)
        };
        if state.child.is_alive() && !left.contains(&state.child) {
            left.push(state.child.clone());
        }
        if left.is_empty() {
            return Ok(());
        }
        for process in &left {
            drop(process.send_signal(Signal::KILL));
        }
        for process in &left {
            await_end(process, 2);
        }
    }
    Err(io::Error::other(format!(
        "processes of session {session} do not die"
    )))
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
