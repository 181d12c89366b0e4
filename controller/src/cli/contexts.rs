//! Saved contexts: which clusters somebody works with, and with which token. They lie in one file that only its owner
//! may read; a file that others may read is refused, and no command ever shows a token.

mod verbs;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use dotmac_runtime::disk;
use serde::{Deserialize, Serialize};

use super::{failure::Failure, suggest};

pub(crate) use verbs::{Logout, Verbs};

/// Bytes of the file at most.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Letters of a name at most.
const NAME_LETTERS_MAX: usize = 64;

/// All of them, as the file has them.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Saved>,
}

/// One cluster and how to get in.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    /// Addresses of the controllers, in the order to try them.
    pub(crate) servers: Vec<String>,
    /// The access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Where the access token is, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust; without it the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Contexts {
    /// Where they are saved: `$XDG_CONFIG_HOME/dotmac/contexts.toml`, or below `~/.config`.
    ///
    /// # Errors
    /// When neither variable says where.
    pub(crate) fn path() -> Result<PathBuf, Failure> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let directory = variable("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| {
                Some(
                    variable("HOME")
                        .filter(|path| path.is_absolute())?
                        .join(".config"),
                )
            });
        let missing = || {
            Failure::Usage("neither XDG_CONFIG_HOME nor HOME says where contexts are saved".into())
        };
        Ok(directory.ok_or_else(missing)?.join("dotmac/contexts.toml"))
    }

    /// Reads them; a file that is missing holds none.
    ///
    /// # Errors
    /// When others may read the file, or it is damaged.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |cause: &std::io::Error| Failure::io("read", path, cause);
        let file = match File::open(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            other => other.map_err(|cause| failed(&cause))?,
        };
        let mode = file.metadata().map_err(|cause| failed(&cause))?.mode();
        let shown = path.display();
        if mode & 0o077 != 0 {
            return Err(Failure::Usage(format!(
                "{shown} holds tokens and can be read by others (mode {:o}): chmod 600 {shown}",
                mode & 0o777
            )));
        }
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|cause| failed(&cause))?;
        let damaged = |why: &str| Failure::Usage(format!("{shown} is damaged: {why}"));
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        // The place says enough; the line itself may be a token.
        toml::from_str(&text).map_err(|error| {
            let end = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..end]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            damaged(&format!("line {line}: {}", error.message()))
        })
    }

    /// Changes them while no other process does, and saves them so that only their owner can read them.
    ///
    /// # Errors
    /// When the change refuses, or the file cannot be read or written.
    pub(crate) fn update<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let failed = |cause: std::io::Error| Failure::io("write", path, &cause);
        disk::create_private_dir(disk::parent_of(path)).map_err(failed)?;
        let lock = path.with_extension("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock);
        let lock = lock.map_err(failed)?;
        let locked = rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive);
        locked.map_err(|cause| failed(cause.into()))?;
        let mut contexts = Self::read(path)?;
        let result = change(&mut contexts)?;
        let text = toml::to_string_pretty(&contexts)
            .map_err(|cause| Failure::Failed(format!("the contexts cannot be written: {cause}")))?;
        disk::write_atomic(path, text.as_bytes(), 0o600).map_err(failed)?;
        Ok(result)
    }

    /// The one with this name.
    ///
    /// # Errors
    /// When there is none, with those that have a similar name.
    pub(crate) fn named(&self, name: &str) -> Result<&Saved, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let meant = suggest::closest(name, self.contexts.keys().map(String::as_str));
            let hint = match meant.first() {
                Some(meant) => format!("did you mean {meant}?"),
                None => "`dotmac context list` shows all, `dotmac login` makes one".to_owned(),
            };
            Failure::Usage(format!("there is no context {name}; {hint}"))
        })
    }
}

/// Whether a context can have this name.
///
/// # Errors
/// When it has letters that would have to be quoted somewhere.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let is_fine = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= NAME_LETTERS_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_fine {
        return Ok(());
    }
    Err(Failure::Usage(
        "the name of a context has letters, digits, `-`, `_` and `.`, 64 at most".into(),
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{Contexts, Saved, check_name};

    fn saved(token: &str) -> Saved {
        Saved {
            servers: vec!["https://a.example:8000".into()],
            token: Some(token.into()),
            ..Saved::default()
        }
    }

    #[test]
    fn the_file_is_private_and_one_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dotmac/contexts.toml");
        assert!(Contexts::read(&path).is_ok_and(|none| none.contexts.is_empty()));
        Contexts::update(&path, |all| {
            all.contexts.insert("prod".into(), saved("canary-1"));
            all.current = Some("prod".into());
            Ok(())
        })
        .unwrap();
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let read = Contexts::read(&path).unwrap();
        assert_eq!(
            read.named("prod").unwrap().token.as_deref(),
            Some("canary-1")
        );
        for wrong in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(wrong)).unwrap();
            let refused = Contexts::read(&path).err().unwrap().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line_and_never_with_its_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contexts.toml");
        fs::write(&path, "[contexts.prod]\nservers = []\ntoken = canary-2\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let refused = Contexts::read(&path).err().unwrap().to_string();
        assert!(
            refused.contains("line 3") && !refused.contains("canary"),
            "{refused}"
        );
    }

    #[test]
    fn a_misspelt_context_gets_a_suggestion() {
        let mut all = Contexts::default();
        all.contexts.insert("production".into(), saved("t"));
        let refused = all.named("prodution").err().unwrap().to_string();
        assert!(refused.contains("did you mean production?"), "{refused}");
        assert!(
            check_name("prod-1.eu").is_ok()
                && check_name("-x").is_err()
                && check_name("a b").is_err()
        );
    }
}
