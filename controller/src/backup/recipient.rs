//! Who can open backups: X25519 keys whose secret halves no controller holds. A backup's own key is sealed to each of
//! them (HPKE); every part is sealed with a key derived from it.

use std::{fmt, path::Path, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use dotmac_protocol::{digest::Digest, unit::Sealed};
use dotmac_runtime::{
    disk,
    entropy::Entropy,
    keyfile,
    seal::{self, SealKey},
    sealed_stream::StreamKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// How a public key begins.
const RECIPIENT_PREFIX: &str = "dotmac-recipient-1.";
/// How a secret key begins.
const IDENTITY_PREFIX: &str = "dotmac-identity-1.";
/// Recipients of one backup at most.
pub const RECIPIENTS_MAX: usize = 16;

/// A public key that backups are sealed to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// The secret half: opens backups.
#[derive(Debug)]
pub struct Identity(SealKey);

/// The key of one backup.
pub struct BackupKey(Zeroizing<[u8; 32]>);

/// The key of a backup, sealed to one recipient; hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// Digest of the recipient's public key.
    #[serde(with = "super::manifest::as_text")]
    pub to: Digest,
    /// The encapsulated key.
    pub encapsulated: String,
    /// Ciphertext and tag.
    pub ciphertext: String,
}

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The text is no public key.
    #[error(
        "backup recipient {found:?} is not allowed: {RECIPIENT_PREFIX} and 43 characters, as `dotmac backup keygen` prints it"
    )]
    Recipient {
        /// What was given, cut to 40 characters.
        found: String,
    },
    /// The file holds no secret key.
    #[error(
        "{path} holds no backup identity: a line that begins with {IDENTITY_PREFIX}, as `dotmac backup keygen` writes it"
    )]
    Identity {
        /// Which file.
        path: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] keyfile::KeyFileError),
    /// The file is there already.
    #[error(
        "{path} exists and is left as it is, for backups may be sealed to the key in it: name a new file with --out"
    )]
    Exists {
        /// Which file.
        path: String,
    },
    /// The file cannot be written.
    #[error("backup identity {path} cannot be written")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The public key is of no use.
    #[error("a backup recipient is no usable key")]
    Unusable,
    /// The backup is sealed to other keys.
    #[error(
        "this identity does not open the backup: it is that of {own}, digest {}, and the backup is sealed to {}",
        own.digest(),
        sealed_to.join(", ")
    )]
    OtherKey {
        /// The public half of the identity.
        own: Recipient,
        /// Digests of the keys that do.
        sealed_to: Vec<String>,
    },
}

impl FromStr for Recipient {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let decoded = text.strip_prefix(RECIPIENT_PREFIX).and_then(decode);
        decoded.map(Self).ok_or_else(|| KeyError::Recipient {
            found: text.chars().take(40).collect(),
        })
    }
}

impl Recipient {
    /// Digest of the key: what manifests name it by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Base64UrlUnpadded::encode_string(&self.0);
        write!(formatter, "{RECIPIENT_PREFIX}{text}")
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Identity {
    /// Makes a key and writes its secret half to a new private file.
    ///
    /// # Errors
    /// When the file exists, or cannot be written.
    pub fn create(path: &Path, entropy: &Entropy) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Write {
            path: path.display().to_string(),
            source,
        };
        if path.exists() {
            let path = path.display().to_string();
            return Err(KeyError::Exists { path });
        }
        let identity = Self(SealKey::generate(entropy));
        let secret = Zeroizing::new(Base64UrlUnpadded::encode_string(
            identity.0.to_bytes().as_slice(),
        ));
        let public = identity.recipient();
        let text = Zeroizing::new(format!(
            "# Opens DotMac backups. Keep it offline, twice; without it no backup can be read.\n\
             # recipient: {public}\n# digest: {}\n{IDENTITY_PREFIX}{}\n",
            public.digest(),
            secret.as_str()
        ));
        disk::write_atomic(path, text.as_bytes(), 0o600).map_err(failed)?;
        Ok(identity)
    }

