//! The support bundle: what somebody else needs to see what is wrong, and nothing that he could use. Everything in it is
//! either chosen member by member or redacted; programs' own output, environments and files with secrets are never read
//! into it.

use std::{
    io::{self, Write},
    path::Path,
};

use dotmac_runtime::disk;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::redact::Redactor;
use crate::{
    cli::{contexts::Contexts, failure::Failure, find::Target, logs, output::bytes},
    local::{layout::Layout, member::Member},
};

/// Lines of each process's log.
const LOG_LINES: usize = 5_000;
/// Members of a deployment that are its own state: nothing that a customer wrote.
const DEPLOYMENT: [&str; 18] = [
    "id",
    "tenant_id",
    "region",
    "agent",
    "status",
    "resource_tier",
    "license_tier",
    "replicas",
    "max_replicas",
    "pod_count",
    "ready_pods",
    "health_status",
    "generation",
    "revision",
    "created_at",
    "deployed_at",
    "last_updated",
    "delete_after",
];
/// What the machine tells of itself.
const MACHINE: [&str; 4] = [
    "/proc/version",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/self/limits",
];
const README: &str = "A bundle of `dotmac doctor`: what was checked, the cluster's own view, and the logs of a local fleet.\n\
    Tokens, keys, credentials, sealed data and environments are not in it; whatever looked like one reads [redacted].\n";

/// A bundle that is being put together.
pub(super) struct Bundle {
    redactor: Redactor,
    files: Vec<(String, String)>,
}

impl Bundle {
    /// An empty one that knows the secrets of this machine.
    pub(super) fn new(target: Option<&Target>, layout: Option<&Layout>) -> Self {
        let mut redactor = Redactor::default();
        if let Some(token) = target.and_then(|target| target.token().ok()) {
            redactor.know(&token);
        }
        if let Some(contexts) = Contexts::path()
            .ok()
            .and_then(|path| Contexts::read(&path).ok())
        {
            for token in contexts
                .contexts
                .values()
                .filter_map(|saved| saved.token.as_ref())
            {
                redactor.know(token);
            }
        }
        for file in layout.map(secret_files).unwrap_or_default() {
            if let Ok(secret) = std::fs::read(&file) {
                redactor.know(&String::from_utf8_lossy(&secret));
                redactor.know(&hex::encode(&secret));
            }
        }
        let files = vec![("README.txt".to_owned(), README.to_owned())];
        Self { redactor, files }
    }

    /// Adds what programs read.
    pub(super) fn json(&mut self, name: &str, value: &Value) {
        let text = format!("{:#}\n", self.redactor.value(value));
        self.files.push((name.to_owned(), text));
    }

    /// Adds deployments, of each only what is the cluster's own.
    pub(super) fn deployments(&mut self, deployments: &[Value]) {
        let chosen = |one: &Value| {
            let members = DEPLOYMENT.iter().filter(|name| !one[**name].is_null());
            let mut chosen: Value = members
                .map(|name| ((*name).to_owned(), one[*name].clone()))
                .collect();
            if one["waiting"].is_object() && chosen.is_object() {
                chosen["waiting"] =
                    json!({"since": one["waiting"]["since"], "reason": one["waiting"]["reason"]});
            }
            chosen
        };
        let items: Vec<Value> = deployments.iter().map(chosen).collect();
        self.json("deployments.json", &json!({ "items": items }));
    }

    /// Adds what the machine tells of itself, and names (never values) of the variables that steer this program.
    pub(super) fn machine(&mut self, variables: impl Iterator<Item = String>) {
        for file in MACHINE {
            if let Ok(text) = std::fs::read_to_string(file) {
                let name = format!(
                    "machine/{}.txt",
                    file.trim_start_matches("/proc/").replace('/', "-")
                );
                self.files.push((name, self.redactor.lines(&text)));
            }
        }
        let mut names: Vec<String> = variables
            .filter(|name| name.starts_with("DOTMAC_"))
            .collect();
        names.sort();
        self.json("machine/variables.json", &json!({ "set": names }));
    }

    /// Adds the logs of the fleet's own processes; what instances write stays where it is.
    pub(super) fn logs(&mut self, layout: &Layout) {
        for member in Member::all(layout) {
            for (name, path) in [("log", member.log()), ("crash", member.crash_log())] {
                if let Ok((text, 1..)) = logs::tail(&path, LOG_LINES) {
                    let name = format!("logs/{}.{name}", member.name);
                    self.files.push((name, self.redactor.lines(&text)));
                }
            }
        }
    }

    /// Writes it, readable for its owner alone, and gives a line for each file in it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(self, path: &Path, at_s: u64) -> Result<Vec<String>, Failure> {
        let packed = self
            .pack(at_s)
            .map_err(|cause| Failure::io("pack", path, &cause))?;
        disk::write_atomic(path, &packed, 0o600)
            .map_err(|cause| Failure::io("write", path, &cause))?;
        let lines = self
            .files
            .iter()
            .map(|(name, text)| format!("{:>10}  {name}", bytes(text.len() as u64)));
        Ok(lines.collect())
    }

    fn pack(&self, at_s: u64) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, text) in &self.files {
            let mut header = Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(at_s);
            archive.append_data(
                &mut header,
                format!("dotmac-doctor/{name}"),
                text.as_bytes(),
            )?;
        }
        let mut packed = archive.into_inner()?;
        packed.flush()?;
        packed.finish()
    }
}

/// Files of a fleet that hold secrets.
fn secret_files(layout: &Layout) -> Vec<std::path::PathBuf> {
    let mut files = vec![
        layout.admin_token(),
        layout.root_key(),
        layout.approver_key(),
    ];
    files.extend(Member::all(layout).iter().map(Member::join_token));
    files
}

#[cfg(test)]
mod tests;
