//! What must hold before anything is started: programs, disk, memory and ports. It starts and changes nothing, and
//! says in one line each what is missing.

use std::{path::Path, time::Duration};

use super::{
    layout::{Layout, Settings},
    member::Member,
};
use crate::cli::{failure::Failure, output::bytes};

/// Bytes that must be free for a fleet to start.
const DISK_BYTES_MIN: u64 = 512 << 20;
/// Bytes of memory that must be available.
const MEMORY_BYTES_MIN: u64 = 384 << 20;
/// How often a taken port of a fleet that is there is looked at again.
const LOOKS_MAX: u32 = 40;
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Programs of a fleet.
const PROGRAMS: [&str; 4] = [
    "dotmac",
    "dotmac-controller",
    "dotmac-agent",
    super::release::DEMO_PROGRAM,
];

/// Checks everything.
///
/// # Errors
/// With a line for each thing that is missing.
pub(crate) fn check(layout: &Layout, settings: &Settings) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for program in PROGRAMS {
        let path = layout.program(program);
        if !path.is_file() {
            missing.push(format!(
                "{} is missing: `make up` builds and installs it",
                path.display()
            ));
        }
    }
    missing.extend(disk(layout.home()));
    missing.extend(memory(
        std::fs::read_to_string("/proc/meminfo").ok().as_deref(),
    ));
    missing.extend(taken_ports(layout, settings));
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(missing.join("\ndotmac: ")))
    }
}

/// A line for each member that does not run and of whose ports one is taken. What was killed just now lets go of its ports
/// when its last thread has ended.
fn taken_ports(layout: &Layout, settings: &Settings) -> Vec<String> {
    let look = || {
        let members = Member::present(layout).into_iter();
        let idle = members.filter(|member| member.pid_file.running().is_none());
        let taken = idle.filter_map(|member| {
            let mut ports = member.ports(settings).into_iter();
            let port = ports.find(|port| !port.is_free())?;
            Some(port.taken(&member.name, settings, layout.exists()))
        });
        taken.collect::<Vec<_>>()
    };
    let mut taken = look();
    for _ in 0..LOOKS_MAX {
        if taken.is_empty() || !layout.exists() {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
        taken = look();
    }
    taken
}

fn disk(home: &Path) -> Option<String> {
    let place = home.ancestors().find(|place| place.exists())?;
    let found = rustix::fs::statvfs(place).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    (free < DISK_BYTES_MIN).then(|| {
        let (free, needed) = (bytes(free), bytes(DISK_BYTES_MIN));
        format!(
            "the disk of {} has {free} free, {needed} are needed: DOTMAC_HOME names another place",
            home.display()
        )
    })
}

/// A system that does not tell is not refused.
fn memory(meminfo: Option<&str>) -> Option<String> {
    let line = meminfo?
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let available = kibibytes.saturating_mul(1024);
    (available < MEMORY_BYTES_MIN).then(|| {
        format!(
            "{} of memory are available, {} are needed",
            bytes(available),
            bytes(MEMORY_BYTES_MIN)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, path::PathBuf};

    use super::{check, memory};
    use crate::local::layout::{Layout, Settings};

    #[test]
    fn little_memory_is_said_with_both_numbers() {
        let little = "MemTotal: 1 kB\nMemAvailable:  102400 kB\n";
        assert_eq!(
            memory(Some(little)).unwrap(),
            "100 MiB of memory are available, 384 MiB are needed"
        );
        assert_eq!(memory(Some("MemAvailable:  999999 kB\n")), None);
        assert_eq!(memory(None), None);
    }

    #[test]
    fn a_port_in_use_is_named_with_the_setting_that_moves_it() {
        // The agents' ports begin 20 above the base, and the base must leave room for all others.
        let listeners: Vec<_> = (0..64)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port());
        let port = ports
            .into_iter()
            .find(|port| (2_000..60_000).contains(port))
            .unwrap();
        let settings = Settings {
            port_base: port - 20,
            grace_ms: 1,
            otlp_endpoint: None,
        };
        let layout = Layout::new(PathBuf::from("/nonexistent/home"));
        let refused = check(&layout, &settings).unwrap_err().to_string();
        let expected = format!(
            "TCP port {port} for aws-eu-west-1 is in use: DOTMAC_PORT_BASE (now {}) moves every port",
            settings.port_base
        );
        assert!(refused.contains(&expected), "{refused}");
    }
}
