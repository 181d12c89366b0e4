//! The operator's command line: everything through the HTTP API, but for `local` (the fleet of `make up`) and
//! `demo break`, which is about processes of this machine.
//!
//! ```text
//!   find (which fleet) -> client (fails over, one key per change) -> a file per command -> output (table or JSON)
//! ```
//! It keeps no state between calls and refuses to send a token in clear to another machine.

pub(crate) mod agents;
mod apply;
mod audit;
pub(crate) mod backup;
mod client;
pub(crate) mod cluster;
mod completion;
mod contexts;
mod demo;
pub(crate) mod deployments;
mod doctor;
#[cfg(test)]
mod documented;
mod events;
mod explain;
pub(crate) mod failure;
mod find;
mod licenses;
mod list;
mod local;
mod login;
pub(crate) mod logs;
mod man;
pub(crate) mod output;
mod plan;
mod regions;
pub(crate) mod releases;
mod sealed;
mod suggest;
mod tenants;
mod tiers;
mod tokens;
mod usage;
pub(crate) mod view;
mod whoami;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error};
use dotmac_runtime::{clock::Clock, entropy::Entropy};

use self::{
    failure::{EXIT_CODES, Failure},
    find::{Context, Flags},
    output::{Format, Output},
};

#[cfg(test)]
pub(crate) use self::client::tests::client_of;
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
    /// No colour, not even on a terminal
    #[arg(long, global = true)]
    no_color: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// ISPs' instances: create, list, show, update, scale, restart, suspend, resume, rollback, delete …
    #[command(subcommand)]
    Deployments(deployments::Deployments),
    /// What instances consist of: add, list, show, retire
    #[command(subcommand)]
    Releases(releases::Releases),
    /// The ISPs themselves: create, list, show, update, delete, and their instances' events and health
    #[command(subcommand)]
    Tenants(tenants::Tenants),
    /// What instances may do and until when: list, show, update, suspend, revoke, reinstate
    #[command(subcommand)]
    Licenses(licenses::Licenses),
    /// What a tenant's instance uses: now, at most, and each count
    Usage(usage::Usage),
    /// Make deployments what a file says
    Apply(apply::Apply),
    /// Show what `apply` would change
    Diff(apply::Diff),
    /// Where workloads may run: create, list, show, update
    #[command(subcommand)]
    Regions(regions::Regions),
    /// Access tokens: create, list, show, delete
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    /// What can be ordered, with the exact numbers
    Tiers(tiers::Tiers),
    /// Whose token is used, and what it may do
    #[command(name = "whoami")]
    WhoAmI(whoami::WhoAmI),
    /// The agents that run instances: list, and tokens for new ones
    #[command(subcommand)]
    Agents(agents::Agents),
    /// The controllers: status, health, who comes and goes, whose signatures count, and the making of a new cluster
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Backups of the cluster: create, status, list, verify, keygen, and the restore from one
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Who did what, and the proof of it
    Audit(audit::Audit),
    /// What changes, as it happens
    Events(events::Events),
    /// What a process of the local fleet, or a deployment anywhere, writes
    Logs(logs::Logs),
    /// The fleet of `make up` on this machine
    #[command(subcommand)]
    Local(local::Local),
    /// Breaks something in the fleet of `make up` and counts what was lost
    #[command(subcommand)]
    Demo(demo::Demo),
    /// Try a token, and save it with the cluster's addresses as a context
    Login(login::Login),
    /// Forget the token of a saved context
    Logout(contexts::Logout),
    /// The clusters somebody works with: list, use, show, delete
    #[command(subcommand)]
    Context(contexts::Verbs),
    /// What something is, what it waits for and what to do next; also the code of an error
    Explain(explain::Explain),
    /// Check this machine, the way to the cluster and the cluster itself, and say how to mend what is wrong
    Doctor(doctor::Doctor),
    /// What makes a shell complete this program's words
    Completion(completion::Completion),
    /// The manual pages
    Man(man::Man),
}

