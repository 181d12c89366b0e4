//! What the references of a manifest stand for, for one slot. Secrets go into variables only, never into arguments,
//! which everybody on the host can read.

use std::collections::{BTreeMap, BTreeSet};

use dotmac_protocol::{
    ids::PartName,
    release::{Component, Manifest},
    trace::TraceContext,
    unit::Instance,
};

use super::UnitFiles;
use crate::{
    driver::{SlotName, StartError},
    limits::Caps,
    unit::PlatformEnvironment,
};

/// Everything that a slot's references may stand for.
#[allow(
    missing_debug_implementations,
    reason = "it holds secrets, which must not be printable"
)]
pub struct Rendering<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// Its release.
    pub manifest: &'a Manifest,
    /// The slot.
    pub slot: &'a SlotName,
    /// Its component.
    pub component: &'a Component,
    /// Its ports.
    pub ports: &'a BTreeMap<PartName, u16>,
    /// Its unit's files.
    pub files: &'a UnitFiles,
    /// What it gets from its platform.
    pub platform: &'a PlatformEnvironment,
    /// What it may use.
    pub caps: Caps,
    /// The trace that its start belongs to: `TRACEPARENT`, unless the manifest sets that itself. No process is replaced
    /// because of it.
    pub trace: Option<TraceContext>,
}

/// What a reference stands for.
enum Value {
    Open(String),
    Secret(String),
    /// A credential that the request did not give.
    Absent,
}

impl Rendering<'_> {
    /// The variables of the manifest and those that the platform itself sets.
    ///
    /// # Errors
    /// When a reference stands for nothing, or the instance would run without its identity.
    pub fn environment(&self) -> Result<BTreeMap<String, String>, StartError> {
        let mut environment = BTreeMap::new();
        for (name, text) in &self.component.env {
            if let Some(value) = self.variable(text)? {
                environment.insert(name.clone(), value);
            }
        }
        let own = [
            ("PLATFORM_URL", self.platform.platform_url.as_str()),
            ("TENANT_ID", self.instance.tenant.as_str()),
            ("ISP_LICENSE_KEY", &self.platform.license_key),
            ("PLATFORM_SERVICE_TOKEN", &self.platform.service_token),
        ];
        for (name, value) in own {
            if value.is_empty() {
                return Err(StartError::Identity(name));
            }
            environment.insert(name.to_owned(), value.to_owned());
        }
        if let Some(trace) = self.trace {
            let variable = environment.entry("TRACEPARENT".to_owned());
            variable.or_insert_with(|| trace.to_string());
        }
        Ok(environment)
    }

    /// The program's arguments, without its name.
    ///
    /// # Errors
    /// When a reference stands for nothing or for a secret.
    pub fn arguments(&self) -> Result<Vec<String>, StartError> {
        let command = self.component.run.command().unwrap_or_default();
        command
            .iter()
            .skip(1)
            .map(|text| self.argument(text))
            .collect()
    }

    /// One argument, or the program's name.
    ///
    /// # Errors
    /// As [`Rendering::arguments`].
    pub fn argument(&self, text: &str) -> Result<String, StartError> {
        self.expand(text, |reference, value| match value {
            Value::Open(value) => Ok(value),
            Value::Absent => Ok(String::new()),
            Value::Secret(_) => Err(StartError::SecretArgument {
                component: self.slot.component.clone(),
                reference: reference.to_owned(),
            }),
        })
    }

    /// `None` when the whole value is a credential that does not exist: the variable is then not set.
    fn variable(&self, text: &str) -> Result<Option<String>, StartError> {
        let only = text
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'));
        if let Some(reference) = only
            && matches!(self.value(reference), Some(Value::Absent))
        {
            return Ok(None);
        }
        let expanded = self.expand(text, |_, value| match value {
            Value::Open(value) | Value::Secret(value) => Ok(value),
            Value::Absent => Ok(String::new()),
        });
        expanded.map(Some)
    }

    fn expand(
        &self,
        text: &str,
        take: impl Fn(&str, Value) -> Result<String, StartError>,
    ) -> Result<String, StartError> {
        let missing = |reference: &str| StartError::Reference {
            component: self.slot.component.clone(),
            reference: reference.chars().take(80).collect(),
        };
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            let (reference, after) = behind.split_once('}').ok_or_else(|| missing(behind))?;
            let value = self.value(reference).ok_or_else(|| missing(reference))?;
            expanded.push_str(before);
            expanded.push_str(&take(reference, value)?);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn value(&self, reference: &str) -> Option<Value> {
        let open = |text: &dyn ToString| Some(Value::Open(text.to_string()));
        let instance = self.instance;
        match reference {
            "tenant.id" => open(&instance.tenant),
            "tenant.name" => open(&instance.tenant_name),
            "deployment.id" => open(&instance.deployment),
            "environment" => open(&instance.environment),
            "region" => open(&instance.region),
            "release.version" => open(&self.manifest.version),
            "limits.memory_bytes" => open(&self.caps.memory_limit_bytes),
            "platform.url" => open(&self.platform.platform_url),
            "license.key" => Some(Value::Secret(self.platform.license_key.clone())),
            "platform.token" => Some(Value::Secret(self.platform.service_token.clone())),
            "database.url" | "redis.url" => {
                let credential = self.platform.credentials.get(reference);
                Some(credential.map_or(Value::Absent, |text| Value::Secret(text.clone())))
            }
            other => self.part(other),
        }
    }

    fn part(&self, reference: &str) -> Option<Value> {
        let (kind, name) = reference.split_once('.')?;
        let name: PartName = name.parse().ok()?;
        match kind {
            "port" => self
                .ports
                .get(&name)
                .map(|port| Value::Open(port.to_string())),
            "volume" if self.component.volumes.contains(&name) => {
                let path = self.files.volume(self.slot, &name);
                Some(Value::Open(path.to_string_lossy().into_owned()))
            }
            "secret" => Some(Value::Secret(self.platform.secret(&name))),
            _ => None,
        }
    }
}

