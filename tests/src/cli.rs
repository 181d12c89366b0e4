//! Runs the operator's command line, as a person would.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::process::Command;

/// Longest run of a command that a story may start.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was run, for messages.
    pub command: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// The run itself, if it ended with 0.
    ///
    /// # Errors
    /// With everything it wrote.
    pub fn ok(self) -> Result<Self> {
        self.with_code(0)
    }

    /// The run itself, if it ended with this code.
    ///
    /// # Errors
    /// With everything it wrote.
    pub fn with_code(self, code: i32) -> Result<Self> {
        if self.code == code {
            return Ok(self);
        }
        let Self {
            command,
            code: found,
            out,
            err,
        } = self;
        bail!("`{command}` ended with {found}, not {code}\n{out}{err}")
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .with_context(|| format!("`{}` wrote no JSON: {}", self.command, self.out))
    }
}

/// Runs `program` with `arguments` and these variables; none of DOTMAC's own are inherited.
///
/// # Errors
/// When it cannot be started or does not end.
pub async fn run(program: &Path, arguments: &[&str], variables: &[(&str, String)]) -> Result<Ran> {
    let command = format!("{} {}", program.display(), arguments.join(" "));
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in [
        "DOTMAC_HOME",
        "DOTMAC_SERVER",
        "DOTMAC_TOKEN",
        "DOTMAC_TOKEN_FILE",
        "DOTMAC_PORT_BASE",
    ] {
        prepared.env_remove(name);
    }
    prepared.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = tokio::time::timeout(PATIENCE, prepared.output())
        .await
        .with_context(|| format!("`{command}` did not end within {PATIENCE:?}"))?
        .with_context(|| format!("`{command}` cannot be started"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran {
        command,
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}
