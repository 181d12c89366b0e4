//! What the system knows of this process, under the names that everybody's dashboards know.

use dotmac_protocol::time::Timestamp;
use rustix::process::{Resource, getrlimit};

use super::{Kind, Metric, Registry, Samples};

/// Clock ticks of a second in /proc, on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

static BUILD: Metric = Metric::new(
    "dotmac_build",
    Kind::Info,
    &["version"],
    "The version of the program.",
);
static CPU: Metric = Metric::new(
    "process_cpu_seconds",
    Kind::Counter,
    &[],
    "Time of processors that the process took.",
);
static MEMORY: Metric = Metric::new(
    "process_resident_memory_bytes",
    Kind::Gauge,
    &[],
    "Memory that the process holds.",
);
static OPEN_FILES: Metric = Metric::new(
    "process_open_fds",
    Kind::Gauge,
    &[],
    "Files, sockets and the like that are open.",
);
static MAX_FILES: Metric =
    Metric::new("process_max_fds", Kind::Gauge, &[], "How many may be open.");
static THREADS: Metric = Metric::new(
    "process_threads",
    Kind::Gauge,
    &[],
    "Threads of the process.",
);
static STARTED: Metric = Metric::new(
    "process_start_time_seconds",
    Kind::Gauge,
    &[],
    "When it started, in seconds since 1970.",
);

/// Metrics that every program of ours has.
pub static PROCESS: [&Metric; 7] = [
    &BUILD,
    &CPU,
    &MEMORY,
    &OPEN_FILES,
    &MAX_FILES,
    &THREADS,
    &STARTED,
];

pub(super) fn register(registry: &Registry, version: &'static str, started: Timestamp) {
    registry.sample(move |samples| {
        samples.info(&BUILD, version);
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds of this age are exact"
        )]
        samples.put(&STARTED, started.0 as f64 / 1000.0);
        sample(samples);
    });
}

/// What cannot be read is left out.
fn sample(samples: &mut Samples<'_>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = field(&status, "VmRSS:") {
        samples.put(&MEMORY, kib * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        samples.put(&THREADS, threads);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        samples.put(&OPEN_FILES, open.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        samples.put(&MAX_FILES, most);
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(ticks) = ticks(&stat) {
        samples.put(&CPU, f64::from(ticks) / TICKS_PER_SECOND);
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Ticks in user and kernel mode; the name of the program before them may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let fields = stat.rsplit_once(')')?.1;
    let mut times = fields.split_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::{field, ticks};

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a) b)) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 100";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(field("VmRSS:\t  120 kB\n", "VmRSS:"), Some(120));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(ticks(&own).is_some());
    }
}
