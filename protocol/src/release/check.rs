//! The rules of a manifest that a type cannot hold: limits, references that exist, names that are free.

use super::{
    COMPONENTS_MAX, Component, Manifest, ManifestError, Probe, REFERENCES, RESERVED_ENV, Run,
};
use crate::{digest::Digest, ids::PartName};

impl Manifest {
    pub(super) fn validate(&self) -> Result<(), ManifestError> {
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

pub(super) fn error(
    field: &str,
    found: impl ToString,
    allowed: impl Into<String>,
) -> ManifestError {
    let found = found.to_string().chars().take(200).collect();
    ManifestError {
        field: field.to_owned(),
        found,
        allowed: allowed.into(),
    }
}
