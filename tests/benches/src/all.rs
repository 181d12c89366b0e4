//! `make bench`: every benchmark in turn, each a process of its own, and a table of what they found beside what is aimed
//! at. A benchmark that fails is said and does not keep the others from running.

use std::{fs, process::Stdio};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;
use tokio::process::Command;

use crate::{report, tell};

/// Benchmarks in their order, by the name of command and result.
const BENCHES: [&str; 8] = [
    "deploy", "commits", "platform", "fleet", "memory", "tracing", "api", "load",
];

/// What the table shows: benchmark, figure, what it is, unit, and the aim (`<` below, nothing for none).
const ROWS: [(&str, &str, &str, &str, Option<f64>); 44] = [
    (
        "deploy",
        "one_active_p50_ms",
        "request to active, one after the other, p50",
        "ms",
        None,
    ),
    (
        "deploy",
        "one_active_p99_ms",
        "request to active, one after the other, p99",
        "ms",
        Some(2000.0),
    ),
    (
        "deploy",
        "many_active_p50_ms",
        "request to active, 10 at a time, p50",
        "ms",
        None,
    ),
    (
        "deploy",
        "many_active_p99_ms",
        "request to active, 10 at a time, p99",
        "ms",
        Some(2000.0),
    ),
    (
        "commits",
        "api_1_per_second",
        "changes through the API, 1 writer",
        "/s",
        None,
    ),
    (
        "commits",
        "api_16_per_second",
        "changes through the API, 16 writers",
        "/s",
        None,
    ),
    (
        "commits",
        "api_256_per_second",
        "changes through the API, 256 writers",
        "/s",
        None,
    ),
    (
        "commits",
        "log_1_per_second",
        "commits, 1 writer",
        "/s",
        None,
    ),
    (
        "commits",
        "log_16_per_second",
        "commits, 16 writers",
        "/s",
        None,
    ),
    (
        "commits",
        "log_256_per_second",
        "commits, 256 writers",
        "/s",
        None,
    ),
    (
        "commits",
        "log_1_p50_ms",
        "commit, 1 writer, p50",
        "ms",
        None,
    ),
    (
        "commits",
        "log_256_syncs_per_ack",
        "syncs of the leader per acknowledgement, 256 writers",
        "",
        None,
    ),
    (
        "commits",
        "sync_p50_ms",
        "the disk's own sync of 4 KiB, p50",
        "ms",
        None,
    ),
    (
        "platform",
        "validate_32_per_second",
        "licence validations of one agent",
        "/s",
        None,
    ),
    (
        "platform",
        "validate_1_added_p50_ms",
        "added by the agent to a validation, p50",
        "ms",
        None,
    ),
    (
        "platform",
        "metrics_32_per_second",
        "metrics reports of one agent",
        "/s",
        None,
    ),
    (
        "platform",
        "event_32_per_second",
        "events of one agent",
        "/s",
        None,
    ),
    ("fleet", "agents", "simulated agents", "", None),
    ("fleet", "enrolments_per_second", "enrolments", "/s", None),
    (
        "fleet",
        "change_commit_to_acknowledged_p50_ms",
        "commit of a change to its acknowledgement, p50",
        "ms",
        None,
    ),
    (
        "fleet",
        "change_commit_to_acknowledged_p99_ms",
        "commit of a change to its acknowledgement, p99",
        "ms",
        Some(600.0),
    ),
    (
        "fleet",
        "change_wave_orders_p50",
        "orders of a wave, p50",
        "",
        None,
    ),
    (
        "fleet",
        "change_wave_last_change_to_last_acknowledged_p50_ms",
        "last change of a wave to its last acknowledgement, p50",
        "ms",
        None,
    ),
    (
        "fleet",
        "change_wave_last_change_to_last_acknowledged_p99_ms",
        "last change of a wave to its last acknowledgement, p99",
        "ms",
        Some(600.0),
    ),
    (
        "fleet",
        "change_last_commit_to_last_acknowledged_p99_ms",
        "last commit of a burst to the last one, p99",
        "ms",
        Some(600.0),
    ),
    (
        "fleet",
        "reconnected_after_one_s",
        "all connected after a controller was killed",
        "s",
        None,
    ),
    (
        "fleet",
        "reconnected_after_all_s",
        "all connected after all controllers were killed",
        "s",
        None,
    ),
    (
        "memory",
        "agent_idle_mb",
        "an idle agent, resident",
        "MB",
        Some(15.0),
    ),
    ("memory", "agent_idle_mib", "the same", "MiB", None),
    (
        "memory",
        "agent_one_instance_mb",
        "an agent with one instance, resident",
        "MB",
        Some(15.0),
    ),
    ("memory", "agent_one_instance_mib", "the same", "MiB", None),
    (
        "memory",
        "controller_connected_mib",
        "a controller with these agents, resident",
        "MiB",
        None,
    ),
    (
        "tracing",
        "off_active_p50_ms",
        "request to active, no traces, p50",
        "ms",
        None,
    ),
    (
        "tracing",
        "exported_active_p50_ms",
        "request to active, exported, p50",
        "ms",
        None,
    ),
    (
        "tracing",
        "away_active_p50_ms",
        "request to active, collector away, p50",
        "ms",
        None,
    ),
    (
        "tracing",
        "hung_active_p50_ms",
        "request to active, collector hangs, p50",
        "ms",
        None,
    ),
    (
        "tracing",
        "off_show_per_second",
        "shows, no traces",
        "/s",
        None,
    ),
    (
        "tracing",
        "default_show_per_second",
        "shows, one in a hundred traced",
        "/s",
        None,
    ),
    (
        "tracing",
        "all_show_per_second",
        "shows, all traced",
        "/s",
        None,
    ),
    ("api", "show_rps", "show", "/s", None),
    ("api", "create_rps", "create", "/s", None),
    (
        "api",
        "watch_1000_p99_ms",
        "acknowledgement to the last of 1,000 watchers, p99",
        "ms",
        None,
    ),
    (
        "load",
        "write_p99_ms",
        "a write under load, p99",
        "ms",
        None,
    ),
    (
        "load",
        "resident_mib",
        "three controllers under load, resident",
        "MiB",
        None,
    ),
];

/// Which of them run.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Runs them, and shows the table.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut failed = Vec::new();
    let is_wanted =
        |name: &str| settings.only.is_empty() || settings.only.iter().any(|one| one == name);
    for name in BENCHES.into_iter().filter(|name| is_wanted(name)) {
        tell(&format!("--- {name}"));
        let ran = Command::new(std::env::current_exe()?)
            .arg(name)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await?;
        if !ran.success() {
            failed.push(name);
        }
    }
    table()?;
    ensure!(failed.is_empty(), "these failed: {}", failed.join(", "));
    Ok(())
}

/// Shows the newest result of every benchmark.
fn table() -> Result<()> {
    let directory = report::directory()?;
    println!("\n{:<9}{:<56}{:>12} {:<4} aim", "", "", "", "");
    for (bench, key, what, unit, aim) in ROWS {
        let read = fs::read(directory.join(format!("{bench}.json")));
        let found: Option<Value> = read
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(value) = found.as_ref().and_then(|found| found[key].as_f64()) else {
            continue;
        };
        let digits = match value {
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        let verdict = aim.map_or_else(String::new, |aim| {
            let verdict = if value < aim { "met" } else { "missed" };
            format!("< {aim:.0} {verdict}")
        });
        println!("{bench:<9}{what:<56}{value:>12.digits$} {unit:<4} {verdict}");
    }
    Ok(())
}
