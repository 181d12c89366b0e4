//! This machine, where a fleet lives on it: disk, limits of the kernel, ports, processes, and errors in their logs.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use super::check::Check;
use crate::{
    cli::{logs, output::bytes},
    local::{
        layout::{Layout, Settings},
        member::Member,
    },
};

/// Bytes free on a disk below which a controller refuses to write, and below which somebody should look.
const DISK_BYTES_MIN: (u64, u64) = (256 << 20, 2 << 30);
/// Bytes of a UDP buffer that thousands of connections need.
const UDP_BYTES_MIN: u64 = 8 << 20;
/// Open files that a controller with thousands of connections needs.
const FILES_MIN: u64 = 4_096;
/// Lines of a log that are searched for errors.
const LOG_LINES: usize = 2_000;
/// Milliseconds in which an error is a recent one.
const RECENT_MS: u64 = 15 * 60_000;

/// Everything about the fleet's machine.
pub(super) fn of_fleet(layout: &Layout, now_ms: u64) -> Vec<Check> {
    let mut checks = vec![disk(layout.home())];
    checks.extend(udp_buffers(|path| std::fs::read_to_string(path).ok()));
    checks.push(files(getrlimit(Resource::Nofile).current));
    match layout.settings() {
        Ok(settings) => checks.extend(processes(layout, &settings, now_ms)),
        Err(failure) => checks.push(Check::fail("fleet", failure.to_string(), "make up")),
    }
    checks
}

