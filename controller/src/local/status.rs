//! `make status`: every process of the fleet, whether it runs, since when, where it listens, and the instances.

use std::path::Path;

use serde_json::json;

use super::{
    layout::Layout,
    member::Member,
    pids::{Noted, PidFile},
    slots,
    supervise::supervisor_pid,
};
use crate::cli::{
    CliContext,
    failure::Failure,
    output::{bytes, duration},
};

/// One line of the table.
struct Line {
    name: String,
    state: &'static str,
    pid: Option<u32>,
    since_ms: Option<u64>,
    memory_bytes: Option<u64>,
    place: String,
}

/// Shows the fleet.
pub(crate) fn run(context: &CliContext) -> Result<(), Failure> {
    let layout = context.local()?;
    let settings = layout.settings()?;
    let mut lines = vec![line(
        "supervisor",
        &supervisor_pid(&layout),
        layout.home().display().to_string(),
    )];
    for member in Member::all(&layout) {
        let mut own = line(&member.name, &member.pid_file, member.address(&settings));
        if member.is_retired() {
            own.state = "retired";
        }
        lines.push(own);
        if !member.is_controller() {
            lines.extend(instances(&member));
        }
    }
    if context.output.is_data() {
        let items = lines.iter().map(|line| {
            json!({"name": line.name, "state": line.state, "pid": line.pid, "since_ms": line.since_ms,
                "memory_bytes": line.memory_bytes, "place": line.place})
        });
        let home = layout.home().display().to_string();
        return context
            .output
            .data(&json!({"home": home, "processes": items.collect::<Vec<_>>()}));
    }
    let now = context.clock.now().0;
    let rows = lines.iter().map(|line| row(line, now)).collect();
    context.output.table(
        &["process", "state", "pid", "for", "memory", "where"],
        rows,
        "no processes",
    )
}

fn line(name: &str, file: &PidFile, place: String) -> Line {
    let noted = file.read();
    let state = match noted {
        Noted::Running(_) => "running",
        Noted::Stale => "gone",
        Noted::Nothing => "stopped",
    };
    let pid = match noted {
        Noted::Running(identity) => Some(identity.pid),
        Noted::Stale | Noted::Nothing => None,
    };
    let since_ms = pid.and_then(|_| written_at(file.path()));
    Line {
        name: name.to_owned(),
        state,
        pid,
        since_ms,
        memory_bytes: pid.and_then(resident),
        place,
    }
}

fn instances(member: &Member) -> Vec<Line> {
    let slots = slots::of_agent(&member.data());
    let lines = slots.into_iter().map(|slot| {
        let pid = slot.child.as_ref().map(|child| child.pid);
        Line {
            name: format!("  {}", slot.deployment),
            state: if slot.child.is_some() {
                "running"
            } else {
                "ending"
            },
            pid,
            since_ms: written_at(&slot.directory.join("state.json")),
            memory_bytes: pid.and_then(resident),
            place: slot.directory.display().to_string(),
        }
    });
    lines.collect()
}

fn row(line: &Line, now_ms: u64) -> Vec<String> {
    vec![
        line.name.clone(),
        line.state.to_owned(),
        line.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        line.since_ms
            .map(|since| duration(now_ms.saturating_sub(since)))
            .unwrap_or_default(),
        line.memory_bytes.map(bytes).unwrap_or_default(),
        line.place.clone(),
    ]
}

/// A process notes itself when it starts, so its file's time is that of its start.
fn written_at(path: &Path) -> Option<u64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Bytes of memory that a process holds.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// What `up` shows when a fleet is ready.
pub(crate) fn summary(
    layout: &Layout,
    members: &[Member],
    deployments: usize,
) -> Result<Vec<String>, Failure> {
    let settings = layout.settings()?;
    let mut lines = vec![String::from("DotMac is up.")];
    let controllers = members.iter().filter(|member| member.is_controller());
    let addresses: Vec<_> = controllers
        .map(|member| member.address(&settings))
        .collect();
    lines.push(format!("  API          {}", addresses.join("  ")));
    lines.push(format!("  admin token  {}", layout.admin_token().display()));
    lines.push(format!("  data, logs   {}", layout.home().display()));
    if deployments > 0 {
        lines.push(format!("  deployments  {deployments}"));
    }
    let dotmac = layout.program("dotmac");
    lines.push(String::from("Next:"));
    lines.push(format!(
        "  {} deployments create --name 'Demo ISP' --wait",
        dotmac.display()
    ));
    Ok(lines)
}
