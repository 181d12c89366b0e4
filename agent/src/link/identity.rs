//! Who this agent is, on its disk: keys that it made itself and that never leave it, and the certificate it was given.
//! All files are readable by the owner alone; nothing here is ever sent or logged but public halves.

use std::{
    io,
    path::{Path, PathBuf},
};

use dotmac_protocol::{
    ids::{AgentId, IncarnationId},
    keys::PublicKey,
    time::{Timestamp, Window},
};
use dotmac_runtime::{
    disk,
    entropy::Entropy,
    keyfile::{self, KeyFileError},
    pki::{self, KeyPair, PkiError},
    seal::SealKey,
};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Addresses of controllers that are kept at most.
pub const CONTROLLERS_MAX: usize = 32;
/// Bytes of one address at most.
const ADDRESS_BYTES_MAX: usize = 300;

/// Keys of one life of an agent: made at its first start, the same until its disk is wiped.
#[allow(missing_debug_implementations, reason = "it holds secrets")]
pub struct Keys {
    /// Signs records and recovery requests.
    pub identity: SigningKey,
    /// Credentials are sealed to it.
    pub seal: SealKey,
    /// The TLS key of the enrolment: kept, so that a repeated enrolment asks for the same.
    pub enrolment: KeyPair,
    /// This life.
    pub incarnation: IncarnationId,
}

/// What an admitted agent has. A renewal replaces it whole.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The agent's name.
    pub agent: AgentId,
    /// The key of the certificate.
    pub key: KeyPair,
    /// The certificate, then its issuer's; DER.
    pub chain: Vec<Vec<u8>>,
    /// The agent's clock when it came. Certificates begin a little in the past; their life counts from here.
    pub obtained: Timestamp,
    /// Addresses of all controllers, as the last one told.
    pub controllers: Vec<String>,
}

/// Version 1 of the certificate's file, as JSON. Key and chain are one file, so that they always fit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateFile {
    version: u8,
    agent: AgentId,
    key: String,
    chain: Vec<String>,
    obtained: Timestamp,
    controllers: Vec<String>,
}

/// Where keys and certificate lie.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    directory: PathBuf,
}

/// Why an identity cannot be read or kept.
#[derive(Debug, Error)]
pub enum IdentityStoreError {
    /// The disk fails.
    #[error("identity file {} cannot be kept", file.display())]
    Disk {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file cannot be read, or others may read it too.
    #[error("identity file {} cannot be read", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: KeyFileError,
    },
    /// The file is not what was written.
    #[error("identity file {} is damaged", file.display())]
    Damaged { file: PathBuf },
}

impl Keys {
    /// The public half of the identity key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::of(&self.identity)
    }
}

impl Certificate {
    /// When it is valid.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn validity(&self) -> Result<Window, PkiError> {
        pki::validity(self.chain.first().ok_or(PkiError::Certificate)?)
    }
}

/// Takes over addresses of controllers as far as they are usable; `None` when none is.
#[must_use]
pub fn usable_addresses(addresses: &[String]) -> Option<Vec<String>> {
    let usable = |address: &&String| {
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        address.len() <= ADDRESS_BYTES_MAX && port.is_some()
    };
    let found: Vec<_> = addresses
        .iter()
        .filter(usable)
        .take(CONTROLLERS_MAX)
        .cloned()
        .collect();
    (!found.is_empty()).then_some(found)
}

