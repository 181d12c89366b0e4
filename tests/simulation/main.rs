//! Whole clusters in one thread: the real log, signers, planners and agents under seeded faults, with time, chance, disk
//! and network as arguments. A seed that fails fails again, and says how to see it.
//!
//! ```text
//!   simulation                      a few seeds, the regressions, and that a seed repeats itself (part of make check)
//!   simulation --seeds 200          more of them (make sim)
//!   simulation --replay 7           one of them, every event in words (make replay)
//!   simulation a_hundred_seeds_keep_NAME   a hundred seeds, looking at one invariant (make mutants)
//! ```
//! It replaces no test of what lies below the arguments: QUIC, sled and processes are elsewhere (docs/testing.md).

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has to stop"
)]

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation needs `--cfg tokio_unstable`, which .cargo/config.toml sets unless RUSTFLAGS is set"
);

mod agent;
mod clients;
mod controller;
mod faults;
mod genesis;
mod invariants;
mod network;
mod random;
mod trace;
mod world;

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};

use faults::Kind;
use world::Outcome;

/// Seeds that once failed, with the reason; they are run every time.
const REGRESSIONS: &str = include_str!("regressions.txt");
/// Seeds of `make check`.
const FEW: u64 = 16;
/// Seeds within which a mutation has to be caught.
const HUNDRED: u64 = 100;
/// Bytes of stack for a thread that runs worlds: unoptimised code needs more than the usual.
const STACK_BYTES: usize = 32 * 1024 * 1024;
/// How the tests of one invariant are called.
const KEEP: &str = "a_hundred_seeds_keep_";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("simulation: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| -> Result<Option<u64>> {
        let place = arguments.iter().position(|one| one == name);
        let Some(place) = place else { return Ok(None) };
        let text = arguments.get(place + 1);
        let text = text.with_context(|| format!("{name} takes a number"))?;
        let number = text.parse();
        Ok(Some(number.with_context(|| format!("{name} {text}"))?))
    };
    if let Some(seed) = value("--replay")? {
        return replay(seed);
    }
    if let Some(seed) = value("--digest")? {
        say(&on_a_thread(seed, None, false).digest);
        return Ok(());
    }
    let first = value("--from")?.unwrap_or(1);
    if let Some(count) = value("--seeds")? {
        let mut seeds = regressions()?;
        seeds.extend(first..first + count);
        return hold(seeds, None);
    }
    if let Some(name) = arguments.iter().find_map(|one| one.strip_prefix(KEEP)) {
        let known = invariants::all().iter().any(|one| one.name() == name);
        ensure!(known, "no invariant is called {name:?}");
        hold((1..=HUNDRED).collect(), Some(name))?;
        say("test result: ok. 1 passed");
        return Ok(());
    }
    repeats_itself(3)?;
    let mut seeds = regressions()?;
    seeds.extend(first..first + FEW);
    hold(seeds, None)?;
    say("test result: ok. 2 passed");
    Ok(())
}

/// Shows one world, event by event.
fn replay(seed: u64) -> Result<()> {
    let outcome = on_a_thread(seed, None, true);
    let (events, digest) = (outcome.events, outcome.digest);
    say(&format!("seed {seed}: {events} events, digest {digest}"));
    match outcome.broken {
        None => Ok(()),
        Some((name, why)) => bail!("seed {seed} breaks {name}: {why}"),
    }
}

/// The same seed gives the same story in two processes.
fn repeats_itself(seeds: u64) -> Result<()> {
    let own = std::env::current_exe()?;
    for seed in 1..=seeds {
        let digest = || -> Result<String> {
            let output = Command::new(&own)
                .args(["--digest", &seed.to_string()])
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ensure!(output.status.success(), "seed {seed} was not run: {text}");
            Ok(text)
        };
        let (once, again) = (digest()?, digest()?);
        ensure!(
            once == again && !once.is_empty(),
            "seed {seed} is two stories, {once} and {again}"
        );
    }
    say(&format!("{seeds} seeds repeat themselves in two processes"));
    Ok(())
}

fn regressions() -> Result<Vec<u64>> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next());
    let seeds = lines.flatten().map(str::trim).filter(|one| !one.is_empty());
    seeds
        .map(|one| one.parse().with_context(|| format!("regression {one}")))
        .collect()
}

/// Runs seeds on all cores; the first that breaks ends the run with the command that shows it.
fn hold(seeds: Vec<u64>, only: Option<&str>) -> Result<()> {
    let started = tokio::time::Instant::now();
    let next = AtomicU64::new(0);
    let broken: Mutex<Option<(u64, Outcome)>> = Mutex::new(None);
    let faults: Mutex<BTreeMap<Kind, u64>> = Mutex::default();
    let acknowledged = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while broken.lock().unwrap().is_none() {
            let turn = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let Some(seed) = seeds.get(turn).copied() else {
                return;
            };
            let outcome = world::run(seed, only, false);
            for kind in &outcome.faults {
                *faults.lock().unwrap().entry(*kind).or_default() += 1;
            }
            let count = u64::try_from(outcome.acknowledged).unwrap();
            acknowledged.fetch_add(count, Ordering::Relaxed);
            if outcome.broken.is_some() {
                broken.lock().unwrap().get_or_insert((seed, outcome));
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    if let Some((seed, outcome)) = broken.into_inner().unwrap() {
        let (name, why) = outcome.broken.expect("it is broken");
        for line in outcome.tail {
            say(&line);
        }
        bail!(
            "seed {seed} breaks {name}: {why}\n  see it again: make replay SEED={seed}\n  \
             keep it: tests/simulation/regressions.txt"
        );
    }
    let faults = faults.into_inner().unwrap();
    let faults: Vec<_> = faults
        .iter()
        .map(|(kind, worlds)| format!("{kind:?} {worlds}"))
        .collect();
    say(&format!(
        "{} seeds hold in {:.0?}; {} requests acknowledged; worlds with each fault: {}",
        seeds.len(),
        started.elapsed(),
        acknowledged.into_inner(),
        faults.join(", ")
    ));
    Ok(())
}

/// One world on a thread with room enough.
fn on_a_thread(seed: u64, only: Option<&str>, is_loud: bool) -> Outcome {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let run = thread.spawn_scoped(scope, || world::run(seed, only, is_loud));
        run.unwrap().join().unwrap()
    })
}

/// Writes a line at once.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
