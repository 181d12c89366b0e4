//! Why a command of the CLI did not do what was asked, in one line for people and as an exit code for scripts.

use std::{fmt, path::Path, process::ExitCode};

use serde::Deserialize;
use thiserror::Error;

use super::{
    output::{clean, clean_line},
    suggest,
};

/// What `--help` says about exit codes.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  no such thing, or not yours
  4  refused: not allowed, in conflict, or not valid (401, 403, 409, 422 and the like)
  5  no controller could be reached, or none could serve
  6  still not done when the time to wait was over
  7  it was changed meanwhile by somebody else: look again (412)
  8  nothing to change (only with --dry-run)
  9  it works, and something should be looked after (only doctor and cluster health)
`dotmac diff` ends with 0 when nothing differs, 1 when something does, and 2 when it cannot tell.";

/// Why a command failed; each variant is an exit code.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Anything without a code of its own.
    #[error("{0}")]
    Failed(String),
    /// What was asked makes no sense, or something needed is not given.
    #[error("{0}")]
    Usage(String),
    /// The API knows no such thing.
    #[error("{0}")]
    NotFound(Box<Problem>),
    /// The API does not do it.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No controller answered within the deadline.
    #[error(
        "no controller could serve within {waited_ms} ms ({servers}): {cause}; `dotmac doctor` tells more, `make status` shows a local fleet"
    )]
    Unreachable {
        /// Who was tried.
        servers: String,
        /// How long.
        waited_ms: u64,
        /// What the last one did.
        cause: String,
    },
    /// It is still not done.
    #[error("{0}")]
    TimedOut(String),
    /// It is not any more what it was when the plan was shown.
    #[error("{0}")]
    Changed(String),
    /// The end of a command that has said everything itself: an exit code without a remark.
    #[error("exit code {0}")]
    Ended(u8),
}

/// An error as the API tells it (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// HTTP status.
    pub(crate) status: u16,
    /// Stable code, such as `domain-in-use`.
    pub(crate) code: String,
    /// What kind of error.
    pub(crate) title: String,
    /// What happened here.
    pub(crate) detail: String,
    /// What to do about it.
    pub(crate) next: Option<String>,
    /// Fields that are wrong.
    pub(crate) errors: Vec<FieldError>,
    /// What was asked for: a path below the server. The client's own note, never the API's.
    #[serde(skip)]
    pub(crate) path: String,
    /// What may have been meant. The client's own note as well.
    #[serde(skip)]
    pub(crate) meant: Vec<String>,
}

/// One field that is wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FieldError {
    /// Its name.
    pub(crate) field: String,
    /// What was given.
    pub(crate) value: serde_json::Value,
    /// What would be allowed.
    pub(crate) allowed: serde_json::Value,
}

impl Failure {
    /// A failure of the machine this runs on.
    pub(crate) fn io(doing: &str, path: &Path, cause: &std::io::Error) -> Self {
        let hint = match cause.kind() {
            std::io::ErrorKind::StorageFull => "the disk is full",
            std::io::ErrorKind::PermissionDenied => "permission denied",
            std::io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
            std::io::ErrorKind::NotFound => "no such file or directory",
            _ => return Self::Failed(format!("cannot {doing} {}: {cause}", path.display())),
        };
        Self::Failed(format!("cannot {doing} {}: {hint}", path.display()))
    }

    /// An answer of the API that is no success.
    pub(crate) fn of(problem: Problem) -> Self {
        match problem.status {
            404 => Self::NotFound(Box::new(problem)),
            412 => Self::Changed(problem.to_string()),
            400..500 => Self::Refused(Box::new(problem)),
            _ => Self::Failed(problem.to_string()),
        }
    }

    /// The same failure with the path that was asked for.
    pub(crate) fn at(mut self, path: &str) -> Self {
        if let Self::NotFound(problem) | Self::Refused(problem) = &mut self {
            path.clone_into(&mut problem.path);
        }
        self
    }

    /// An answer that does not have the form the API promises.
    pub(crate) fn answer(cause: impl fmt::Display) -> Self {
        Self::Failed(format!("the controller's answer cannot be read: {cause}"))
    }

    /// A success of something that is not the API: another service on its port, or a page of a proxy.
    pub(crate) fn foreign(path: &str, what: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        Self::Failed(format!(
            "{}: {what}: that is no answer of a DotMac API; is the address right?",
            clean(path)
        ))
    }

    /// The exit code, as [`EXIT_CODES`] lists it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable { .. } => 5,
            Self::TimedOut(_) => 6,
            Self::Changed(_) => 7,
            Self::Ended(code) => *code,
        }
    }

    /// The exit code, for the end of a program.
    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.detail.is_empty() {
            &self.title
        } else {
            &self.detail
        };
        let said = if said.is_empty() {
            "the controller gave no reason"
        } else {
            said
        };
        write!(formatter, "{}", clean_line(said))?;
        match self.code.as_str() {
            "" => write!(formatter, " (status {})", self.status)?,
            code => write!(formatter, " ({})", clean(code))?,
        }
        for error in &self.errors {
            write!(
                formatter,
                "\n  {}: {}",
                clean(&error.field),
                clean(&plain(&error.value))
            )?;
            if !error.allowed.is_null() {
                write!(
                    formatter,
                    " is not allowed; {}",
                    clean(&plain(&error.allowed))
                )?;
            }
            if let Some(meant) = error.meant() {
                write!(formatter, "; did you mean {}?", clean(&meant))?;
            }
        }
        if !self.meant.is_empty() {
            write!(
                formatter,
                "\n  did you mean {}?",
                clean(&self.meant.join(", "))
            )?;
        }
        if let Some(next) = &self.next {
            write!(formatter, "\n  next: {}", clean(self.next_here(next)))?;
        }
        Ok(())
    }
}

