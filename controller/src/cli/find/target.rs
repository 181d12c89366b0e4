//! Which cluster a command is about, where its controllers are, and where its token comes from. A saved token goes only
//! to the servers it was saved for, unless its context or fleet is named.

use std::path::{Path, PathBuf};

use super::Flags;
use crate::{
    access_token::AccessToken,
    cli::{
        contexts::{Contexts, Saved},
        failure::Failure,
    },
    local::layout::Layout,
};

/// A cluster with the way to get in.
pub(crate) struct Target {
    /// What it is called on standard error.
    pub(crate) name: String,
    /// Addresses of the controllers.
    pub(crate) servers: Vec<String>,
    /// Certificates of the authorities to trust.
    pub(crate) ca_file: Option<PathBuf>,
    token: TokenSource,
}

/// Where a token comes from.
enum TokenSource {
    File(PathBuf),
    Given {
        text: String,
        whence: String,
    },
    /// With what to do about it.
    None(String),
}

impl Target {
    /// Finds it: `--server`, `--context`, `--home`, the nearest `.dotmac` upwards, the saved current context.
    ///
    /// # Errors
    /// When nothing names a cluster, or what is named does not exist.
    pub(super) fn find(flags: &Flags, nearest: Option<PathBuf>) -> Result<Self, Failure> {
        let named = match (&flags.context, &flags.home) {
            (Some(name), _) => Some(Self::of_saved(
                name,
                Contexts::read(&Contexts::path()?)?.named(name)?,
            )),
            (None, Some(home))
                if flags.servers.is_empty() || Layout::new(home.clone()).exists() =>
            {
                Some(Self::of_fleet(&Layout::new(home.clone()))?)
            }
            (None, _) => None,
        };
        let is_named = named.is_some();
        let found = match (named, nearest) {
            (Some(named), _) => Some(named),
            (None, Some(home)) => Some(Self::of_fleet(&Layout::new(home))?),
            (None, None) => Self::current(flags)?,
        };
        let mut target = match (found, flags.servers.is_empty()) {
            (Some(found), true) => found,
            (found, false) => Self::of_servers(flags, found, is_named),
            (None, true) => {
                let missing = "no cluster is known: `make up` starts one here, `dotmac login --server URL` saves one, \
                    or name one with --server and --token-file";
                return Err(Failure::Usage(missing.into()));
            }
        };
        if let Some(file) = &flags.ca_file {
            target.ca_file = Some(file.clone());
        }
        match (&flags.token_file, std::env::var("DOTMAC_TOKEN")) {
            (Some(file), _) => target.token = TokenSource::File(file.clone()),
            (None, Ok(text)) if !text.is_empty() => {
                let whence = "the variable DOTMAC_TOKEN".to_owned();
                target.token = TokenSource::Given { text, whence };
            }
            (None, _) => {}
        }
        Ok(target)
    }

