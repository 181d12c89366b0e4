//! The release manifest: what an instance consists of, for every driver. A manifest is data; it contains no secrets.
//!
//! The JSON Schema that customers write against is `config/release.schema.json`; this module checks the same rules
//! and the references that a schema cannot express.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Digest,
    ids::{PartName, ReleaseName, ReleaseVersion},
};

mod check;

use check::error;
pub use check::references;

/// Bytes of a manifest at most, as canonical JSON.
pub const MANIFEST_BYTES_MAX: usize = 128 * 1024;
/// Components per release at most.
pub const COMPONENTS_MAX: usize = 16;

/// A named, immutable version of what an instance consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The line of releases it belongs to.
    pub name: ReleaseName,
    /// Its version; a deployment's `image_tag` names it.
    pub version: ReleaseVersion,
    /// Channel whose default it becomes when it is added, such as `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<PartName>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What runs, by name.
    pub components: BTreeMap<PartName, Component>,
}

/// One part of an instance: a process tree or a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Whether it keeps running.
    #[serde(default)]
    pub kind: ComponentKind,
    /// What to run.
    pub run: Run,
    /// Components that must be ready (services) or done (tasks) before this one starts.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<PartName>,
    /// Ports it listens on; the driver chooses numbers and hands them over by `${port.NAME}`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<PartName>,
    /// Directories that survive restarts and upgrades; their paths are `${volume.NAME}`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<PartName>,
    /// Environment variables; values may hold references.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How its health is found out.
    #[serde(default)]
    pub probes: Probes,
    /// Its part of the tier's limits; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Share>,
    /// How it is stopped.
    #[serde(default)]
    pub stop: Stop,
}

/// Whether a component keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// It keeps running and is restarted when it ends.
    #[default]
    Service,
    /// It runs to its end once for everything it is started from (release, tier, credentials, ordered restart), such as a
    /// database migration; exit status 0 is success.
    Task,
}

/// What a component runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Run {
    /// A program on the host and its arguments; for the process driver. Arguments may hold references.
    Command(Vec<String>),
    /// A program whose file must have this digest.
    Pinned {
        /// The program and its arguments.
        command: Vec<String>,
        /// `sha256:` digest of the program's file.
        digest: String,
    },
    /// An image by digest, `name@sha256:…`; for drivers that run containers.
    Image(String),
}

/// How a component's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// It restarts the component when it fails `failures` times in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Probe>,
    /// It decides whether the component counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Probe>,
}

/// One question that is asked again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The HTTP request; any 2xx answer is a success.
    pub http: HttpProbe,
    /// Milliseconds between questions.
    #[serde(default = "default_period_ms")]
    pub period_ms: u32,
    /// Milliseconds until a missing answer is a failure.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
    /// Failures in a row that count.
    #[serde(default = "default_failures")]
    pub failures: u16,
    /// Milliseconds after the start in which failures do not count.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u32,
}

/// An HTTP GET on the loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// One of the component's ports.
    pub port: PartName,
    /// Absolute path.
    pub path: String,
    /// A member of the JSON answer that must be `true` (an instance answers 200 even when it is not ready).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_true: Option<String>,
}

/// A component's part of its tier, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Percent of the tier's cpu, 1 to 100.
    pub cpu_percent: u8,
    /// Percent of the tier's memory, 1 to 100.
    pub memory_percent: u8,
}

/// How a component is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// The signal that asks it to end.
    pub signal: StopSignal,
    /// Milliseconds until it is killed.
    pub patience_ms: u32,
}

/// Signals that ask a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopSignal {
    /// Terminate.
    #[serde(rename = "SIGTERM")]
    Term,
    /// Interrupt.
    #[serde(rename = "SIGINT")]
    Int,
    /// Quit.
    #[serde(rename = "SIGQUIT")]
    Quit,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: StopSignal::Term,
            patience_ms: 10_000,
        }
    }
}

fn default_period_ms() -> u32 {
    1_000
}

fn default_timeout_ms() -> u32 {
    1_000
}

fn default_failures() -> u16 {
    3
}

fn default_grace_ms() -> u32 {
    10_000
}

/// What is wrong with a manifest; `field` is a path such as `components.web.ports`.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{field}: {found:?} is not allowed; {allowed}")]
pub struct ManifestError {
    /// Where.
    pub field: String,
    /// The value found, cut to 80 characters.
    pub found: String,
    /// What would be allowed.
    pub allowed: String,
}

