//! What a benchmark leaves: one line of JSON, on standard output and below `target/bench`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use dotmac_tests::programs;
use serde_json::{Map, Value, json};

use crate::samples::{median, percentile, rounded};

/// Figures by name.
pub(crate) type Found = Map<String, Value>;

/// Figures of this machine, to begin with.
pub(crate) fn begin() -> Found {
    let mut found = Map::new();
    found.insert("machine".into(), machine());
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

/// Cores, processor, and how busy it was when it was asked: figures of a busy machine are no figures.
pub(crate) fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Option<f64> = load.split(' ').next().and_then(|one| one.parse().ok());
    json!({"cores": cores, "processor": model.map(|(_, model)| model), "load_at_start": load})
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
