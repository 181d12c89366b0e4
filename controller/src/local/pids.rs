//! Who runs, on disk: one file per process with boot, pid and start time, so that a pid that another program got
//! meanwhile, or after a reboot, is recognised as stale and never signalled.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use dotmac_runtime::{disk, process::ProcessIdentity};
use rustix::fs::{FlockOperation, flock};

use super::layout::Layout;
use crate::cli::failure::Failure;

/// Where one process is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// What a pid file says about a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Nothing: it was never started, or stopped in order.
    Nothing,
    /// It ran once; whoever has its pid now is somebody else.
    Stale,
    /// It runs: adopt it.
    Running(ProcessIdentity),
}

/// Only one supervisor works on a home: the kernel holds this lock as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl PidFile {
    /// The file of the process with this name.
    pub(crate) fn new(layout: &Layout, name: &str) -> Self {
        Self {
            path: layout.run().join(format!("{name}.pid")),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub(crate) fn read(&self) -> Noted {
        decide(
            std::fs::read(&self.path).ok().as_deref(),
            ProcessIdentity::is_alive,
        )
    }

    /// The process, if it runs.
    pub(crate) fn running(&self) -> Option<ProcessIdentity> {
        match self.read() {
            Noted::Running(identity) => Some(identity),
            Noted::Nothing | Noted::Stale => None,
        }
    }

    /// Notes a process.
    pub(crate) fn note(&self, identity: &ProcessIdentity) -> Result<(), Failure> {
        let text = serde_json::to_vec(identity).expect("text and numbers");
        disk::write_atomic(&self.path, &text, 0o600)
            .map_err(|cause| Failure::io("write", &self.path, &cause))
    }

    /// Forgets it; a file that is gone already is fine.
    pub(crate) fn forget(&self) {
        if let Err(cause) = std::fs::remove_file(&self.path)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), error = %cause, "a pid file stays");
        }
    }
}

impl Lock {
    /// Takes the lock; `None` when another supervisor lives.
    pub(crate) fn take(layout: &Layout) -> Result<Option<Self>, Failure> {
        Self::take_named(layout, "lock")
    }

    /// Takes a lock for something that only one process may do; `None` when another one does it.
    pub(crate) fn take_named(layout: &Layout, name: &str) -> Result<Option<Self>, Failure> {
        let path = layout.run().join(name);
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = opened.map_err(|cause| Failure::io("open", &path, &cause))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(cause) => Err(Failure::io("lock", &path, &cause.into())),
        }
    }

    /// Whether a supervisor lives.
    pub(crate) fn is_taken(layout: &Layout) -> Result<bool, Failure> {
        if !layout.run().is_dir() {
            return Ok(false);
        }
        Ok(Self::take(layout)?.is_none())
    }
}

/// A damaged file counts as stale: it names nobody who could be signalled.
fn decide(file: Option<&[u8]>, is_alive: impl Fn(&ProcessIdentity) -> bool) -> Noted {
    let Some(bytes) = file else {
        return Noted::Nothing;
    };
    match serde_json::from_slice::<ProcessIdentity>(bytes) {
        Ok(identity) if is_alive(&identity) => Noted::Running(identity),
        _ => Noted::Stale,
    }
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::process::ProcessIdentity;

    use super::{Lock, Noted, PidFile, decide};
    use crate::local::layout::Layout;

    #[test]
    fn only_the_very_process_that_was_noted_is_adopted() {
        let own = ProcessIdentity::own();
        let text = serde_json::to_vec(&own).unwrap();
        assert_eq!(
            decide(Some(&text), ProcessIdentity::is_alive),
            Noted::Running(own.clone())
        );
        let earlier = ProcessIdentity {
            start_ticks: own.start_ticks.wrapping_sub(1),
            ..own.clone()
        };
        let before_reboot = ProcessIdentity {
            boot_id: "other".into(),
            ..own
        };
        for stranger in [earlier, before_reboot] {
            let text = serde_json::to_vec(&stranger).unwrap();
            assert_eq!(decide(Some(&text), ProcessIdentity::is_alive), Noted::Stale);
        }
        assert_eq!(decide(Some(b"{\"pid\":"), |_| true), Noted::Stale);
        assert_eq!(decide(None, |_| true), Noted::Nothing);
    }

    #[test]
    fn a_second_supervisor_is_kept_out_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        assert!(!Lock::is_taken(&layout).unwrap());
        layout.prepare().unwrap();
        let first = Lock::take(&layout).unwrap().unwrap();
        assert!(Lock::take(&layout).unwrap().is_none());
        assert!(Lock::is_taken(&layout).unwrap());
        drop(first);
        assert!(!Lock::is_taken(&layout).unwrap());
    }

    #[test]
    fn a_noted_process_is_read_back_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        layout.prepare().unwrap();
        let file = PidFile::new(&layout, "controller-1");
        file.note(&ProcessIdentity::own()).unwrap();
        assert_eq!(file.running(), Some(ProcessIdentity::own()));
        file.forget();
        file.forget();
        assert_eq!(file.read(), Noted::Nothing);
    }
}