    /// The token.
    ///
    /// # Errors
    /// When there is none, or what is there cannot be one.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        match &self.token {
            TokenSource::File(file) => read_token(file),
            TokenSource::Given { text, whence } => checked(text, whence),
            TokenSource::None(hint) => Err(Failure::Usage(format!("no token: {hint}"))),
        }
    }

    /// The file that the token is in, if it is in one of its own.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        match &self.token {
            TokenSource::File(file) => Some(file),
            TokenSource::Given { .. } | TokenSource::None(_) => None,
        }
    }

    /// A local fleet with its administrator's token.
    pub(crate) fn of_fleet(layout: &Layout) -> Result<Self, Failure> {
        Ok(Self {
            name: format!("fleet {}", layout.home().display()),
            servers: layout.settings()?.ports().servers(),
            ca_file: None,
            token: TokenSource::File(layout.admin_token()),
        })
    }

    fn of_saved(name: &str, saved: &Saved) -> Self {
        let token = match (&saved.token, &saved.token_file) {
            (Some(text), _) => TokenSource::Given {
                text: text.clone(),
                whence: format!("the context {name}"),
            },
            (None, Some(file)) => TokenSource::File(file.clone()),
            (None, None) => {
                let servers = saved.servers.join(",");
                TokenSource::None(format!("dotmac login --name {name} --server {servers}"))
            }
        };
        Self {
            name: format!("context {name}"),
            servers: saved.servers.clone(),
            ca_file: saved.ca_file.clone(),
            token,
        }
    }

    /// The saved current context. Where servers are named, a file that cannot be read is none of our business.
    fn current(flags: &Flags) -> Result<Option<Self>, Failure> {
        let contexts = match Contexts::path().and_then(|path| Contexts::read(&path)) {
            Err(_) if !flags.servers.is_empty() => return Ok(None),
            other => other?,
        };
        let Some(name) = &contexts.current else {
            return Ok(None);
        };
        Ok(Some(Self::of_saved(name, contexts.named(name)?)))
    }

    /// Servers that were named themselves, with the token of what else is named, or of what they belong to.
    fn of_servers(flags: &Flags, found: Option<Self>, is_named: bool) -> Self {
        let servers = trimmed(&flags.servers);
        let found = found.filter(|found| {
            is_named || servers.iter().all(|server| found.servers.contains(server))
        });
        let (ca_file, token) = match found {
            Some(found) => (found.ca_file, found.token),
            None => (
                None,
                TokenSource::None("give --token-file, or the variable DOTMAC_TOKEN".into()),
            ),
        };
        Self {
            name: "server".into(),
            servers,
            ca_file,
            token,
        }
    }
}

/// Addresses without the slash at their end.
pub(crate) fn trimmed(servers: &[String]) -> Vec<String> {
    let servers = servers
        .iter()
        .map(|server| server.trim().trim_end_matches('/').to_owned());
    servers.filter(|server| !server.is_empty()).collect()
}

/// The token in a file.
pub(crate) fn read_token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Failure::io("read the token in", file, &cause))?;
    checked(&text, &file.display().to_string())
}

/// A token that is mistyped or cut is noticed before anything is sent.
pub(crate) fn checked(text: &str, whence: &str) -> Result<String, Failure> {
    match AccessToken::parse(text) {
        Ok(token) => Ok(token.reveal().to_owned()),
        Err(error) => Err(Failure::Usage(format!("{whence}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::entropy::Entropy;

    use super::{AccessToken, Target, TokenSource, checked};
    use crate::cli::find::Flags;

    fn token() -> String {
        AccessToken::generate(&Entropy::seeded(1))
            .reveal()
            .to_owned()
    }

    fn found() -> Target {
        Target {
            name: "context prod".into(),
            servers: vec!["https://a.example:8000".into()],
            ca_file: None,
            token: TokenSource::Given {
                text: token(),
                whence: String::new(),
            },
        }
    }

    fn flags(server: &str) -> Flags {
        Flags {
            servers: vec![server.into()],
            ..Flags::default()
        }
    }

    #[test]
    fn a_saved_token_goes_to_no_other_server_unless_its_context_is_named() {
        let sent = |server: &str, is_named| {
            Target::of_servers(&flags(server), Some(found()), is_named)
                .token()
                .ok()
        };
        assert_eq!(sent("https://evil.example", false), None);
        assert_eq!(
            sent("https://a.example:8000/", false).as_deref(),
            Some(&*token())
        );
        assert_eq!(
            sent("https://b.example:8000", true).as_deref(),
            Some(&*token())
        );
    }

    #[test]
    fn a_token_that_is_mistyped_or_none_at_all_is_not_sent_and_not_repeated() {
        let token = token();
        assert_eq!(checked(&format!("{token}\n"), "file").unwrap(), token);
        let cut = &token[..token.len() - 1];
        for wrong in [
            cut,
            "",
            "\n",
            "secret",
            "a\r\nx-evil: 1",
            &format!("{token}\r\nx-evil: 1"),
        ] {
            let failure = format!("{:?}", checked(wrong, "the file").unwrap_err());
            assert!(failure.contains("the file"), "{failure}");
            assert!(
                wrong.is_empty() || !failure.contains(wrong.trim()) || wrong.trim().is_empty(),
                "{failure}"
            );
        }
    }
}
