//! The operator's command line: everything through the HTTP API, but for `local` (the fleet of `make up`) and
//! `demo break`, which is about processes of this machine.
//!
//! ```text
//!   find (which fleet) -> client (fails over, one key per change) -> a file per command -> output (table or JSON)
//! ```
//! It keeps no state between calls and refuses to send a token in clear to another machine.

pub(crate) mod agents;
mod audit;
mod client;
pub(crate) mod cluster;
mod demo;
pub(crate) mod deployments;
pub(crate) mod failure;
mod find;
mod local;
pub(crate) mod logs;
pub(crate) mod output;
pub(crate) mod releases;
pub(crate) mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dotmac_runtime::{clock::Clock, entropy::Entropy};

use self::{
    failure::{EXIT_CODES, Failure},
    find::{Context, Flags},
    output::{Format, Output},
};

pub(crate) use self::{
    client::{Client, elapsed_ms, encode},
    find::Context as CliContext,
};

#[derive(Parser)]
#[command(name = "dotmac", version, about = "Operates DotMac clusters", after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// How to write results
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// ISPs' instances: create, list, show, delete, undelete
    #[command(subcommand)]
    Deployments(deployments::Deployments),
    /// What instances consist of: add, list, show, retire
    #[command(subcommand)]
    Releases(releases::Releases),
    /// The agents that run instances: list, and tokens for new ones
    #[command(subcommand)]
    Agents(agents::Agents),
    /// The controllers: status, and the making of a new cluster
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Who did what, and the proof of it
    Audit(audit::Audit),
    /// What a process of the local fleet, or a deployment anywhere, writes
    Logs(logs::Logs),
    /// The fleet of `make up` on this machine
    #[command(subcommand)]
    Local(local::Local),
    /// Breaks something in the fleet of `make up` and counts what was lost
    #[command(subcommand)]
    Demo(demo::Demo),
}

/// Parses the arguments of this process, does what they ask, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.output);
    let result = match arguments.command {
        // These two need no other thread, and the first becomes another program.
        Command::Local(local::Local::Session(session)) => Err(session.run()),
        command => run(command, arguments.flags, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.note(&format!("dotmac: {failure}"));
            failure.exit()
        }
    }
}

fn run(command: Command, flags: Flags, output: Output) -> Result<(), Failure> {
    let context = Context::new(flags, output, Clock::system(), Entropy::system());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Failure::Failed(format!("the runtime cannot start: {cause}")))?
        .block_on(async {
            match command {
                Command::Deployments(deployments) => deployments.run(&context).await,
                Command::Releases(releases) => releases.run(&context).await,
                Command::Agents(agents) => agents.run(&context).await,
                Command::Cluster(cluster) => cluster.run(&context).await,
                Command::Audit(audit) => audit.run(&context).await,
                Command::Logs(logs) => logs.run(&context).await,
                Command::Local(local) => local.run(&context).await,
                Command::Demo(demo) => demo.run(&context).await,
            }
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_command_line_is_sound_and_help_lists_the_exit_codes() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for code in ["0  done", "3  no such thing", "6  still not done"] {
            assert!(help.contains(code), "{help}");
        }
    }
}
