//! Which fleet a command is about: flags first, then the environment, then the nearest `.dotmac` upwards.

use std::path::{Path, PathBuf};

use dotmac_runtime::{clock::Clock, entropy::Entropy};

use super::{
    client::{Access, Client},
    failure::Failure,
    output::Output,
};
use crate::local::layout::Layout;

/// Name of the directory that `make up` makes in a checkout.
pub(crate) const HOME_NAME: &str = ".dotmac";
/// Milliseconds to wait for one controller before the next is asked.
const ATTEMPT_MS: u64 = 5_000;

/// What the flags and the environment say.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flags {
    /// Directory of a local fleet [default: the nearest .dotmac upwards]
    #[arg(long, env = "DOTMAC_HOME", global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Controllers to ask, in order (repeat it, or separate them by commas)
    #[arg(
        long = "server",
        env = "DOTMAC_SERVER",
        global = true,
        value_name = "URL",
        value_delimiter = ','
    )]
    servers: Vec<String>,
    /// File with the access token; the variable DOTMAC_TOKEN holds the token itself
    #[arg(long, env = "DOTMAC_TOKEN_FILE", global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Seconds to go on trying while no controller answers
    #[arg(long, default_value_t = 15, global = true, value_name = "SECONDS")]
    deadline: u64,
}

/// Everything a command needs.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// The source of time.
    pub(crate) clock: Clock,
    /// The source of randomness.
    pub(crate) entropy: Entropy,
    flags: Flags,
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

    /// The local fleet's directory, if there is one.
    pub(crate) fn home(&self) -> Option<Layout> {
        let here = std::env::current_dir().ok();
        let named = self.flags.home.clone();
        named.or_else(|| nearest(here.as_deref()?)).map(Layout::new)
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
        let servers = self.servers()?;
        let token = self.token()?;
        let access = Access {
            servers,
            token,
            deadline_ms,
            attempt_ms,
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
        let servers = layout.settings()?.ports().servers();
        let token = read_token(&layout.admin_token())?;
        let access = Access {
            servers,
            token,
            deadline_ms,
            attempt_ms,
        };
        Client::new(access, self.entropy.clone())
    }

    /// A client of one controller only.
    pub(crate) fn client_of(&self, server: &str) -> Result<Client, Failure> {
        let servers = vec![server.to_owned()];
        let access = Access {
            servers,
            token: self.token()?,
            deadline_ms: 3_000,
            attempt_ms: 3_000,
        };
        Client::new(access, self.entropy.clone())
    }

    fn servers(&self) -> Result<Vec<String>, Failure> {
        if !self.flags.servers.is_empty() {
            let trimmed = self
                .flags
                .servers
                .iter()
                .map(|server| server.trim_end_matches('/').to_owned());
            return Ok(trimmed.collect());
        }
        match self.home() {
            Some(layout) => Ok(layout.settings()?.ports().servers()),
            None => Err(Failure::Usage(
                "no fleet found: run `make up`, or name one with --server and --token-file".into(),
            )),
        }
    }

    fn token(&self) -> Result<String, Failure> {
        let file = match (&self.flags.token_file, std::env::var("DOTMAC_TOKEN")) {
            (Some(file), _) => file.clone(),
            (None, Ok(token)) => return checked(&token, "the variable DOTMAC_TOKEN"),
            (None, Err(_)) => match self.home() {
                Some(layout) => layout.admin_token(),
                None => {
                    return Err(Failure::Usage(
                        "no token: give --token-file or DOTMAC_TOKEN".into(),
                    ));
                }
            },
        };
        read_token(&file)
    }
}

fn read_token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Failure::io("read the token in", file, &cause))?;
    checked(&text, &file.display().to_string())
}

/// The nearest directory named `.dotmac` that holds a fleet, in `start` or above it.
pub(crate) fn nearest(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|directory| directory.join(HOME_NAME))
        .find(|home| home.join("fleet.json").is_file())
}

/// A token has one line of printable characters; anything else would break the header it travels in.
fn checked(text: &str, whence: &str) -> Result<String, Failure> {
    let token = text.trim();
    if token.is_empty() || token.len() > 4096 || !token.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Failure::Usage(format!("{whence} holds no access token")));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{checked, nearest};

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

    #[test]
    fn a_token_with_a_line_break_inside_is_none() {
        assert!(checked("abc\n", "file").is_ok());
        assert!(checked("a\r\nx-evil: 1", "file").is_err());
        assert!(checked("\n", "file").is_err());
    }
}