/// Takes secrets out of what an instance wrote, before any of it is recorded. It has no `Debug`.
#[derive(Default)]
#[allow(
    missing_debug_implementations,
    reason = "it holds secrets, which must not be printable"
)]
pub struct Redaction {
    secrets: BTreeSet<String>,
    learned: bool,
}

impl Redaction {
    /// Learns the secrets of a unit. Those of earlier orders stay known.
    pub fn learn(&mut self, platform: &PlatformEnvironment, manifest: &Manifest) {
        self.learned = true;
        let credentials = platform.credentials.values();
        for text in credentials.chain([&platform.license_key, &platform.service_token]) {
            self.add(text);
        }
        for value in manifest
            .components
            .values()
            .flat_map(|component| component.env.values())
        {
            for name in dotmac_protocol::release::references(value).unwrap_or_default() {
                if let Some(Ok(name)) = name.strip_prefix("secret.").map(str::parse) {
                    self.add(&platform.secret(&name));
                }
            }
        }
    }

    fn add(&mut self, text: &str) {
        // Of an address with a password the password alone too: programs like to print addresses without it.
        let password = text
            .split_once("://")
            .and_then(|(_, rest)| rest.rsplit_once('@'))
            .and_then(|(user, _)| user.split_once(':'))
            .map(|(_, password)| password);
        for secret in [Some(text), password].into_iter().flatten() {
            if secret.len() >= 4 {
                self.secrets.insert(secret.to_owned());
            }
        }
    }

    /// What an instance wrote, without secrets; nothing of it while they are not known.
    #[must_use]
    pub fn clean_output(&self, text: &str) -> String {
        if self.learned {
            return self.clean(text);
        }
        "(withheld: the secrets to take out of it are not known)".to_owned()
    }

    /// The text without secrets.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        // Longer ones first, so that no rest of an address is left.
        let mut secrets: Vec<&String> = self.secrets.iter().collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "[secret]")
        })
    }
}