    /// Reads a secret half from a private file.
    ///
    /// # Errors
    /// When the file cannot be read, is open to others, or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = keyfile::read_private(path)?;
        let lines = text.split(|byte| *byte == b'\n');
        let mut texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
        let secret = texts.find_map(|line| line.trim().strip_prefix(IDENTITY_PREFIX));
        let secret = secret.and_then(decode).map(Zeroizing::new);
        match secret {
            Some(secret) => Ok(Self(SealKey::from_bytes(&secret))),
            None => Err(KeyError::Identity {
                path: path.display().to_string(),
            }),
        }
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.public())
    }

    /// Opens the key of the backup `name`.
    ///
    /// # Errors
    /// When it is sealed to other keys, or belongs to another backup.
    pub fn open(&self, name: &str, keys: &[SealedKey]) -> Result<BackupKey, KeyError> {
        let opened = keys
            .iter()
            .filter_map(SealedKey::sealed)
            .find_map(|sealed| {
                let clear = self.0.open(&context(name), &sealed).ok()?;
                let key: [u8; 32] = clear.as_slice().try_into().ok()?;
                Some(BackupKey(Zeroizing::new(key)))
            });
        opened.ok_or_else(|| KeyError::OtherKey {
            own: self.recipient(),
            sealed_to: keys.iter().map(|key| key.to.to_string()).collect(),
        })
    }
}

impl BackupKey {
    /// A new one.
    #[must_use]
    pub fn generate(entropy: &Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes()))
    }

    /// The key of one part of the backup.
    #[must_use]
    pub fn of_part(&self, part: &str) -> StreamKey {
        StreamKey::derive(&self.0, part)
    }

    /// The key, sealed to everybody who may open the backup `name`.
    ///
    /// # Errors
    /// When a recipient is no usable key.
    pub fn sealed_to(
        &self,
        recipients: &[Recipient],
        name: &str,
        entropy: &Entropy,
    ) -> Result<Vec<SealedKey>, KeyError> {
        let seal_to = |recipient: &Recipient| {
            let sealed = seal::seal(&recipient.0, &context(name), self.0.as_slice(), entropy);
            let sealed = sealed.map_err(|_| KeyError::Unusable)?;
            Ok(SealedKey {
                to: sealed.to,
                encapsulated: hex::encode(sealed.encapsulated),
                ciphertext: hex::encode(sealed.ciphertext),
            })
        };
        recipients.iter().map(seal_to).collect()
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BackupKey")
    }
}

impl SealedKey {
    fn sealed(&self) -> Option<Sealed> {
        let mut encapsulated = [0; 32];
        hex::decode_to_slice(&self.encapsulated, &mut encapsulated).ok()?;
        Some(Sealed {
            to: self.to,
            encapsulated,
            ciphertext: hex::decode(&self.ciphertext).ok()?,
        })
    }
}

fn context(name: &str) -> String {
    format!("dotmac/backup/v1 {name}")
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let decoded = Base64UrlUnpadded::decode(text, &mut bytes).ok()?;
    (decoded.len() == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dotmac_runtime::entropy::Entropy;

    use super::{BackupKey, Identity, KeyError, Recipient};

    #[test]
    fn a_key_is_private_made_once_and_read_back() {
        let (folder, entropy) = (tempfile::tempdir().unwrap(), Entropy::seeded(1));
        let path = folder.path().join("backup.identity");
        let made = Identity::create(&path, &entropy).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            Identity::create(&path, &entropy),
            Err(KeyError::Exists { .. })
        ));
        let read = Identity::read(&path).unwrap();
        assert_eq!(read.recipient(), made.recipient());
        let text = made.recipient().to_string();
        assert_eq!(text.parse::<Recipient>().unwrap(), made.recipient());
        assert!("dotmac-recipient-1.x".parse::<Recipient>().is_err());
    }

    #[test]
    fn a_backup_opens_for_its_recipients_under_its_name_only() {
        let (folder, entropy) = (tempfile::tempdir().unwrap(), Entropy::seeded(1));
        let make = |name: &str| Identity::create(&folder.path().join(name), &entropy).unwrap();
        let (first, second, stranger) = (make("1"), make("2"), make("3"));
        let key = BackupKey::generate(&entropy);
        let both = [first.recipient(), second.recipient()];
        let sealed = key.sealed_to(&both, "a", &entropy).unwrap();
        for identity in [&first, &second] {
            assert_eq!(*identity.open("a", &sealed).unwrap().0, *key.0);
            assert!(identity.open("b", &sealed).is_err());
        }
        assert!(
            matches!(stranger.open("a", &sealed), Err(KeyError::OtherKey { sealed_to, .. }) if sealed_to.len() == 2)
        );
        // What the error names is in the files that `keygen` wrote.
        let said = stranger.open("a", &sealed).unwrap_err().to_string();
        for (name, identity) in [("1", &first), ("2", &second), ("3", &stranger)] {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            let digest = identity.recipient().digest().to_string();
            assert!(text.contains(&digest) && said.contains(&digest), "{said}");
        }
        assert!(said.contains(&stranger.recipient().to_string()), "{said}");
    }
}
