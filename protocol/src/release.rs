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
    /// It runs to its end once per generation, such as a database migration; exit status 0 is success.
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

    fn validate(&self) -> Result<(), ManifestError> {
        let count = self.components.len();
        if count == 0 || count > COMPONENTS_MAX {
            return Err(error(
                "components",
                count,
                format!("1 to {COMPONENTS_MAX} components"),
            ));
        }
        if self.description.len() > 500 {
            return Err(error("description", &self.description, "at most 500 bytes"));
        }
        for (name, component) in &self.components {
            component.validate(&format!("components.{name}"), self)?;
        }
        self.start_order().map(|_| ())
    }
}

impl Component {
    fn validate(&self, at: &str, manifest: &Manifest) -> Result<(), ManifestError> {
        self.run.validate(at, self)?;
        for other in &self.after {
            if !manifest.components.contains_key(other) {
                return Err(error(&format!("{at}.after"), other, "names of components"));
            }
        }
        if self.ports.len() > 16 || self.volumes.len() > 16 || self.env.len() > 256 {
            return Err(error(
                at,
                "too many entries",
                "16 ports, 16 volumes and 256 variables at most",
            ));
        }
        for (name, value) in &self.env {
            let field = format!("{at}.env.{name}");
            let sound = !name.is_empty()
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !sound || RESERVED_ENV.contains(&name.as_str()) {
                let allowed = format!("letters, digits and '_', none of {RESERVED_ENV:?}");
                return Err(error(&field, name, allowed));
            }
            self.check_references(&field, value)?;
        }
        for (kind, probe) in [("live", &self.probes.live), ("ready", &self.probes.ready)] {
            if let Some(probe) = probe {
                probe.validate(&format!("{at}.probes.{kind}"), self)?;
            }
        }
        if let Some(share) = &self.resources {
            for (name, percent) in [("cpu", share.cpu_percent), ("memory", share.memory_percent)] {
                if percent == 0 || percent > 100 {
                    let field = format!("{at}.resources.{name}_percent");
                    return Err(error(&field, percent, "1 to 100"));
                }
            }
        }
        if self.stop.patience_ms > 600_000 {
            let field = format!("{at}.stop.patience_ms");
            return Err(error(&field, self.stop.patience_ms, "at most 600000"));
        }
        Ok(())
    }

    fn check_references(&self, field: &str, value: &str) -> Result<(), ManifestError> {
        if value.len() > 4096 || value.contains('\0') {
            return Err(error(field, value, "at most 4096 bytes, none of them zero"));
        }
        let names = references(value).map_err(|found| error(field, found, "`${` closed by `}`"))?;
        for name in names {
            let known = match name.split_once('.') {
                Some(("port", port)) => self.ports.iter().any(|one| one.as_str() == port),
                Some(("volume", volume)) => self.volumes.iter().any(|one| one.as_str() == volume),
                Some(("secret", secret)) => secret.parse::<PartName>().is_ok(),
                _ => REFERENCES.contains(&name),
            };
            if !known {
                let allowed = format!(
                    "port.NAME or volume.NAME of this component, secret.NAME, or one of {REFERENCES:?}"
                );
                return Err(error(field, name, allowed));
            }
        }
        Ok(())
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

    fn validate(&self, at: &str, component: &Component) -> Result<(), ManifestError> {
        match self {
            Self::Image(image) => {
                let digest = image
                    .split_once('@')
                    .map(|(_, digest)| digest.parse::<Digest>());
                if !matches!(digest, Some(Ok(_))) || image.len() > 512 {
                    let field = format!("{at}.run.image");
                    return Err(error(
                        &field,
                        image,
                        "name@sha256:… with 64 hexadecimal digits",
                    ));
                }
            }
            Self::Command(command) | Self::Pinned { command, .. } => {
                let field = format!("{at}.run.command");
                if command.is_empty() || command.len() > 128 || command[0].is_empty() {
                    return Err(error(
                        &field,
                        command.len(),
                        "a program and at most 127 arguments",
                    ));
                }
                for argument in command {
                    component.check_references(&field, argument)?;
                }
                if let Self::Pinned { digest, .. } = self
                    && digest.parse::<Digest>().is_err()
                {
                    let field = format!("{at}.run.pinned.digest");
                    return Err(error(&field, digest, "sha256: and 64 hexadecimal digits"));
                }
            }
        }
        Ok(())
    }
}

impl Probe {
    fn validate(&self, at: &str, component: &Component) -> Result<(), ManifestError> {
        if !component.ports.contains(&self.http.port) {
            return Err(error(
                &format!("{at}.http.port"),
                &self.http.port,
                "a port of this component",
            ));
        }
        let path = &self.http.path;
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || path.len() > 512 || !printable {
            let allowed = "an absolute path of at most 512 printable ASCII characters";
            return Err(error(&format!("{at}.http.path"), path, allowed));
        }
        let numbers = [
            ("period_ms", u64::from(self.period_ms), 100, 3_600_000),
            ("timeout_ms", u64::from(self.timeout_ms), 10, 60_000),
            ("failures", u64::from(self.failures), 1, 100),
            ("grace_ms", u64::from(self.grace_ms), 0, 3_600_000),
        ];
        for (name, value, least, most) in numbers {
            if value < least || value > most {
                return Err(error(
                    &format!("{at}.{name}"),
                    value,
                    format!("{least} to {most}"),
                ));
            }
        }
        Ok(())
    }
}

/// The names inside `${…}` of a text; `Err` holds the rest behind a `${` that is never closed.
pub fn references(text: &str) -> Result<Vec<&str>, &str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let behind = &rest[start + 2..];
        let end = behind.find('}').ok_or(&rest[start..])?;
        names.push(&behind[..end]);
        rest = &behind[end + 1..];
    }
    Ok(names)
}

fn error(field: &str, found: impl ToString, allowed: impl Into<String>) -> ManifestError {
    let found = found.to_string().chars().take(200).collect();
    ManifestError {
        field: field.to_owned(),
        found,
        allowed: allowed.into(),
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