impl IdentityStore {
    /// The store in a directory, which is made private.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<Self, IdentityStoreError> {
        let store = Self {
            directory: directory.to_owned(),
        };
        disk::create_private_dir(directory).map_err(|source| IdentityStoreError::Disk {
            file: directory.to_owned(),
            source,
        })?;
        Ok(store)
    }

    /// The agent's keys; those that do not exist yet are made.
    ///
    /// # Errors
    /// When one cannot be read or kept. None is ever made anew in place of an unreadable one.
    pub fn keys(&self, entropy: &Entropy) -> Result<Keys, IdentityStoreError> {
        let identity = self.bytes("identity.key", entropy)?;
        let seal = self.bytes("seal.key", entropy)?;
        let enrolment = self.bytes("enrolment.key", entropy)?;
        let incarnation: [u8; 16] = self.bytes("incarnation", entropy)?;
        let incarnation = hex::encode(incarnation);
        Ok(Keys {
            identity: SigningKey::from_bytes(&identity),
            seal: SealKey::from_bytes(&seal),
            enrolment: self.key_pair(&enrolment)?,
            incarnation: incarnation.parse().expect("32 hexadecimal digits"),
        })
    }

    /// The certificate; `None` before the enrolment.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn certificate(&self) -> Result<Option<Certificate>, IdentityStoreError> {
        let file = self.directory.join(CERTIFICATE_FILE);
        let Some(bytes) = read(&file)? else {
            return Ok(None);
        };
        let damaged = || IdentityStoreError::Damaged { file: file.clone() };
        let kept: CertificateFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let key = hex::decode(&kept.key).map_err(|_| damaged())?;
        let chain: Result<Vec<_>, _> = kept.chain.iter().map(hex::decode).collect();
        let certificate = Certificate {
            agent: kept.agent,
            key: KeyPair::from_pkcs8(&key).map_err(|_| damaged())?,
            chain: chain.map_err(|_| damaged())?,
            obtained: kept.obtained,
            controllers: kept.controllers,
        };
        if kept.version != 1 || certificate.validity().is_err() {
            return Err(damaged());
        }
        Ok(Some(certificate))
    }

    /// Keeps a certificate with its key and the controllers' addresses. Durable when this returns.
    ///
    /// # Errors
    /// When the disk fails; the one before is then still there.
    pub fn keep(&self, certificate: &Certificate) -> Result<(), IdentityStoreError> {
        let kept = CertificateFile {
            version: 1,
            agent: certificate.agent.clone(),
            key: hex::encode(certificate.key.to_pkcs8()),
            chain: certificate.chain.iter().map(hex::encode).collect(),
            obtained: certificate.obtained,
            controllers: certificate.controllers.clone(),
        };
        let bytes = serde_json::to_vec(&kept).expect("it is text");
        write(self.directory.join(CERTIFICATE_FILE), &bytes)
    }

    fn bytes<const N: usize>(
        &self,
        name: &str,
        entropy: &Entropy,
    ) -> Result<[u8; N], IdentityStoreError> {
        let file = self.directory.join(name);
        if let Some(text) = read(&file)? {
            let mut bytes = [0; N];
            return std::str::from_utf8(&text)
                .ok()
                .and_then(|text| hex::decode_to_slice(text.trim(), &mut bytes).ok())
                .map(|()| bytes)
                .ok_or(IdentityStoreError::Damaged { file });
        }
        let bytes = entropy.bytes();
        write(file, format!("{}\n", hex::encode(bytes)).as_bytes())?;
        Ok(bytes)
    }

    /// RFC 8410: a fixed head, then the 32 secret bytes.
    fn key_pair(&self, secret: &[u8; 32]) -> Result<KeyPair, IdentityStoreError> {
        const PKCS8_HEAD: [u8; 16] = [
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
            0x04, 0x20,
        ];
        let der = [PKCS8_HEAD.as_slice(), secret].concat();
        let file = self.directory.join("enrolment.key");
        KeyPair::from_pkcs8(&der).map_err(|_| IdentityStoreError::Damaged { file })
    }
}

const CERTIFICATE_FILE: &str = "certificate.json";

fn read(file: &Path) -> Result<Option<Vec<u8>>, IdentityStoreError> {
    if !file.exists() {
        return Ok(None);
    }
    keyfile::read_private(file)
        .map(|bytes| Some(bytes.to_vec()))
        .map_err(|source| IdentityStoreError::Read {
            file: file.to_owned(),
            source,
        })
}

fn write(file: PathBuf, bytes: &[u8]) -> Result<(), IdentityStoreError> {
    disk::write_atomic(&file, bytes, 0o600)
        .map_err(|source| IdentityStoreError::Disk { file, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dotmac_runtime::{clock::Clock, entropy::Entropy, pki};

    use super::{Certificate, IdentityStore, IdentityStoreError, usable_addresses};
    use crate::fixture::{NOW, agent};

    #[test]
    fn keys_and_certificate_survive_a_restart_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(directory.path()).unwrap();
        let entropy = Entropy::seeded(1);
        let keys = store.keys(&entropy).unwrap();
        assert!(store.certificate().unwrap().is_none());
        let (clock, _) = Clock::manual(NOW);
        let cluster = "test".parse().unwrap();
        let issuer =
            pki::Issuer::create(&cluster, dotmac_protocol::ids::NodeId(1), &clock, &entropy);
        let request = pki::csr(&keys.enrolment);
        let chain = issuer
            .issue_agent(&request, &cluster, &agent(), NOW, 60_000)
            .unwrap();
        let certificate = Certificate {
            agent: agent(),
            key: keys.enrolment.clone(),
            chain: chain.clone(),
            obtained: NOW,
            controllers: vec!["127.0.0.1:7443".into()],
        };
        store.keep(&certificate).unwrap();
        let again = store.keys(&Entropy::seeded(2)).unwrap();
        assert_eq!(again.public(), keys.public());
        assert_eq!(again.seal.public(), keys.seal.public());
        assert_eq!(again.incarnation, keys.incarnation);
        assert_eq!(again.enrolment.digest(), keys.enrolment.digest());
        let kept = store.certificate().unwrap().unwrap();
        assert_eq!((kept.agent, kept.chain), (agent(), chain));
        assert_eq!(kept.key.digest(), keys.enrolment.digest());
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_or_widely_readable_key_is_an_error_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(directory.path()).unwrap();
        store.keys(&Entropy::seeded(1)).unwrap();
        let file = directory.path().join("identity.key");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = store.keys(&Entropy::seeded(1));
        assert!(matches!(refused, Err(IdentityStoreError::Read { .. })));
        dotmac_runtime::disk::write_atomic(&file, b"abc", 0o600).unwrap();
        let damaged = store.keys(&Entropy::seeded(1));
        assert!(matches!(damaged, Err(IdentityStoreError::Damaged { .. })));
        assert_eq!(std::fs::read(&file).unwrap(), b"abc");
    }

    #[test]
    fn unusable_addresses_do_not_replace_usable_ones() {
        let told = [
            "a:1".to_owned(),
            "no-port".to_owned(),
            format!("{}:1", "x".repeat(400)),
        ];
        assert_eq!(usable_addresses(&told), Some(vec!["a:1".to_owned()]));
        assert_eq!(usable_addresses(&told[1..]), None);
    }
}
