//! What a benchmark leaves: one line of JSON, on standard output and below `target/bench`. It begins with the machine and
//! the commit that the figures are of.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use dotmac_tests::programs;
use serde_json::{Map, Value, json};

use crate::{
    physics,
    samples::{median, percentile, rounded},
};

/// Figures by name.
pub(crate) type Found = Map<String, Value>;

/// What the figures are of, to begin with: the machine and the commit.
pub(crate) fn begin() -> Found {
    let mut found = Map::new();
    found.insert("machine".into(), machine());
    found.insert("commit".into(), json!(commit()));
    found
}

/// Adds one figure.
pub(crate) fn put(found: &mut Found, name: impl Into<String>, value: f64) {
    found.insert(name.into(), json!(rounded(value)));
}

/// Adds p50 and p99 of milliseconds.
pub(crate) fn put_ms(found: &mut Found, name: &str, millis: &[f64]) {
    let values = || millis.iter().copied();
    put(found, format!("{name}_p50_ms"), median(values()));
    put(found, format!("{name}_p99_ms"), percentile(values(), 99));
}

/// Adds the median of what the rounds found, and the least and the most of it: what lies within is noise.
pub(crate) fn put_spread(found: &mut Found, name: &str, rounds: &[f64]) {
    let values = || rounds.iter().copied();
    put(found, name, median(values()));
    put(found, format!("{name}_min"), percentile(values(), 0));
    put(found, format!("{name}_max"), percentile(values(), 100));
}

/// Where results lie.
pub(crate) fn directory() -> Result<PathBuf> {
    let programs = programs::directory()?;
    let target = programs.parent().context("no target directory")?;
    Ok(target.join("bench"))
}

/// Writes the figures below `target/bench`, and as the last line.
pub(crate) fn write(name: &str, found: Found) -> Result<()> {
    let directory = directory()?;
    fs::create_dir_all(&directory)?;
    let line = Value::Object(found).to_string();
    fs::write(directory.join(name), format!("{line}\n"))?;
    println!("{line}");
    Ok(())
}

/// Cores, processor, memory, kernel, the disk below the fleets, and how busy it was when it was asked: figures of a busy
/// machine are no figures. What cannot be found out is null.
fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Option<f64> = load.split(' ').next().and_then(|one| one.parse().ok());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| {
        let kibibytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kibibytes.parse::<u64>().ok()
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    let homes = programs::homes().ok();
    let probe = homes.as_deref().map(tempfile::tempdir_in);
    let probe = probe.and_then(Result::ok);
    let sync = probe.map(|probe| physics::sync_ms(probe.path()));
    let sync = sync.and_then(Result::ok);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    json!({
        "cores": cores,
        "processor": model.map(|(_, model)| model),
        "memory_mib": memory.map(|kibibytes| kibibytes / 1024),
        "kernel": kernel.as_deref().map(str::trim),
        "file_system": homes.as_deref().and_then(|homes| file_system(&mounts, homes)),
        "disk_sync_p50_ms": sync.map(|(p50, _)| p50),
        "load_at_start": load,
    })
}

/// The kind of file system that holds a path: that of the longest mount point above it, and of these the last one, which
/// hides the others.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (Path::new(words.next()?), words.next()?);
        path.starts_with(point)
            .then(|| (point.components().count(), kind.to_owned()))
    });
    let longest = mounts.max_by_key(|(depth, _)| *depth);
    longest.map(|(_, kind)| kind)
}

/// The commit, and whether something was changed since; nothing without git.
fn commit() -> Option<String> {
    let described = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["describe", "--always", "--dirty"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(described.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::file_system;

    #[test]
    fn a_path_lies_in_the_innermost_mount_above_it() {
        let mounts =
            "/dev/a / ext4 rw 0 0\ntmpfs /work tmpfs rw 0 0\n/dev/b /work/own xfs rw 0 0\n";
        let of = |path: &str| file_system(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/work/own/target"), "xfs");
        assert_eq!(of("/work/owner"), "tmpfs");
        assert_eq!(of("/home"), "ext4");
        assert_eq!(file_system("", Path::new("/home")), None);
    }
}
