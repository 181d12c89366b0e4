//! Runs the operator's command line, as a person would.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::pty::{self, OpenptFlags};
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
    fn of(command: String, status: ExitStatus, out: &[u8], err: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            command,
            code: status.code().unwrap_or(-1),
            out: text(out),
            err: text(err),
        }
    }

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
    let (command, mut prepared) = prepare(program, arguments, variables);
    prepared.stdin(Stdio::null());
    let output = ended(&command, prepared.output()).await?;
    Ok(Ran::of(
        command,
        output.status,
        &output.stdout,
        &output.stderr,
    ))
}

/// Like [`run`], with somebody at a terminal who types this; what the terminal shows is what it gives as standard error.
///
/// # Errors
/// When there is no terminal, or it cannot be started or does not end.
pub async fn run_at_terminal(
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, String)],
    typed: &str,
) -> Result<Ran> {
    run_when_asked(program, arguments, variables, ("", typed)).await
}

/// Like [`run_at_terminal`], with somebody who types only when the terminal shows a question.
///
/// # Errors
/// When there is no terminal, or it cannot be started or does not end.
pub async fn run_when_asked(
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, String)],
    (question, typed): (&str, &str),
) -> Result<Ran> {
    let (command, mut prepared) = prepare(program, arguments, variables);
    let (mut screen, terminal) = terminal()?;
    let (question, typed) = (question.as_bytes().to_owned(), typed.as_bytes().to_owned());
    let mut is_typed = question.is_empty();
    if is_typed {
        screen.write_all(&typed)?;
    }
    prepared
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(terminal.try_clone()?)
        .stderr(terminal)
        .stdout(Stdio::piped());
    let child = prepared.spawn();
    // The terminal ends with its last holder: here it is closed, so that only the program holds it.
    drop(prepared);
    let child = child.with_context(|| format!("`{command}` cannot be started"))?;
    let shown = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        let mut part = [0; 4096];
        // A terminal that nobody holds any more ends with an error.
        while let Ok(count @ 1..) = screen.read(&mut part) {
            shown.extend_from_slice(&part[..count]);
            let is_asked = || shown.windows(question.len()).any(|part| part == question);
            if !is_typed && is_asked() {
                is_typed = screen.write_all(&typed).is_ok();
            }
        }
        shown
    });
    let output = ended(&command, child.wait_with_output()).await?;
    let shown = shown.await?;
    Ok(Ran::of(command, output.status, &output.stdout, &shown))
}

/// A terminal: the side of the person and the side of the program.
fn terminal() -> Result<(File, File)> {
    let screen = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    pty::grantpt(&screen)?;
    pty::unlockpt(&screen)?;
    let name = pty::ptsname(&screen, Vec::new())?;
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str()?)?;
    Ok((File::from(screen), terminal))
}

async fn ended(
    command: &str,
    run: impl Future<Output = std::io::Result<Output>>,
) -> Result<Output> {
    tokio::time::timeout(PATIENCE, run)
        .await
        .with_context(|| format!("`{command}` did not end within {PATIENCE:?}"))?
        .with_context(|| format!("`{command}` cannot be started"))
}

fn prepare(program: &Path, arguments: &[&str], variables: &[(&str, String)]) -> (String, Command) {
    let command = format!("{} {}", program.display(), arguments.join(" "));
    let mut prepared = Command::new(program);
    prepared.args(arguments).kill_on_drop(true);
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
    (command, prepared)
}
