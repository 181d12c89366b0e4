//! What a backup consists of, signed by the controller that made it and written last: without it there is no backup.
//!
//! The file has two lines of JSON: the manifest, whose bytes are signed as they stand, and the signature. It refuses
//! what is signed by nobody whom the trust root in it names; whose trust root that is, [`super::origin`] tells. It
//! holds no secret.

use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{ClusterId, Epoch, NodeId, TrustVersion},
    keys::{KeyId, Signature},
    time::Timestamp,
    trust::{SignedTrustRoot, TrustRoot},
};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::recipient::SealedKey;

/// Name of the file.
pub const MANIFEST: &str = "manifest.json";
/// Version of the manifest and of the parts' form.
pub const FORMAT: u16 = 1;
/// The domain under which manifests are signed.
const DOMAIN: &str = "dotmac/backup-manifest/v1";

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u16,
    /// The backup's name; also its folder.
    pub name: String,
    /// Version of the program that made it.
    pub program: String,
    /// Whose it is.
    pub cluster: ClusterId,
    /// The controller that made it.
    pub node: NodeId,
    /// The State's clock, in milliseconds since 1970.
    pub at: Timestamp,
    /// Index of the last entry in it.
    pub index: u64,
    /// The Raft term of that entry.
    pub term: u64,
    /// The epoch of its trust root.
    pub epoch: Epoch,
    /// The version of its trust root.
    pub trust_version: TrustVersion,
    /// The chain of trust roots, oldest first; hexadecimal.
    pub trust_roots: Vec<String>,
    /// The version of the State's form.
    pub state_version: u8,
    /// The version of the rules that apply follows.
    pub rules: u16,
    /// Digest of the State, as every controller computes it.
    #[serde(with = "as_text")]
    pub state_digest: Digest,
    /// Streams of facts.
    pub streams: u64,
    /// Facts of all streams.
    pub facts: u64,
    /// Digest of the ends of all streams, which lie in the part `heads`.
    #[serde(with = "as_text")]
    pub heads_digest: Digest,
    /// Every part, in the order of writing.
    pub parts: Vec<Part>,
    /// The key that opens them, for each recipient.
    pub keys: Vec<SealedKey>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its file.
    pub name: String,
    /// Bytes as they lie at the target.
    pub bytes: u64,
    /// SHA-256 of them.
    #[serde(with = "as_text")]
    pub sha256: Digest,
}

/// The second line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    #[serde(with = "as_text")]
    key: Digest,
    signature: String,
}

/// Why a manifest does not count.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It does not parse.
    #[error("it cannot be read: {0}")]
    Form(String),
    /// It was made by another version of the program.
    #[error("it has format {found}, this program knows {FORMAT}")]
    Format {
        /// Its format.
        found: u64,
    },
    /// It lies under another name.
    #[error("it is the manifest of backup {0}")]
    Name(String),
    /// Its trust roots are no chain.
    #[error("its trust roots do not follow each other")]
    Trust(#[from] dotmac_protocol::trust::TrustError),
    /// No controller signed it.
    #[error("it is not signed by a controller that its trust root names")]
    Signature,
}

impl Manifest {
    /// The file: signed by a controller.
    #[must_use]
    pub fn to_file(&self, key: &SigningKey) -> Vec<u8> {
        let mut file = serde_json::to_vec(self).expect("a manifest has text keys only");
        let signature = Signature::make(key, DOMAIN, &file);
        let signed = Signed {
            key: signature.key.0,
            signature: hex::encode(signature.halves.concat()),
        };
        file.push(b'\n');
        file.extend(serde_json::to_vec(&signed).expect("a signature has text keys only"));
        file.push(b'\n');
        file
    }

    /// Reads the file of the backup `name` and checks form and signature.
    ///
    /// # Errors
    /// When it does not count.
    pub fn of_file(file: &[u8], name: &str) -> Result<Self, ManifestError> {
        let form = |error: &dyn std::fmt::Display| ManifestError::Form(error.to_string());
        let mut lines = file.split(|byte| *byte == b'\n');
        let (body, signed) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        if lines.next() != Some(b"") || lines.next().is_some() {
            return Err(form(&"it does not have two lines"));
        }
        let any: serde_json::Value = serde_json::from_slice(body).map_err(|error| form(&error))?;
        match any["format"].as_u64() {
            Some(found) if found != u64::from(FORMAT) => {
                return Err(ManifestError::Format { found });
            }
            _ => {}
        }
        let manifest: Self = serde_json::from_slice(body).map_err(|error| form(&error))?;
        let signed: Signed = serde_json::from_slice(signed).map_err(|error| form(&error))?;
        if manifest.name != name {
            return Err(ManifestError::Name(manifest.name));
        }
        let signature = signed.read().ok_or(ManifestError::Signature)?;
        let trust = manifest.trust()?;
        let signers = trust.controller.signers(DOMAIN, body, &[signature]);
        if signers.is_empty() {
            return Err(ManifestError::Signature);
        }
        Ok(manifest)
    }

    /// The signed trust roots, oldest first.
    ///
    /// # Errors
    /// When one does not parse.
    pub fn signed_trust_roots(&self) -> Result<Vec<SignedTrustRoot>, ManifestError> {
        let form = |error: &dyn std::fmt::Display| ManifestError::Form(error.to_string());
        let decode = |text: &String| {
            let bytes = hex::decode(text).map_err(|error| form(&error))?;
            codec::decode(&bytes).map_err(|error| form(&error))
        };
        self.trust_roots.iter().map(decode).collect()
    }

    /// The trust root in force: the last of the chain, which must be one.
    ///
    /// # Errors
    /// When it is none, or not the one that the manifest names.
    pub fn trust(&self) -> Result<TrustRoot, ManifestError> {
        let mut newest: Option<TrustRoot> = None;
        for signed in self.signed_trust_roots()? {
            newest = Some(match &newest {
                None => signed.self_signed()?,
                Some(before) => signed.follow(before)?,
            });
        }
        let fits = |trust: &TrustRoot| {
            (&trust.cluster, trust.version, trust.epoch)
                == (&self.cluster, self.trust_version, self.epoch)
        };
        let wrong = "its trust roots are not those that it names";
        newest
            .filter(fits)
            .ok_or_else(|| ManifestError::Form(wrong.to_owned()))
    }

    /// The cluster as it names itself, told from others of its name by its oldest trust root in the chain.
    #[must_use]
    pub fn claimed_cluster(&self) -> String {
        let chain = self.signed_trust_roots().unwrap_or_default();
        let first = chain.first().map(|root| root.digest().to_string());
        format!(
            "{} with trust root {}",
            self.cluster,
            first.unwrap_or_default()
        )
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl Signed {
    fn read(&self) -> Option<Signature> {
        let bytes: [u8; 64] = hex::decode(&self.signature).ok()?.try_into().ok()?;
        let (first, second) = bytes.split_at(32);
        Some(Signature {
            key: KeyId(self.key),
            halves: [first.try_into().ok()?, second.try_into().ok()?],
        })
    }
}

/// Digests as people read them.
pub(crate) mod as_text {
    use dotmac_protocol::digest::Digest;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        digest: &Digest,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}
