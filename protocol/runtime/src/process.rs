//! Which process is meant, beyond its reusable number: boot, pid and start time together. It starts no process and
//! signals none that is not surely the one that was named.

use std::{fmt, fs, io};

pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One process that ran or runs on this machine; never another one that got its pid later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since the boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

/// Why a signal was not sent.
#[derive(Debug, Error)]
pub enum SignalError {
    /// The process ended; another one may have its pid.
    #[error("process {0} is gone")]
    Gone(u32),
    /// The kernel refused.
    #[error("process {pid} cannot be signalled")]
    Refused {
        /// Which one.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProcessIdentity {
    /// The running process of this pid; `None` when there is none, or it is a zombie.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            boot_id: boot_id()?,
            pid,
            start_ticks: start_ticks_of_running(&stat)?,
        })
    }

    /// This very process.
    ///
    /// # Panics
    /// Without a mounted `/proc`.
    #[must_use]
    pub fn own() -> Self {
        Self::of(std::process::id()).expect("/proc shows this running process")
    }

    /// Whether it still runs. A zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal, if it is still this process: checked while a file descriptor pins the pid.
    ///
    /// # Errors
    /// When the process is gone, or the kernel refuses.
    pub fn send_signal(&self, signal: Signal) -> Result<(), SignalError> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(SignalError::Gone(self.pid))?;
        let pinned = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| self.refused(error))?;
        if !self.is_alive() {
            return Err(SignalError::Gone(self.pid));
        }
        pidfd_send_signal(&pinned, signal).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: rustix::io::Errno) -> SignalError {
        match error {
            rustix::io::Errno::SRCH => SignalError::Gone(self.pid),
            other => SignalError::Refused {
                pid: self.pid,
                source: other.into(),
            },
        }
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (started at tick {})",
            self.pid, self.start_ticks
        )
    }
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// The program's name, in parentheses, may hold spaces and parentheses itself: fields count from the last one.
fn start_ticks_of_running(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // The state is field 3, the start time field 22.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::{ProcessIdentity, Signal, SignalError, start_ticks_of_running};

    fn sleeper() -> (Child, ProcessIdentity) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        (child, identity)
    }

    #[test]
    fn a_dead_process_is_not_alive_and_gets_no_signal() {
        let (mut child, identity) = sleeper();
        assert!(identity.is_alive());
        identity.send_signal(Signal::KILL).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
        assert!(!identity.is_alive());
        assert!(matches!(
            identity.send_signal(Signal::TERM),
            Err(SignalError::Gone(_))
        ));
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let (mut child, identity) = sleeper();
        let earlier = ProcessIdentity {
            start_ticks: identity.start_ticks - 1,
            ..identity.clone()
        };
        let other_boot = ProcessIdentity {
            boot_id: "00000000-0000-0000-0000-000000000000".into(),
            ..identity.clone()
        };
        for stranger in [earlier, other_boot] {
            assert!(!stranger.is_alive());
            assert!(matches!(
                stranger.send_signal(Signal::KILL),
                Err(SignalError::Gone(_))
            ));
        }
        assert!(identity.is_alive(), "the holder of the pid was left alone");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let (mut child, identity) = sleeper();
        child.kill().unwrap();
        let gone = || ProcessIdentity::of(child.id()).is_none();
        while !gone() {
            std::thread::yield_now();
        }
        assert!(!identity.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_alive() {
        assert!(ProcessIdentity::own().is_alive());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) Z (b) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 2";
        assert_eq!(start_ticks_of_running(stat), Some(4242));
        assert_eq!(start_ticks_of_running(&stat.replace(") S ", ") Z ")), None);
    }
}