fn disk(home: &Path) -> Check {
    let shown = home.display();
    let Ok(found) = rustix::fs::statvfs(home) else {
        return Check::fail(
            "disk",
            format!("{shown} cannot be read"),
            "name the fleet's directory with --home",
        );
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let detail = format!("{} are free for {shown}", bytes(free));
    match free {
        free if free < DISK_BYTES_MIN.0 => Check::fail(
            "disk",
            detail,
            "make room: controllers refuse to write below 256 MiB",
        ),
        free if free < DISK_BYTES_MIN.1 => {
            Check::warn("disk", detail, "make room before 256 MiB are reached")
        }
        _ => Check::ok("disk", detail),
    }
}

/// A kernel that does not tell is not judged.
fn udp_buffers(read: impl Fn(&str) -> Option<String>) -> Vec<Check> {
    let limits = ["rmem_max", "wmem_max"].map(|name| {
        let text = read(&format!("/proc/sys/net/core/{name}"))?;
        Some((name, text.trim().parse::<u64>().ok()?))
    });
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    let small: Vec<String> = limits
        .iter()
        .filter(|(_, limit)| *limit < UDP_BYTES_MIN)
        .map(|(name, limit)| format!("net.core.{name} is {}", bytes(*limit)))
        .collect();
    if limits.is_empty() {
        return Vec::new();
    }
    if small.is_empty() {
        return vec![Check::ok(
            "UDP buffers",
            "large enough for thousands of agents",
        )];
    }
    let mend =
        "sysctl -w net.core.rmem_max=8388608 net.core.wmem_max=8388608 (only many agents need it)";
    vec![Check::warn("UDP buffers", small.join(", "), mend)]
}

fn files(limit: Option<u64>) -> Check {
    match limit {
        Some(limit) if limit < FILES_MIN => {
            let detail = format!("{limit} files may be open");
            Check::warn(
                "open files",
                detail,
                format!("ulimit -n {FILES_MIN}, or LimitNOFILE= of the service"),
            )
        }
        Some(limit) => Check::ok("open files", format!("{limit} may be open")),
        None => Check::ok("open files", "without limit"),
    }
}

fn processes(layout: &Layout, settings: &Settings, now_ms: u64) -> Vec<Check> {
    let mut checks = Vec::new();
    let (mut running, mut stopped, mut taken) = (0, Vec::new(), Vec::new());
    for member in Member::present(layout) {
        if member.pid_file.running().is_some() {
            running += 1;
        } else {
            let port = member
                .ports(settings)
                .into_iter()
                .find(|port| !port.is_free());
            taken.extend(port.map(|port| port.taken(&member.name, settings, true)));
            stopped.push(member.name.clone());
        }
        checks.extend(log(&member, now_ms));
    }
    let process = match (running, stopped.is_empty()) {
        (_, true) => Check::ok("processes", format!("all {running} run")),
        (0, false) => Check::fail("processes", "none runs", "make up"),
        (_, false) => Check::fail(
            "processes",
            format!("do not run: {}", stopped.join(", ")),
            "make up",
        ),
    };
    let ports = match taken.as_slice() {
        [] => Check::ok(
            "ports",
            format!("nobody else has those from {} on", settings.port_base),
        ),
        taken => Check::fail(
            "ports",
            taken.join("; "),
            "stop who has it, or move the fleet's ports",
        ),
    };
    checks.splice(0..0, [process, ports]);
    checks
}

/// Recent errors in the log of one process; nothing to say where there are none.
fn log(member: &Member, now_ms: u64) -> Option<Check> {
    let (text, _) = logs::tail(&member.log(), LOG_LINES).ok()?;
    let (count, last) = errors(&text, now_ms)?;
    let detail = format!(
        "errors in the last {} min: {count}; the last one: {last}",
        RECENT_MS / 60_000
    );
    Some(Check::warn(
        &format!("log of {}", member.name),
        detail,
        format!("dotmac logs {}", member.name),
    ))
}

/// How many recent errors a log has, and the message of the last one.
fn errors(text: &str, now_ms: u64) -> Option<(usize, String)> {
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let recent = lines.filter(|line| {
        let at = crate::cli::view::millis(&line["timestamp"]);
        line["level"] == "ERROR" && at.is_some_and(|at| now_ms.saturating_sub(at) <= RECENT_MS)
    });
    let messages: Vec<String> = recent
        .map(|line| crate::cli::view::text(&line, "message"))
        .collect();
    Some((messages.len(), messages.last()?.clone()))
}

#[cfg(test)]
mod tests {
    use super::{disk, errors, files, udp_buffers};
    use crate::cli::doctor::check::{Verdict, worst};

    #[test]
    fn small_buffers_and_few_files_are_warned_of_with_the_way_to_mend_them() {
        let small = udp_buffers(|_| Some("212992\n".into()));
        assert_eq!(worst(&small), Verdict::Warn);
        assert!(
            small[0]
                .mend
                .contains("sysctl -w net.core.rmem_max=8388608"),
            "{small:?}"
        );
        assert_eq!(worst(&udp_buffers(|_| Some("8388608".into()))), Verdict::Ok);
        assert!(udp_buffers(|_| None).is_empty());
        assert_eq!(files(Some(1_024)).verdict, Verdict::Warn);
        assert_eq!(files(Some(65_536)).verdict, Verdict::Ok);
        assert_eq!(files(None).verdict, Verdict::Ok);
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_failure() {
        assert_eq!(
            disk(std::path::Path::new("/nonexistent/home")).verdict,
            Verdict::Fail
        );
    }

    #[test]
    fn only_recent_errors_count() {
        let line = |level: &str, at: &str, message: &str| {
            format!("{{\"timestamp\":\"{at}\",\"level\":\"{level}\",\"message\":\"{message}\"}}\n")
        };
        let text = line("ERROR", "2023-11-14T20:00:00Z", "old")
            + &line("ERROR", "2023-11-14T22:12:00.5Z", "first")
            + &line("INFO", "2023-11-14T22:13:00Z", "well")
            + "no json\n"
            + &line("ERROR", "2023-11-14T22:13:00Z", "last");
        assert_eq!(errors(&text, 1_700_000_000_000), Some((2, "last".into())));
        assert_eq!(errors("", 0), None);
    }
}
