//! The step between the supervisor and a process: a session of its own, so that no terminal reaches it, its identity
//! on disk, then the program takes this process over. Pid and start time stay the same.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use dotmac_runtime::{disk, process::ProcessIdentity};

use crate::cli::failure::Failure;

/// Becomes the program; returns only when that fails.
pub(crate) fn become_program(pid_file: &Path, program: &[OsString]) -> Failure {
    let Some((name, arguments)) = program.split_first() else {
        return Failure::Usage("no program is named".into());
    };
    // A process that leads a group already has a session or cannot get one; it runs all the same.
    if let Err(cause) = rustix::process::setsid() {
        tracing::debug!(error = %cause, "no session of its own");
    }
    let identity = serde_json::to_vec(&ProcessIdentity::own()).expect("text and numbers");
    if let Err(cause) = disk::write_atomic(pid_file, &identity, 0o600) {
        return Failure::io("write", pid_file, &cause);
    }
    let cause = Command::new(name).args(arguments).exec();
    Failure::io("start", &PathBuf::from(name), &cause)
}
