//! Benchmarks of the whole system, each against a peer in the same run. The last line on standard output is one line of
//! JSON, also in `target/bench`; what goes on meanwhile is told on standard error. It judges nothing: whoever reads the
//! figures does.
//!
//! ```text
//!   all        every one of these in turn, and a table
//!   deploy     request to active, with the stations between                             -> deploy.json
//!   commits    commits a second through the API and in process, syncs, the disk itself  -> commits.json
//!   platform   the platform API of one agent against a bare axum handler                -> platform.json
//!   fleet      1,000 simulated agents: enrolment, fan-out of changes, reconnection      -> fleet.json
//!   footprint  resident memory of idle agents, and of controllers with 1,000 agents     -> memory.json
//!   tracing    deployments and shows: traced, with the collector away or hung, and not  -> tracing.json
//!   api        show, list, create against a bare axum handler; watch fan-out against etcd -> api.json
//!   etcd       writes, linearizable reads, watchers, memory and disk against etcd       -> etcd.json
//!   churn      disk of a controller under as many commits as a day has                  -> churn.json
//!   load       2,000 tenants, 200 watchers, 100 clients; memory; one caller who floods  -> load.json
//!     |
//!   wire  drive  samples     one connection; closed and open loops; latencies
//!   bare  etcd  physics      the peers; what the machine itself needs
//!   ground  watch  memory    the fleet under test and its deployments; event streams; resident memory
//!   swarm  report            many agents in few processes; what a benchmark leaves
//! ```
#![allow(clippy::print_stderr, reason = "progress is for whoever waits")]
#![allow(
    clippy::print_stdout,
    reason = "the result is a line on standard output"
)]

mod all;
mod api;
mod bare;
mod churn;
mod commits;
mod deploy;
mod drive;
mod etcd;
mod fleet;
mod footprint;
mod ground;
mod load;
mod memory;
mod physics;
mod platform;
mod report;
mod samples;
mod swarm;
mod tracing;
mod versus;
mod watch;
mod wire;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// As the controller's program: one of them runs in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Benchmarks of the whole system")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Every benchmark in turn, and a table
    All(all::Settings),
    /// From the request for a deployment until it is active
    Deploy(deploy::Settings),
    /// Commits a second with 1, 16 and 256 writers
    Commits(commits::Settings),
    /// The platform API of one agent
    Platform(platform::Settings),
    /// 1,000 simulated agents
    Fleet(fleet::Settings),
    /// Resident memory of agents and controllers
    Memory(footprint::Settings),
    /// Requests a second and latencies of the API
    Api(api::Settings),
    /// Writes, linearizable reads, watchers, memory and disk against etcd
    Etcd(versus::Settings),
    /// The disk of a controller under as many commits as a day has
    Churn(churn::Settings),
    /// 2,000 tenants, 200 watchers, 100 clients, and one caller who floods
    Load(load::Settings),
    /// What traces cost: exported, to a collector that is away, and none
    Tracing(tracing::Settings),
    /// A collector that takes and counts what comes
    #[command(hide = true)]
    Sink,
    /// Simulated agents; they end with standard input
    #[command(hide = true)]
    Swarm {
        /// Where their join tokens lie, and what they keep
        #[arg(long)]
        directory: PathBuf,
    },
    /// The caller who floods; his token comes on standard input
    #[command(hide = true)]
    Flood {
        /// How long
        #[arg(long)]
        seconds: u64,
        /// The controller
        #[arg(long)]
        address: SocketAddr,
    },
    /// The peer of the API: a bare axum handler that answers prepared bodies
    #[command(hide = true)]
    Bare {
        /// What it answers to `GET /show`, and to `POST /create`
        #[arg(long)]
        show: PathBuf,
        /// What it answers to `GET /list`
        #[arg(long)]
        list: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let run = || -> Result<()> {
        let runtime = runtime?;
        match arguments.bench {
            Bench::All(settings) => runtime.block_on(all::run(&settings)),
            Bench::Deploy(settings) => runtime.block_on(deploy::run(&settings)),
            Bench::Commits(settings) => runtime.block_on(commits::run(&settings)),
            Bench::Platform(settings) => runtime.block_on(platform::run(&settings)),
            Bench::Fleet(settings) => runtime.block_on(fleet::run(&settings)),
            Bench::Memory(settings) => runtime.block_on(footprint::run(&settings)),
            Bench::Tracing(settings) => runtime.block_on(tracing::run(&settings)),
            Bench::Sink => runtime.block_on(tracing::serve_sink()),
            Bench::Swarm { directory } => runtime.block_on(swarm::run_process(&directory)),
            Bench::Api(settings) => runtime.block_on(api::run(&settings)),
            Bench::Etcd(settings) => runtime.block_on(versus::run(&settings)),
            Bench::Churn(settings) => runtime.block_on(churn::run(&settings)),
            Bench::Load(settings) => runtime.block_on(load::run(&settings)),
            Bench::Flood { seconds, address } => {
                runtime.block_on(load::flood_from_input(seconds, address))
            }
            Bench::Bare { show, list } => runtime.block_on(bare::serve(&show, &list)),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever waits what goes on.
fn tell(line: &str) {
    eprintln!("bench: {line}");
}