/// The whole command line, for what is made from it.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Parses the arguments of this process, does what they ask, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let output = Output::of_process(arguments.output, arguments.no_color);
    let result = match arguments.command {
        // These two need no other thread, and the first becomes another program.
        Command::Local(local::Local::Session(session)) => Err(session.run()),
        command => run(command, arguments.flags, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ Failure::Ended(_)) => failure.exit(),
        Err(failure) => {
            output.note(&format!("dotmac: {failure}"));
            failure.exit()
        }
    }
}

/// Parses arguments and variables; what was misspelt is answered with the closest words first.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Arguments, error::Error> {
    let parsed = command().try_get_matches_from(arguments).and_then(|found| {
        let mut arguments = Arguments::from_arg_matches(&found)?;
        arguments.flags.settle(&found)?;
        Ok(arguments)
    });
    parsed.map_err(|error| closest_first(error).format(&mut command()))
}

fn closest_first(mut error: error::Error) -> error::Error {
    use error::{ContextKind, ContextValue};
    if let (Some(ContextValue::String(word)), Some(ContextValue::Strings(names))) = (
        error.get(ContextKind::InvalidSubcommand),
        error.get(ContextKind::SuggestedSubcommand),
    ) {
        let mut names = names.clone();
        names.sort_by_key(|name| strsim::damerau_levenshtein(word, name));
        error.insert(
            ContextKind::SuggestedSubcommand,
            ContextValue::Strings(names),
        );
    }
    error
}

fn run(command: Command, flags: Flags, output: Output) -> Result<(), Failure> {
    let context = Context::new(flags, output, Clock::system(), Entropy::system());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Failure::Failed(format!("the runtime cannot start: {cause}")))?
        .block_on(async {
            let is_remote = !matches!(command, Command::Local(_) | Command::Demo(_));
            let result = match command {
                Command::Deployments(deployments) => deployments.run(&context).await,
                Command::Releases(releases) => releases.run(&context).await,
                Command::Agents(agents) => agents.run(&context).await,
                Command::Tenants(tenants) => tenants.run(&context).await,
                Command::Licenses(licenses) => licenses.run(&context).await,
                Command::Usage(usage) => usage.run(&context).await,
                Command::Apply(apply) => apply.run(&context).await,
                Command::Diff(diff) => diff.run(&context).await,
                Command::Regions(regions) => regions.run(&context).await,
                Command::Tokens(tokens) => tokens.run(&context).await,
                Command::Tiers(tiers) => tiers.run(&context).await,
                Command::WhoAmI(who) => who.run(&context).await,
                Command::Cluster(cluster) => cluster.run(&context).await,
                Command::Backup(backup) => backup.run(&context).await,
                Command::Audit(audit) => audit.run(&context).await,
                Command::Events(events) => events.run(&context).await,
                Command::Logs(logs) => logs.run(&context).await,
                Command::Local(local) => local.run(&context).await,
                Command::Demo(demo) => demo.run(&context).await,
                Command::Login(login) => login.run(&context).await,
                Command::Logout(logout) => logout.run(&context),
                Command::Context(contexts) => contexts.run(&context),
                Command::Explain(explain) => explain.run(&context).await,
                Command::Doctor(doctor) => doctor.run(&context).await,
                Command::Completion(completion) => completion.run(&context),
                Command::Man(man) => man.run(&context),
            };
            match (result, is_remote) {
                // Without a cluster the failure says all there is to say.
                (Err(failure @ Failure::NotFound(_)), true) => Err(match context.client() {
                    Ok(client) => suggest::for_missing(&client, failure).await,
                    Err(_) => failure,
                }),
                (result, _) => result,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::{command, parse};

    #[test]
    fn misspelt_nouns_are_answered_with_the_closest_first() {
        for (word, meant) in [("deployment", "deployments"), ("tennants", "tenants")] {
            let arguments = ["dotmac", word, "list"].map(Into::into).into_iter();
            let said = parse(arguments).err().unwrap().to_string();
            let place = said.find("exist").unwrap_or_default();
            let first = said[place..].split('\'').nth(1);
            assert_eq!(first, Some(meant), "{said}");
        }
    }

    #[test]
    fn the_command_line_is_sound_and_help_lists_the_exit_codes() {
        let mut command = command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for code in ["0  done", "3  no such thing", "6  still not done"] {
            assert!(help.contains(code), "{help}");
        }
    }
}
