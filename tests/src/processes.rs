//! What really runs, from `/proc`.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::ProcessIdentity;

/// One running process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Which one.
    pub identity: ProcessIdentity,
    /// Its arguments, joined by spaces.
    pub command: String,
}

/// Every living process whose program, arguments or working directory lie below `home`.
#[must_use]
pub fn below(home: &Path) -> Vec<Process> {
    let needle = home.as_os_str().as_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let place = PathBuf::from(format!("/proc/{pid}"));
            let arguments = fs::read(place.join("cmdline")).unwrap_or_default();
            let links =
                ["exe", "cwd"].map(|name| fs::read_link(place.join(name)).unwrap_or_default());
            let is_ours =
                contains(&arguments, needle) || links.iter().any(|link| link.starts_with(home));
            let identity = is_ours.then(|| ProcessIdentity::of(pid))??;
            let command = String::from_utf8_lossy(&arguments).replace('\0', " ");
            Some(Process { identity, command })
        })
        .collect()
}

/// The running process with this pid.
///
/// # Errors
/// When there is none.
pub fn of(pid: u32) -> Result<ProcessIdentity> {
    ProcessIdentity::of(pid).with_context(|| format!("no process {pid} runs"))
}

/// Fails unless all of them still run.
///
/// # Errors
/// Names the first that does not.
pub fn all_alive(processes: &[ProcessIdentity]) -> Result<()> {
    for process in processes {
        ensure!(process.is_alive(), "process {process} is gone");
    }
    Ok(())
}

/// Whether a byte string is in another one.
#[must_use]
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}
