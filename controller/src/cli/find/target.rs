//! Which cluster a command is about, where its controllers are, and where its token comes from. A saved token goes only
//! to the servers it was saved for, unless its context or fleet is named.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{Flags, Secret};
use crate::{
    access_token::AccessToken,
    cli::{
        contexts::{Contexts, Saved},
        failure::Failure,
    },
    local::{layout::Layout, member::Member},
};

/// Bytes of a file with a token at most.
const TOKEN_BYTES_MAX: u64 = 1024;

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
    /// Finds it. Which cluster: `--context` or `--home`, else `--server`, else `DOTMAC_SERVER`, `DOTMAC_HOME`, the nearest
    /// `.dotmac` upwards, the saved current context; `--server` together with the first two replaces their addresses.
    /// Which token: `--token-file`, then that of what was typed, then `DOTMAC_TOKEN_FILE` and `DOTMAC_TOKEN`, then that of
    /// what was found; the authorities to trust in the same way.
    ///
    /// # Errors
    /// When nothing names a cluster, or what is named does not exist.
    pub(super) fn find(flags: &Flags, nearest: Option<PathBuf>) -> Result<Self, Failure> {
        let typed = match (&flags.context, flags.typed_home()) {
            (Some(name), _) => Some(Self::of_saved(
                name,
                Contexts::read(&Contexts::path()?)?.named(name)?,
            )),
            (None, Some(home)) => Some(Self::of_fleet(&Layout::new(home.clone()))?),
            (None, None) => None,
        };
        let is_typed = typed.is_some();
        let mut target = match typed {
            Some(typed) if flags.servers.is_empty() || flags.from_variables.servers => typed,
            Some(typed) => Self {
                name: "server".into(),
                servers: trimmed(&flags.servers),
                ..typed
            },
            None if flags.servers.is_empty() => Self::found(flags, nearest)?.ok_or_else(|| {
                let missing = "no cluster is known: `make up` starts one here, `dotmac login --server URL` saves one, \
                    or name one with --server and --token-file";
                Failure::Usage(missing.into())
            })?,
            // What cannot be read is none of the business of servers that are named.
            None => Self::of_servers(flags, Self::found(flags, nearest).ok().flatten()),
        };
        target.settle(flags, is_typed);
        Ok(target)
    }

    /// What nobody typed: the fleet of the variable, the nearest one, or the saved current context.
    fn found(flags: &Flags, nearest: Option<PathBuf>) -> Result<Option<Self>, Failure> {
        match flags.home.clone().or(nearest) {
            Some(home) => Self::of_fleet(&Layout::new(home)).map(Some),
            None => Self::current(),
        }
    }

    /// Takes token and authorities from flags and variables, where those count before what the cluster has itself.
    fn settle(&mut self, flags: &Flags, is_typed: bool) {
        let from = flags.from_variables;
        // What a variable says counts only where nothing was typed that has its own.
        if let Some(file) = &flags.ca_file
            && !(from.ca_file && is_typed && self.ca_file.is_some())
        {
            self.ca_file = Some(file.clone());
        }
        let has_own = is_typed && !matches!(self.token, TokenSource::None(_));
        match (&flags.token_file, &flags.token) {
            (Some(file), _) if !(from.token_file && has_own) => {
                self.token = TokenSource::File(file.clone());
            }
            (None, Some(Secret(text))) if !has_own => {
                self.token = TokenSource::Given {
                    text: text.clone(),
                    whence: "the variable DOTMAC_TOKEN".to_owned(),
                };
            }
            _ => {}
        }
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
        let settings = layout.settings()?;
        let controllers = Member::present(layout).into_iter();
        let controllers = controllers.filter(Member::is_controller);
        Ok(Self {
            name: format!("fleet {}", layout.home().display()),
            servers: controllers.map(|one| one.address(&settings)).collect(),
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

    /// The saved current context.
    fn current() -> Result<Option<Self>, Failure> {
        let contexts = Contexts::read(&Contexts::path()?)?;
        let Some(name) = &contexts.current else {
            return Ok(None);
        };
        Ok(Some(Self::of_saved(name, contexts.named(name)?)))
    }

    /// Servers that were named alone, with the token of what was found only if they belong to it.
    fn of_servers(flags: &Flags, found: Option<Self>) -> Self {
        let servers = trimmed(&flags.servers);
        let found =
            found.filter(|found| servers.iter().all(|server| found.servers.contains(server)));
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

/// The token in a file: a regular one, of which no more is read than a token can be long.
///
/// # Errors
/// When it cannot be read, is a pipe or a device, or holds no token.
pub(crate) fn read_token(file: &Path) -> Result<String, Failure> {
    let failed = |cause: &std::io::Error| Failure::io("read the token in", file, cause);
    // Without waiting for whoever might write into a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, Mode::empty());
    let opened = File::from(opened.map_err(|cause| failed(&cause.into()))?);
    let metadata = opened.metadata().map_err(|cause| failed(&cause))?;
    let shown = file.display();
    if !metadata.is_file() {
        return Err(Failure::Usage(format!(
            "{shown} is no regular file: a token is read from one, or from the variable DOTMAC_TOKEN"
        )));
    }
    let mut text = String::new();
    let read = opened.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 <= TOKEN_BYTES_MAX => checked(&text, &shown.to_string()),
        Err(cause) if cause.kind() != std::io::ErrorKind::InvalidData => Err(failed(&cause)),
        _ => Err(Failure::Usage(format!("{shown} holds no token"))),
    }
}

/// The mode of a file that not only its owner can read.
pub(super) fn exposed(file: &Path) -> Option<u32> {
    let mode = std::fs::metadata(file).ok()?.mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
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

    use serde_json::json;

    use super::{AccessToken, Layout, Secret, Target, TokenSource, checked, read_token};
    use crate::cli::find::{Flags, FromVariables};

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

    /// A cluster that was typed, or found with nobody asking for it.
    fn settled(mut target: Target, flags: &Flags, is_typed: bool) -> Option<String> {
        target.settle(flags, is_typed);
        target.token().ok()
    }

    #[test]
    fn a_saved_token_goes_to_no_server_that_it_was_not_saved_for() {
        let sent = |server: &str| {
            Target::of_servers(&flags(server), Some(found()))
                .token()
                .ok()
        };
        assert_eq!(sent("https://evil.example"), None);
        assert_eq!(sent("https://a.example:8000/"), Some(token()));
    }

    /// A fleet with an administrator's token, in a directory of its own.
    fn fleet() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path().to_owned());
        let settings = json!({"port_base": 8000, "grace_ms": 1_000});
        std::fs::write(home.path().join("fleet.json"), settings.to_string()).unwrap();
        std::fs::write(layout.admin_token(), token()).unwrap();
        home
    }

    #[test]
    fn a_fleets_token_goes_elsewhere_only_when_the_fleet_was_typed_with_the_server() {
        let home = fleet();
        let mut flags = Flags {
            home: Some(home.path().to_owned()),
            ..flags("http://127.0.0.1:29998")
        };
        let sent = |flags: &Flags| {
            let target = Target::find(flags, None).unwrap();
            (target.servers.clone(), target.token().ok())
        };
        let other = vec!["http://127.0.0.1:29998".to_owned()];
        assert_eq!(sent(&flags), (other.clone(), Some(token())));
        flags.from_variables.home = true;
        assert_eq!(sent(&flags), (other, None), "merely exported");
        // What was typed counts before the variable of the server, and before that of the token.
        flags.from_variables = FromVariables {
            servers: true,
            ..FromVariables::default()
        };
        flags.token = Some(Secret("another".into()));
        let (servers, sent) = sent(&flags);
        assert_eq!(sent, Some(token()));
        assert!(servers.len() > 1, "{servers:?}");
    }

    #[test]
    fn a_token_is_taken_from_flags_then_from_what_was_typed_then_from_variables() {
        let other = AccessToken::generate(&Entropy::seeded(2))
            .reveal()
            .to_owned();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &other).unwrap();
        let mut flags = Flags {
            token: Some(Secret(other.clone())),
            ..Flags::default()
        };
        assert_eq!(settled(found(), &flags, true), Some(token()));
        assert_eq!(settled(found(), &flags, false), Some(other.clone()));
        flags.token_file = Some(file.path().to_owned());
        assert_eq!(settled(found(), &flags, true), Some(other.clone()));
        flags.from_variables.token_file = true;
        assert_eq!(settled(found(), &flags, true), Some(token()));
        assert_eq!(settled(found(), &flags, false), Some(other.clone()));
        let logged_out = Target {
            token: TokenSource::None(String::new()),
            ..found()
        };
        assert_eq!(settled(logged_out, &flags, true), Some(other));
    }

    #[test]
    fn only_a_short_regular_file_is_read_for_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
        std::fs::write(path("long"), "x".repeat(2_000)).unwrap();
        std::fs::write(path("binary"), [0xff; 8]).unwrap();
        for wrong in ["pipe", "long", "binary", "none"] {
            assert!(read_token(&path(wrong)).is_err(), "{wrong}");
        }
        assert!(read_token("/dev/zero".as_ref()).is_err());
        std::fs::write(path("token"), token() + "\n").unwrap();
        assert_eq!(read_token(&path("token")).unwrap(), token());
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
