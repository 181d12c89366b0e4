//! The agent's program: parses, starts, waits.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use dotmac_agent::{
    app::{self, DataDir, Surroundings},
    chain,
    config::Config,
    driver::process::stop_all::stop_all,
    link::identity::IdentityStore,
    shim,
};
use dotmac_runtime::{
    clock::Clock,
    entropy::Entropy,
    logging::{self, LogFile},
};
use tokio::signal::unix::{SignalKind, signal};

/// Threads for tasks, which wait nearly all the time; one for each core would cost a large host memory for nothing.
const WORKERS: usize = 2;
/// How long instances may take to stop by themselves.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// One agent of a DotMac cluster.
#[derive(Debug, Parser)]
#[command(name = "dotmac-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT; instances keep running afterwards.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Stop every instance of an agent that does not run. They start again with the agent.
    StopInstances {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Prove the record chain on disk; name the first bad record.
    VerifyChain {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Guard one process of an instance; started by the agent itself.
    #[command(hide = true)]
    Shim {
        /// The directory of the process's slot.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Shim { directory } => return shim::run(&directory),
        Command::Run { config } => run(&config),
        Command::StopInstances { config } => stop_instances(&config),
        Command::VerifyChain { config } => verify_chain(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the agent stops");
            report(&format!("dotmac-agent: {error:#}"), true);
            ExitCode::FAILURE
        }
    }
}

fn run(config: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let log = config.log.clone().map(|log| LogFile {
        path: log.file,
        bytes_max: log.bytes_max,
        keep: log.keep,
    });
    logging::init("dotmac-agent", logging::FILTER, log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let surroundings = Surroundings {
        clock: Clock::system(),
        entropy: Entropy::system(),
        program: std::env::current_exe().context("the path of this program is unknown")?,
    };
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut running = app::start(config, surroundings)?;
        tokio::select! {
            ended = running.ended() => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; instances keep running");
        Ok(running.stop().await?)
    })
}

fn stop_instances(config: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let _lock = DataDir::open(&config.data_dir)?;
    for stopped in stop_all(&config.data_dir, STOP_PATIENCE) {
        let (unit, slot, pid) = (stopped.unit, stopped.slot, stopped.pid);
        let how = if stopped.killed { "killed" } else { "stopped" };
        report(&format!("{unit} {slot} (pid {pid}) {how}"), false);
    }
    Ok(())
}

fn verify_chain(config: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::read(config)?;
    let identity = config.data_dir.join("identity");
    anyhow::ensure!(
        identity.is_dir(),
        "{} holds no agent",
        config.data_dir.display()
    );
    let keys = IdentityStore::open(&identity)?.keys(&Entropy::system())?;
    let verified = chain::verify(&config.data_dir.join("chain"), &keys.public())?;
    let (first, last, digest) = (verified.first, verified.last, verified.digest);
    report(
        &format!("records {first} to {last} hold; the last one is {digest}"),
        false,
    );
    Ok(())
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a person asked for on the command line"
)]
fn report(text: &str, is_error: bool) {
    if is_error {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}
