//! What the platform gives each instance: a licence key, an HS256 secret and named secrets, made once per unit, kept on
//! this agent's disk (0600) and nowhere else; and the credentials of its order, opened with the agent's seal key.
//!
//! No secret leaves this module but towards the unit it belongs to. The log sees unit names alone.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_protocol::{digest::Digest, ids::UnitId, unit::Instance};
use dotmac_runtime::{disk, entropy::Entropy, keyfile, seal::SealKey};
use serde::{Deserialize, Serialize};

use crate::unit::{Order, Platform, PlatformEnvironment, PlatformError, Wanted};

/// The context under which an order's credentials are sealed.
pub const CREDENTIAL_CONTEXT: &str = "dotmac/credential/v1";

/// The secrets of all units of this agent.
#[allow(missing_debug_implementations, reason = "it holds secrets")]
pub struct PlatformKeys {
    directory: PathBuf,
    platform_url: String,
    seal_key: SealKey,
    entropy: Entropy,
    units: Mutex<BTreeMap<UnitId, Arc<UnitSecrets>>>,
}

/// The secrets of one unit. Version 1 of its file, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_debug_implementations, reason = "it holds secrets")]
pub struct UnitSecrets {
    version: u8,
    /// `DM-` and 32 hexadecimal digits.
    license_key: String,
    /// The HS256 secret: 64 hexadecimal digits, used as text.
    service_token: String,
    /// Named secrets are derived from it; 64 hexadecimal digits.
    seed: String,
}

impl UnitSecrets {
    /// Whether this is the unit's licence key. Takes the same time wherever they differ.
    #[must_use]
    pub fn is_license_key(&self, key: &str) -> bool {
        digest(key) == digest(&self.license_key)
    }

    /// The licence key.
    #[must_use]
    pub fn license_key(&self) -> &str {
        &self.license_key
    }

    /// The secret that the unit signs its calls with.
    #[must_use]
    pub fn service_token(&self) -> &str {
        &self.service_token
    }

    /// What the unit gets for a valid licence, and sends with its heartbeats. The same after a restart of the agent.
    #[must_use]
    pub fn activation_token(&self) -> String {
        let token = Digest::tagged("dotmac/activation/v1", self.seed.as_bytes());
        format!("act-{}", &token.hex()[..48])
    }

    /// Whether this is the unit's activation token. Takes the same time wherever they differ.
    #[must_use]
    pub fn is_activation_token(&self, token: &str) -> bool {
        digest(token) == digest(&self.activation_token())
    }

    fn generate(entropy: &Entropy) -> Self {
        Self {
            version: 1,
            license_key: format!("DM-{}", entropy.hex(16)),
            service_token: entropy.hex(32),
            seed: entropy.hex(32),
        }
    }
}

impl PlatformKeys {
    /// The secrets kept in a directory. `platform_url` is where instances reach this agent.
    ///
    /// # Errors
    /// When the directory cannot be made private.
    pub fn open(
        directory: &Path,
        platform_url: String,
        seal_key: SealKey,
        entropy: Entropy,
    ) -> io::Result<Self> {
        disk::create_private_dir(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            platform_url,
            seal_key,
            entropy,
            units: Mutex::new(BTreeMap::new()),
        })
    }

    /// A unit's secrets; made, and on disk, when there were none.
    ///
    /// # Errors
    /// When the disk fails or the file is damaged. Nothing is made anew in place of a damaged file.
    pub fn secrets(&self, unit: &UnitId) -> Result<Arc<UnitSecrets>, PlatformError> {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secrets) = units.get(unit) {
            return Ok(Arc::clone(secrets));
        }
        let secrets = match self.read(unit)? {
            Some(secrets) => secrets,
            None => self.make(unit)?,
        };
        let secrets = Arc::new(secrets);
        units.insert(unit.clone(), Arc::clone(&secrets));
        Ok(secrets)
    }

    /// Destroys the secrets of a unit that was removed.
    pub fn forget(&self, unit: &UnitId) {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.remove(unit);
        match std::fs::remove_file(self.file_of(unit)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%unit, %error, "the secrets of a removed unit stay on disk");
            }
            _ => {}
        }
    }

    /// The credentials of an order, by name, opened.
    ///
    /// # Errors
    /// When one does not open with this agent's key.
    pub fn credentials(
        &self,
        unit: &UnitId,
        instance: &Instance,
    ) -> Result<BTreeMap<String, String>, PlatformError> {
        let open = |credential: &dotmac_protocol::unit::SealedCredential| {
            let failed = |detail: String| PlatformError::Credential {
                unit: unit.clone(),
                name: credential.name.clone(),
                detail,
            };
            let clear = self
                .seal_key
                .open(CREDENTIAL_CONTEXT, &credential.sealed)
                .map_err(|error| failed(error.to_string()))?;
            let clear = String::from_utf8(clear.to_vec())
                .map_err(|_| failed("it is not text".to_owned()))?;
            Ok((credential.name.clone(), clear))
        };
        instance.credentials.iter().map(open).collect()
    }

    fn read(&self, unit: &UnitId) -> Result<Option<UnitSecrets>, PlatformError> {
        let path = self.file_of(unit);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |detail: String| PlatformError::Damaged {
            unit: unit.clone(),
            detail,
        };
        let bytes = keyfile::read_private(&path).map_err(|error| damaged(error.to_string()))?;
        let secrets: UnitSecrets = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("line {}", error.line())))?;
        if secrets.version == 1 && seed(&secrets).is_some() {
            Ok(Some(secrets))
        } else {
            Err(damaged(format!("version {}", secrets.version)))
        }
    }

    fn make(&self, unit: &UnitId) -> Result<UnitSecrets, PlatformError> {
        let secrets = UnitSecrets::generate(&self.entropy);
        let bytes = serde_json::to_vec(&secrets).expect("secrets are text");
        disk::write_atomic(&self.file_of(unit), &bytes, 0o600).map_err(|source| {
            PlatformError::Disk {
                unit: unit.clone(),
                source,
            }
        })?;
        Ok(secrets)
    }

    fn file_of(&self, unit: &UnitId) -> PathBuf {
        let name = unit.as_str().replace('/', ".");
        self.directory.join(format!("{name}.json"))
    }
}

