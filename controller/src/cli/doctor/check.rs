//! One thing that was looked at, how it is, and how to mend it.

use serde_json::{Value, json};

/// How something is, from well to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and should be looked after.
    Warn,
    /// It does not work.
    Fail,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) verdict: Verdict,
    /// What was looked at.
    pub(super) name: String,
    /// What was seen.
    pub(super) detail: String,
    /// What to do about it; empty where nothing has to be done.
    pub(super) mend: String,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The exit code of a report whose worst check is this.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warn => 9,
            Self::Fail => 1,
        }
    }
}

impl Check {
    /// Nothing to do.
    pub(super) fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, name, detail.into(), String::new())
    }

    /// To be looked after.
    pub(super) fn warn(name: &str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, name, detail.into(), mend.into())
    }

    /// Broken.
    pub(super) fn fail(name: &str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, name, detail.into(), mend.into())
    }

    fn new(verdict: Verdict, name: &str, detail: String, mend: String) -> Self {
        Self {
            verdict,
            name: name.to_owned(),
            detail,
            mend,
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({"id": self.name, "result": self.verdict.as_str(), "detail": self.detail, "mend": self.mend})
    }
}

/// The worst of them.
pub(super) fn worst(checks: &[Check]) -> Verdict {
    let verdicts = checks.iter().map(|check| check.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}