/// Names that a reference `${…}` may use besides `port.NAME`, `volume.NAME` and `secret.NAME`.
pub const REFERENCES: &[&str] = &[
    "tenant.id",
    "tenant.name",
    "deployment.id",
    "environment",
    "region",
    "release.version",
    "license.key",
    "platform.url",
    "platform.token",
    "database.url",
    "redis.url",
    "limits.memory_bytes",
];

/// Variables that the platform itself sets (contract: what an instance expects); a manifest cannot replace them.
pub const RESERVED_ENV: &[&str] = &[
    "PLATFORM_URL",
    "TENANT_ID",
    "ISP_LICENSE_KEY",
    "PLATFORM_SERVICE_TOKEN",
];

impl Manifest {
    /// Parses and checks a manifest.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() > MANIFEST_BYTES_MAX {
            return Err(error(
                "manifest",
                json.len(),
                format!("at most {MANIFEST_BYTES_MAX} bytes"),
            ));
        }
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|cause| error("manifest", cause, "JSON that fits the release schema"))?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Canonical JSON: members in one order, no spaces. Its digest is the release's content digest.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has text keys only")
    }

    /// The content digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// Components in an order in which each comes behind those it is `after`.
    ///
    /// # Errors
    /// When the order is circular.
    pub fn start_order(&self) -> Result<Vec<&PartName>, ManifestError> {
        let mut order: Vec<&PartName> = Vec::new();
        while order.len() < self.components.len() {
            let next = self.components.iter().find(|(name, component)| {
                !order.contains(name) && component.after.iter().all(|other| order.contains(&other))
            });
            let Some((name, _)) = next else {
                return Err(error(
                    "components",
                    "a circle of `after`",
                    "an order without a circle",
                ));
            };
            order.push(name);
        }
        Ok(order)
    }
}

impl Run {
    /// The program and its arguments, where this is a command.
    #[must_use]
    pub fn command(&self) -> Option<&[String]> {
        match self {
            Self::Command(command) | Self::Pinned { command, .. } => Some(command),
            Self::Image(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Manifest, references};

    const WEB: &str = r#"{
        "name": "demo-isp", "version": "1.0.0",
        "components": {
            "migration": {"kind": "task", "run": {"command": ["true"]}},
            "web": {
                "run": {"command": ["demo-isp", "--port", "${port.http}"]},
                "after": ["migration"],
                "ports": ["http"],
                "env": {"ENVIRONMENT": "${environment}"},
                "probes": {"ready": {"http": {"port": "http", "path": "/health/ready", "json_true": "healthy"}}}
            }
        }
    }"#;

    #[test]
    fn a_manifest_keeps_its_digest_whatever_its_spacing() {
        let manifest = Manifest::parse(WEB.as_bytes()).unwrap();
        let again = Manifest::parse(&manifest.canonical()).unwrap();
        assert_eq!(manifest.digest(), again.digest());
        let order: Vec<_> = manifest
            .start_order()
            .unwrap()
            .iter()
            .map(|name| name.as_str())
            .collect();
        assert_eq!(order, ["migration", "web"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_field_and_value() {
        let cases = [
            (
                "${port.http}",
                "${port.https}",
                "components.web.run.command",
            ),
            (
                "${environment}",
                "${environmen}",
                "components.web.env.ENVIRONMENT",
            ),
            (
                "\"ENVIRONMENT\"",
                "\"TENANT_ID\"",
                "components.web.env.TENANT_ID",
            ),
            (
                "[\"migration\"]",
                "[\"migrations\"]",
                "components.web.after",
            ),
            (
                "/health/ready",
                "health",
                "components.web.probes.ready.http.path",
            ),
            (
                "\"port\": \"http\"",
                "\"port\": \"smtp\"",
                "components.web.probes.ready.http.port",
            ),
            ("\"kind\": \"task\"", "\"after\": [\"web\"]", "components"),
        ];
        for (right, wrong, field) in cases {
            let found = Manifest::parse(WEB.replace(right, wrong).as_bytes()).unwrap_err();
            assert_eq!(found.field, field, "{found}");
        }
        assert!(Manifest::parse(WEB.replace("\"ports\"", "\"prots\"").as_bytes()).is_err());
    }

    #[test]
    fn references_are_found_and_unclosed_ones_reported() {
        assert_eq!(references("a${x.y}b${z}"), Ok(vec!["x.y", "z"]));
        assert_eq!(references("a${x"), Err("${x"));
    }
}
