//! Benchmarks of the whole system, each against a peer in the same run. The last line on standard output is one line of
//! JSON, also in `target/bench`; what goes on meanwhile is told on standard error. It judges nothing: whoever reads the
//! figures does.
//!
//! ```text
//!   api    show, list, create against a bare axum handler; watch fan-out against etcd       -> api.json
//!   load   2,000 tenants, 200 watchers, 100 clients; memory; one caller who floods          -> load.json
//!     |
//!   wire  drive  samples     one connection; closed and open loops; latencies
//!   bare  etcd  physics      the peers; what the machine itself needs
//!   ground  watch  memory    the fleet under test and its deployments; event streams; resident memory
//! ```
#![allow(clippy::print_stderr, reason = "progress is for whoever waits")]
#![allow(
    clippy::print_stdout,
    reason = "the result is a line on standard output"
)]

mod api;
mod bare;
mod drive;
mod etcd;
mod ground;
mod load;
mod memory;
mod physics;
mod samples;
mod watch;
mod wire;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of the whole system")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Requests a second and latencies of the API
    Api(api::Settings),
    /// 2,000 tenants, 200 watchers, 100 clients, and one caller who floods
    Load(load::Settings),
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
            Bench::Api(settings) => runtime.block_on(api::run(&settings)),
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
