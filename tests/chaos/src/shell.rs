//! Commands of the system that faults are made of: mount, ip, fsfreeze, cc. A command that fails says what it wrote.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a command line whose words have no spaces in them; gives what it wrote.
///
/// # Errors
/// When it fails, with what it wrote.
pub(crate) async fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.with_context(|| format!("{line}: not within {PATIENCE:?}"))?;
    let output = output.with_context(|| line.to_owned())?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", told.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs commands in order.
///
/// # Errors
/// At the first that fails.
pub(crate) async fn run_all(lines: &[String]) -> Result<()> {
    for line in lines {
        run(line).await?;
    }
    Ok(())
}
