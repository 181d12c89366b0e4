//! The documented fields of logs, and whether a line keeps to them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Fields that every line has.
const EVERYWHERE: [&str; 4] = ["timestamp", "level", "target", "message"];

/// Name and type of each field, out of the table in docs/operations/logs.md.
#[must_use]
pub fn documented(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let fields = rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | ")?;
        let (kind, _) = rest.split_once(" |")?;
        Some((name.to_owned(), kind.to_owned()))
    });
    fields.collect()
}

/// Checks one line of a log.
///
/// # Errors
/// When it is no JSON object of documented fields with their types.
pub fn check(line: &str, documented: &BTreeMap<String, String>) -> Result<()> {
    let read: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let fields = read.as_object().with_context(|| line.to_owned())?;
    for name in EVERYWHERE {
        ensure!(fields.contains_key(name), "{name} is missing in {line}");
    }
    // Libraries have fields of their own.
    let is_ours = fields["target"]
        .as_str()
        .is_some_and(|target| target.starts_with("dotmac"));
    for (name, value) in fields.iter().filter(|_| is_ours) {
        let kind = match value {
            Value::String(_) => "text",
            Value::Number(_) => "number",
            Value::Bool(_) => "boolean",
            _ => "another type",
        };
        let expected = documented.get(name);
        let expected = expected.with_context(|| format!("{name} is not documented: {line}"))?;
        ensure!(expected == kind, "{name} is {kind}, not {expected}: {line}");
    }
    Ok(())
}