impl Platform for PlatformKeys {
    fn environment(&self, wanted: &Wanted) -> Result<PlatformEnvironment, PlatformError> {
        let unit = &wanted.unit;
        let Order::Keep(instance) = &wanted.order else {
            return Err(PlatformError::Removed { unit: unit.clone() });
        };
        let credentials = self.credentials(unit, instance)?;
        let secrets = self.secrets(unit)?;
        Ok(PlatformEnvironment {
            platform_url: self.platform_url.clone(),
            license_key: secrets.license_key.clone(),
            service_token: secrets.service_token.clone(),
            credentials,
            seed: seed(&secrets).expect("checked when it was read or made"),
        })
    }
}

fn seed(secrets: &UnitSecrets) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    hex::decode_to_slice(&secrets.seed, &mut seed)
        .ok()
        .map(|()| seed)
}

fn digest(text: &str) -> Digest {
    Digest::tagged("dotmac/compare/v1", text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

    use dotmac_protocol::{
        digest::Digest,
        ids::{Generation, Sequence},
        unit::SealedCredential,
    };
    use dotmac_runtime::{
        entropy::Entropy,
        seal::{SealKey, seal},
    };

    use super::{CREDENTIAL_CONTEXT, PlatformKeys};
    use crate::{
        fixture::{NOW, instance, tenant, unit},
        unit::{Order, Platform as _, PlatformError, Wanted},
    };

    fn keys(directory: &Path, seed: u64) -> PlatformKeys {
        let seal_key = SealKey::from_bytes(&[9; 32]);
        let url = "http://127.0.0.1:9310".to_owned();
        PlatformKeys::open(directory, url, seal_key, Entropy::seeded(seed)).unwrap()
    }

    fn wanted(order: Order) -> Wanted {
        Wanted {
            tenant: tenant("demo"),
            unit: unit("demo"),
            request: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            trace: None,
            generation: Generation(1),
            sequence: Sequence(1),
            leaf: Digest::ZERO,
            at: NOW,
            order,
        }
    }

    #[test]
    fn secrets_are_made_once_and_readable_by_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let order = wanted(Order::Keep(Arc::new(instance("demo"))));
        let first = keys(directory.path(), 1).environment(&order).unwrap();
        let again = keys(directory.path(), 2).environment(&order).unwrap();
        assert!(first.license_key.starts_with("DM-") && first.license_key.len() == 35);
        assert!(first.license_key == again.license_key);
        assert!(first.service_token == again.service_token && first.seed == again.seed);
        let other = keys(directory.path(), 3).secrets(&unit("other")).unwrap();
        assert!(other.service_token() != first.service_token);
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn credentials_open_with_the_agents_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let entropy = Entropy::seeded(4);
        let sealed_to = |key: &SealKey| {
            let mut instance = instance("demo");
            let clear = b"postgres://user:pass@db/isp";
            instance.credentials.push(SealedCredential {
                name: "database.url".into(),
                sealed: seal(&key.public(), CREDENTIAL_CONTEXT, clear, &entropy).unwrap(),
            });
            wanted(Order::Keep(Arc::new(instance)))
        };
        let keys = keys(directory.path(), 1);
        let mine = keys
            .environment(&sealed_to(&SealKey::from_bytes(&[9; 32])))
            .unwrap();
        assert_eq!(
            mine.credentials["database.url"],
            "postgres://user:pass@db/isp"
        );
        let foreign = keys.environment(&sealed_to(&SealKey::from_bytes(&[8; 32])));
        assert!(
            matches!(foreign, Err(PlatformError::Credential { name, .. }) if name == "database.url")
        );
    }

    #[test]
    fn a_removed_unit_gets_no_environment_and_its_secrets_are_destroyed() {
        let directory = tempfile::tempdir().unwrap();
        let keys = keys(directory.path(), 1);
        keys.secrets(&unit("demo")).unwrap();
        let removed = keys.environment(&wanted(Order::Remove));
        assert!(matches!(removed, Err(PlatformError::Removed { .. })));
        keys.forget(&unit("demo"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_nothing_is_made_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        keys(directory.path(), 1).secrets(&unit("demo")).unwrap();
        let file = directory
            .path()
            .join(format!("instance.{}.json", tenant("demo")));
        dotmac_runtime::disk::write_atomic(&file, b"{\"version\":1", 0o600).unwrap();
        let damaged = keys(directory.path(), 1).secrets(&unit("demo"));
        assert!(matches!(damaged, Err(PlatformError::Damaged { .. })));
        assert_eq!(std::fs::read(&file).unwrap(), b"{\"version\":1");
    }
}
