//! Everything that a command needs, and which cluster it is about: flags first, then the environment, then the nearest
//! `.dotmac` upwards, then the context that was saved as the current one.

mod target;

use std::path::{Path, PathBuf};

use dotmac_runtime::{clock::Clock, entropy::Entropy};

use super::{
    client::{Access, Client, Voice},
    failure::Failure,
    output::Output,
};
use crate::local::layout::Layout;

pub(crate) use target::{Target, checked, read_token, trimmed};

/// Name of the directory that `make up` makes in a checkout.
pub(crate) const HOME_NAME: &str = ".dotmac";
/// Milliseconds to wait for one controller before the next is asked.
const ATTEMPT_MS: u64 = 5_000;
/// Milliseconds to wait for one controller that no other one can stand for.
const ALONE_MS: u64 = 3_000;

/// What the flags and the environment say.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Flags {
    /// A saved context (`dotmac context list`)
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "servers")]
    pub(crate) context: Option<String>,
    /// Directory of a local fleet [default: the nearest .dotmac upwards]
    #[arg(long, env = "DOTMAC_HOME", global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Controllers to ask, in order (repeat it, or separate them by commas)
    #[arg(
        id = "servers",
        long = "server",
        env = "DOTMAC_SERVER",
        global = true,
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) servers: Vec<String>,
    /// File with the access token; the variable DOTMAC_TOKEN holds the token itself
    #[arg(long, env = "DOTMAC_TOKEN_FILE", global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the certificates of the authorities to trust [default: the system's]
    #[arg(long, env = "DOTMAC_CA_FILE", global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Seconds to go on trying while no controller can serve
    #[arg(long, default_value_t = 15, global = true, value_name = "SECONDS")]
    pub(crate) deadline: u64,
    /// Say which cluster is asked, for reads as well
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// Everything a command needs.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// The source of time.
    pub(crate) clock: Clock,
    /// The source of randomness.
    pub(crate) entropy: Entropy,
    /// What the flags and the environment say.
    pub(crate) flags: Flags,
}

impl Context {
    /// For a command with these flags.
    pub(crate) fn new(flags: Flags, output: Output, clock: Clock, entropy: Entropy) -> Self {
        Self {
            output,
            clock,
            entropy,
            flags,
        }
    }

    /// The local fleet's directory, if there is one and no context is named instead.
    pub(crate) fn home(&self) -> Option<Layout> {
        if self.flags.context.is_some() {
            return None;
        }
        let named = self.flags.home.clone();
        named.or_else(nearest_here).map(Layout::new)
    }

    /// The local fleet's directory, or the one to make in the working directory.
    pub(crate) fn home_or_new(&self) -> Layout {
        self.home()
            .unwrap_or_else(|| Layout::new(PathBuf::from(HOME_NAME)))
    }

    /// The local fleet's directory, for commands that need one.
    pub(crate) fn local(&self) -> Result<Layout, Failure> {
        let missing = "no local fleet here: run `make up`, or name its directory with --home";
        self.home().ok_or_else(|| Failure::Usage(missing.into()))
    }

    /// The cluster that the command is about.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        Target::find(&self.flags, nearest_here())
    }

    /// A client of the cluster's API.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_within(self.flags.deadline.saturating_mul(1_000), ATTEMPT_MS)
    }

    /// A client with its own patience, in milliseconds for all and for one attempt.
    pub(crate) fn client_within(
        &self,
        deadline_ms: u64,
        attempt_ms: u64,
    ) -> Result<Client, Failure> {
        let target = self.target()?;
        let voice = Voice::new(self.output, target.name.clone(), self.flags.verbose);
        let access = Access {
            token: target.token()?,
            servers: target.servers,
            ca_file: target.ca_file,
            deadline_ms,
            attempt_ms,
            voice: Some(voice),
        };
        Client::new(access, self.entropy.clone())
    }

    /// A client of a local fleet with its admin's token, whatever flags and variables say.
    pub(crate) fn client_at(
        &self,
        layout: &Layout,
        deadline_ms: u64,
        attempt_ms: u64,
    ) -> Result<Client, Failure> {
        let target = Target::of_fleet(layout)?;
        let access = Access {
            token: target.token()?,
            servers: target.servers,
            ca_file: None,
            deadline_ms,
            attempt_ms,
            voice: None,
        };
        Client::new(access, self.entropy.clone())
    }

    /// A client of one controller only.
    pub(crate) fn client_of(&self, server: &str) -> Result<Client, Failure> {
        self.alone(server, ALONE_MS)
    }

    /// A client that asks one controller once and does not try again.
    pub(crate) fn client_once(&self, server: &str) -> Result<Client, Failure> {
        self.alone(server, 0)
    }

    fn alone(&self, server: &str, deadline_ms: u64) -> Result<Client, Failure> {
        let target = self.target()?;
        let access = Access {
            servers: vec![server.to_owned()],
            token: target.token()?,
            ca_file: target.ca_file,
            deadline_ms,
            attempt_ms: ALONE_MS,
            voice: None,
        };
        Client::new(access, self.entropy.clone())
    }
}

/// The nearest fleet in the working directory or above it.
fn nearest_here() -> Option<PathBuf> {
    nearest(&std::env::current_dir().ok()?)
}

/// The nearest directory named `.dotmac` that holds a fleet, in `start` or above it.
pub(crate) fn nearest(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|directory| directory.join(HOME_NAME))
        .find(|home| home.join("fleet.json").is_file())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_fleet_upwards_is_found_and_an_empty_directory_is_none() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("a/b");
        std::fs::create_dir_all(deep.join(".dotmac")).unwrap();
        std::fs::create_dir_all(top.path().join(".dotmac")).unwrap();
        assert_eq!(
            nearest(&deep).filter(|found| found.starts_with(top.path())),
            None
        );
        std::fs::write(top.path().join(".dotmac/fleet.json"), "{}").unwrap();
        assert_eq!(nearest(&deep), Some(top.path().join(".dotmac")));
    }
}