impl Problem {
    /// What to do next in words of this command line, which chooses keys and consistency itself.
    fn next_here<'a>(&self, next: &'a str) -> &'a str {
        match self.code.as_str() {
            "unauthenticated" => "`dotmac login` saves a token, --token-file names the file of one",
            "idempotency-key-reused" => "run it again: it then has a key of its own",
            "rate-limited" | "overloaded" => "wait a little and run it again: that is safe",
            _ if next.contains("Idempotency-Key") => "look how it is, and run it again",
            _ => next,
        }
    }
}

impl FieldError {
    /// Which of the allowed words is close to the given one.
    fn meant(&self) -> Option<String> {
        let allowed = plain(&self.allowed);
        let words = allowed
            .split([',', ' ', '`', '"'])
            .filter(|word| word.len() > 2);
        suggest::closest(self.value.as_str()?, words)
            .into_iter()
            .next()
    }
}

/// A JSON value as people read it: text without quotes, lists with commas.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{EXIT_CODES, Failure, Problem};

    fn problem(status: u16) -> Problem {
        Problem {
            status,
            ..Problem::default()
        }
    }

    /// What the help says, one by one: nothing is documented that no failure ends with, and the other way round.
    #[test]
    fn every_documented_exit_code_is_the_end_of_something() {
        let failures = [
            Failure::Failed(String::new()),
            Failure::Usage(String::new()),
            Failure::NotFound(Box::default()),
            Failure::Refused(Box::default()),
            Failure::Unreachable {
                servers: String::new(),
                waited_ms: 0,
                cause: String::new(),
            },
            Failure::TimedOut(String::new()),
            Failure::Changed(String::new()),
            Failure::Ended(8),
            Failure::Ended(9),
        ];
        let documented = EXIT_CODES.lines().filter_map(|line| {
            let (code, text) = line.strip_prefix("  ")?.split_once("  ")?;
            (!text.is_empty()).then(|| code.parse::<u8>().unwrap())
        });
        let ends = std::iter::once(0).chain(failures.iter().map(Failure::code));
        assert_eq!(documented.collect::<Vec<_>>(), ends.collect::<Vec<_>>());
        let manual = include_str!("../../../docs/cli.md");
        for line in EXIT_CODES.lines().filter(|line| line.starts_with("  ")) {
            let (code, text) = line.trim().split_once("  ").unwrap();
            let meaning = text.split(['(', ':', ';']).next().unwrap().trim();
            assert!(manual.contains(&format!("| {code} | {meaning}")), "{line}");
        }
    }

    #[test]
    fn a_word_close_to_an_allowed_one_is_suggested() {
        let problem: Problem = serde_json::from_str(
            r#"{"status":422,"errors":[{"field":"region","value":"do-far1","allowed":"one of do-fra1, byov-lagos"}]}"#,
        )
        .unwrap();
        let text = problem.to_string();
        assert!(text.contains("did you mean do-fra1?"), "{text}");
    }

    #[test]
    fn what_to_do_next_is_said_in_words_of_the_command_line() {
        let next = |code: &str, next: &str| {
            let problem = Problem {
                code: code.into(),
                next: Some(next.into()),
                ..Problem::default()
            };
            problem
                .to_string()
                .split_once("next: ")
                .unwrap()
                .1
                .to_owned()
        };
        let key = "try again with the same Idempotency-Key; reads may be asked for with ?consistency=stale";
        for code in ["unavailable", "overloaded", "attestations"] {
            let said = next(code, key);
            assert!(
                said.contains("run it again") && !said.contains("Key"),
                "{said}"
            );
            assert!(!said.contains('?'), "{said}");
        }
        assert_eq!(next("forbidden", "use another token"), "use another token");
    }

    #[test]
    fn every_kind_of_answer_has_the_exit_code_that_help_lists() {
        let codes = [401, 403, 404, 409, 412, 422, 429, 500, 503]
            .map(|status| Failure::of(problem(status)).code());
        assert_eq!(codes, [4, 4, 3, 4, 7, 4, 4, 1, 1]);
        assert_eq!(Failure::TimedOut(String::new()).code(), 6);
    }

    #[test]
    fn a_problem_names_field_value_and_what_is_allowed_without_escapes() {
        let problem: Problem = serde_json::from_str(
            r#"{"status":422,"code":"invalid","detail":"not valid\u001b[2J","next":"fix it",
                "errors":[{"field":"region","value":"mars","allowed":["do-fra1","byov-lagos"]}]}"#,
        )
        .unwrap();
        assert_eq!(
            problem.to_string(),
            "not valid[2J (invalid)\n  region: mars is not allowed; do-fra1, byov-lagos\n  next: fix it"
        );
    }
}
