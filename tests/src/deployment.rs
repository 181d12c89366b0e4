//! What the API says of one deployment, read.

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::ProcessIdentity;
use serde_json::Value;

use crate::processes;

/// A member that is text; empty when it is not.
#[must_use]
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The id.
///
/// # Errors
/// When there is none.
pub fn id(deployment: &Value) -> Result<String> {
    let id = text(deployment, "id");
    ensure!(!id.is_empty(), "a deployment without an id: {deployment}");
    Ok(id.to_owned())
}

/// The one process of its one component.
///
/// # Errors
/// When it is not exactly one, or does not run.
pub fn process(deployment: &Value) -> Result<ProcessIdentity> {
    let components = deployment["components"]
        .as_array()
        .context("it shows no components")?;
    let pids: Vec<u64> = components
        .iter()
        .flat_map(|component| component["pids"].as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .collect();
    ensure!(pids.len() == 1, "not exactly one process: {pids:?}");
    processes::of(u32::try_from(pids[0])?)
}

/// The address on which the instance answers.
///
/// # Errors
/// When it has none.
pub fn address(deployment: &Value) -> Result<String> {
    let address = deployment["components"][0]["address"].as_str();
    Ok(address
        .with_context(|| format!("it shows no address: {deployment}"))?
        .to_owned())
}

/// How often its component was restarted.
#[must_use]
pub fn restarts(deployment: &Value) -> u64 {
    deployment["components"][0]["restarts"]
        .as_u64()
        .unwrap_or_default()
}

/// The stations of its order, in order.
#[must_use]
pub fn stations(deployment: &Value) -> Vec<String> {
    let journey = deployment["journey"].as_array().into_iter().flatten();
    journey.map(|hop| text(hop, "station").to_owned()).collect()
}

/// What it waits for; empty when it waits for nothing.
#[must_use]
pub fn waiting(deployment: &Value) -> &str {
    text(&deployment["waiting"], "reason")
}
