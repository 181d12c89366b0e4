//! Everything that a command needs, and which cluster it is about: flags first, then the environment, then the nearest
//! `.dotmac` upwards, then the context that was saved as the current one. An empty variable is none.

mod target;

use std::{
    path::{Path, PathBuf},
    sync::Once,
};

use clap::{
    ArgMatches,
    builder::{OsStringValueParser, TypedValueParser as _},
    error::{self, ErrorKind},
    parser::ValueSource,
};
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
    /// A saved context (`dotmac context list`); with --server, its token and authorities for that server
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Directory of a local fleet [default: the nearest .dotmac upwards]; with --server, its token for that server
    #[arg(long, env = "DOTMAC_HOME", global = true, value_name = "DIR", value_parser = path())]
    pub(crate) home: Option<PathBuf>,
    /// Controllers to ask, in order (repeat it, or separate them by commas). Flags count before variables
    #[arg(
        id = "servers",
        long = "server",
        env = "DOTMAC_SERVER",
        global = true,
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) servers: Vec<String>,
    /// File with the access token [default: that of --context or --home; then DOTMAC_TOKEN, the token itself; then that of
    /// the cluster that was found]
    #[arg(long, env = "DOTMAC_TOKEN_FILE", global = true, value_name = "FILE", value_parser = path())]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the certificates of the authorities to trust [default: the system's]
    #[arg(long, env = "DOTMAC_CA_FILE", global = true, value_name = "FILE", value_parser = path())]
    pub(crate) ca_file: Option<PathBuf>,
    /// Seconds to go on trying while no controller can serve
    #[arg(long, default_value_t = 15, global = true, value_name = "SECONDS")]
    pub(crate) deadline: u64,
    /// Say which cluster is asked, for reads as well
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// What of this nobody typed: it came from variables.
    #[arg(skip)]
    pub(crate) from_variables: FromVariables,
    /// The variable DOTMAC_TOKEN.
    #[arg(skip)]
    pub(crate) token: Option<Secret>,
}

/// Which of the flags were not typed, but came from variables.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FromVariables {
    pub(crate) home: bool,
    pub(crate) servers: bool,
    pub(crate) token_file: bool,
    pub(crate) ca_file: bool,
}

/// A token from a variable, which no message shows.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("…")
    }
}

impl Flags {
    /// Notes what came from variables, takes empty ones for none, and lets what was typed count before them.
    ///
    /// # Errors
    /// When a flag was typed without a value.
    pub(crate) fn settle(&mut self, found: &ArgMatches) -> Result<(), error::Error> {
        let is_variable = |id| found.value_source(id) == Some(ValueSource::EnvVariable);
        self.from_variables = FromVariables {
            home: is_variable("home"),
            servers: is_variable("servers"),
            token_file: is_variable("token_file"),
            ca_file: is_variable("ca_file"),
        };
        let from = self.from_variables;
        let token = std::env::var("DOTMAC_TOKEN").ok();
        self.token = token.filter(|text| !text.trim().is_empty()).map(Secret);
        let was_named = !self.servers.is_empty();
        self.servers = trimmed(&self.servers);
        let without = |name| {
            let text = format!("--{name} was given without a value\n");
            Err(error::Error::raw(ErrorKind::InvalidValue, text))
        };
        if was_named && self.servers.is_empty() && !from.servers {
            return without("server");
        }
        let files = [
            ("home", &mut self.home, from.home),
            ("token-file", &mut self.token_file, from.token_file),
            ("ca-file", &mut self.ca_file, from.ca_file),
        ];
        for (name, file, from_variable) in files {
            if file
                .as_ref()
                .is_some_and(|path| path.as_os_str().is_empty())
            {
                if !from_variable {
                    return without(name);
                }
                *file = None;
            }
        }
        Ok(())
    }

    /// The fleet that was typed, not one that a variable names.
    fn typed_home(&self) -> Option<&PathBuf> {
        self.home.as_ref().filter(|_| !self.from_variables.home)
    }
}

/// A path that may be empty, as an exported variable is.
fn path() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
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
    exposed: Once,
}

impl Context {
    /// For a command with these flags.
    pub(crate) fn new(flags: Flags, output: Output, clock: Clock, entropy: Entropy) -> Self {
        Self {
            output,
            clock,
            entropy,
            flags,
            exposed: Once::new(),
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
        if let Some(file) = target.token_file() {
            self.warn_of_exposed(file);
        }
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

    /// Says once that others can read the file a token is in.
    pub(crate) fn warn_of_exposed(&self, file: &Path) {
        if let Some(mode) = target::exposed(file) {
            let shown = file.display();
            let remark =
                format!("others can read the token in {shown} (mode {mode:o}): chmod 600 {shown}");
            self.exposed.call_once(|| self.output.note(&remark));
        }
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
