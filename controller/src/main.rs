//! The controller's program: parses, starts, waits.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use dotmac_controller::{
    app::{self, Refusal},
    bootstrap::{self, CardFile},
    config::Config,
    raft::LOG_FILTER,
};
use dotmac_runtime::{clock::Clock, entropy::Entropy, logging};

/// Reads, changes and the log allocate much: docs/BENCHMARKS.md, *Against etcd*.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One controller of a DotMac cluster.
#[derive(Debug, Parser)]
#[command(name = "dotmac-controller", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this controller's keys (once) and print its card for `dotmac cluster create`.
    Init {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run until SIGTERM or SIGINT.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match try_main(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let refusal = Refusal::of(error.as_ref());
            let next = refusal.next();
            tracing::error!(error = format!("{error:#}"), next, "the controller ends");
            report(&error, next);
            ExitCode::from(refusal.exit_code())
        }
    }
}

fn try_main(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Init { config } => {
            let config = Config::load(&config)?;
            let card = bootstrap::init(&config, &Clock::system(), &Entropy::system())?;
            print_card(&CardFile::from(card))
        }
        Command::Run { config } => {
            let config = Config::load(&config)?;
            logging::init("dotmac-controller", LOG_FILTER, config.log_file())?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("the runtime cannot start")?;
            runtime.block_on(async {
                let running = app::start(config, app::Ports::system()).await?;
                running.until_told().await?;
                Ok(())
            })
        }
    }
}

#[expect(clippy::print_stdout, reason = "the card is this command's output")]
fn print_card(card: &CardFile) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(card)?);
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "a program that does not start says why on standard error"
)]
fn report(error: &anyhow::Error, next: &str) {
    eprintln!("dotmac-controller: {error:#}; next: {next}");
}
