//! `make chaos`: real faults on real controllers. Power is cut, processes are killed, networks fall apart, disks fill up
//! and fail, bits flip, while clients write and read; afterwards nothing that was acknowledged may be missing, and what the
//! clients saw must be linearizable. The last line on standard output is one line of JSON, also in `target/bench/chaos.json`.
//!
//! ```text
//!   power  kills  partitions  disks  flips     one kind of fault each; a fault that did not happen fails the run
//!     |      disk images   namespaces   a C library for LD_PRELOAD   places of records in files
//!   cluster  seat        three controllers, started directly; digests of their States, leaders of terms
//!   load  client         clients that retry as documented; the audit against what was acknowledged
//!   history              whether one order of operations explains what each client saw
//!   tally                sums, and whether that is good
//! ```
#![allow(clippy::print_stderr, reason = "progress is for whoever waits")]
#![allow(
    clippy::print_stdout,
    reason = "the result is a line on standard output"
)]

mod client;
mod cluster;
mod disks;
mod flips;
mod history;
mod images;
mod kills;
mod load;
mod networks;
mod partitions;
mod power;
mod records;
mod seat;
mod shell;
mod tally;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use dotmac_tests::programs;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{cluster::Cluster, load::Load, tally::Tally};

#[derive(Parser)]
#[command(about = "Real faults on real controllers; needs root")]
struct Arguments {
    /// Power cuts of all three controllers at once
    #[arg(long, default_value_t = 200)]
    power_cuts: u64,
    /// Processes killed
    #[arg(long, default_value_t = 500)]
    kills: u64,
    /// Partitions of the network
    #[arg(long, default_value_t = 100)]
    partitions: u64,
    /// Disks that fill up or fail
    #[arg(long, default_value_t = 100)]
    disk_faults: u64,
    /// Bits flipped, with effect
    #[arg(long, default_value_t = 1_000)]
    bit_flips: u64,
    #[command(subcommand)]
    inside: Option<Inside>,
}

#[derive(Subcommand)]
enum Inside {
    /// The partitions, within namespaces that were made for it; its tally is a line of JSON
    #[command(hide = true)]
    Partitions {
        /// How many
        #[arg(long)]
        count: u64,
        /// What its namespaces are called
        #[arg(long)]
        network: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ran = runtime
        .context("the runtime cannot start")
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool> {
    if let Some(Inside::Partitions { count, network }) = arguments.inside {
        let mut tally = Tally::default();
        if let Err(error) = partitions::run_inside(count, &network, &mut tally).await {
            tally.fail(format!("{error:#}"));
        }
        println!("{}", serde_json::to_string(&tally)?);
        return Ok(true);
    }
    let is_root = rustix::process::geteuid().is_root();
    ensure!(is_root, "mounts and network namespaces need root");
    let mut whole = Tally::default();
    type Phase = (&'static str, u64);
    let phases: [Phase; 5] = [
        ("power cuts", arguments.power_cuts),
        ("kills", arguments.kills),
        ("partitions", arguments.partitions),
        ("disk faults", arguments.disk_faults),
        ("bit flips", arguments.bit_flips),
    ];
    for (name, count) in phases.into_iter().filter(|(_, count)| *count > 0) {
        tell(&format!("{count} {name}"));
        let (started, mut tally) = (Instant::now(), Tally::default());
        let running = async {
            match name {
                "power cuts" => power::run(count, &mut tally).await,
                "kills" => kills::run(count, &mut tally).await,
                "partitions" => partitions::run(count, &mut tally).await,
                "disk faults" => disks::run(count, &mut tally).await,
                _ => flips::run(count, &mut tally).await,
            }
        };
        // What was begun is dropped then, and takes its processes, mounts and folders with it.
        let ran = tokio::select! {
            ran = running => ran,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        if let Err(error) = ran {
            if format!("{error:#}").contains("ended by itself") {
                tally.crashes += 1;
            }
            tally.fail(format!("{name}: {error:#}"));
        }
        tally.expect(name, count);
        tally.took(started.elapsed());
        whole.add(tally);
        whole.write()?;
    }
    let is_nothing = phases.iter().all(|(_, count)| *count == 0);
    if is_nothing {
        whole.fail("no fault was asked for");
    }
    println!("{}", whole.write()?);
    let wrong = whole.wrong();
    for one in &wrong {
        tell(one);
    }
    Ok(wrong.is_empty())
}

/// A folder for one phase, on the file system of the build.
fn scratch(prefix: &str) -> Result<TempDir> {
    let homes = programs::homes()?.canonicalize()?;
    Ok(tempfile::Builder::new().prefix(prefix).tempdir_in(homes)?)
}

/// Ends a load and judges it, and compares the States of the controllers.
async fn judge(cluster: &mut Cluster, load: Load, tally: &mut Tally) -> Result<()> {
    load.judge(tally).await?;
    tally.digests_compared += 1;
    if !cluster.digests_agree().await? {
        tally.digests_unequal += 1;
        tally.fail("the controllers' States differ at one index");
    }
    cluster.all_run()
}

/// Tells whoever waits what goes on.
fn tell(line: &str) {
    eprintln!("chaos: {line}");
}
