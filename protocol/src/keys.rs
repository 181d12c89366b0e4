//! Ed25519 keys and signatures (RFC 8032) over tagged bytes. It makes no keys and knows no randomness.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;

/// A public signing key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// Names a public key: its digest, so that a name cannot be pointed at another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub Digest);

/// A signature and the key that made it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Which key signed.
    pub key: KeyId,
    /// The 64 bytes of RFC 8032, as two halves (serde derives arrays up to 32).
    pub halves: [[u8; 32]; 2],
}

/// Why a signature does not count.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// The public key is not a point of the curve.
    #[error("the public key is not a valid Ed25519 key")]
    Key,
    /// The signature names another key.
    #[error("the signature was made by another key")]
    OtherKey,
    /// The signature does not match the bytes.
    #[error("the signature does not match what was signed")]
    Mismatch,
}

impl PublicKey {
    /// The name of this key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(Digest::tagged("dotmac/key/ed25519", &self.0))
    }

    /// The public half of a signing key.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }

    /// Checks a signature over `bytes` under `domain` (strictly: no small-order keys, canonical encodings only).
    pub fn verify(
        &self,
        domain: &str,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        if signature.key != self.id() {
            return Err(SignatureError::OtherKey);
        }
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| SignatureError::Key)?;
        let [r, s] = signature.halves;
        let signature = ed25519_dalek::Signature::from_components(r, s);
        key.verify_strict(&message(domain, bytes), &signature)
            .map_err(|_| SignatureError::Mismatch)
    }
}

impl Signature {
    /// Signs `bytes` under `domain`. Deterministic: the same key and bytes give the same signature.
    #[must_use]
    pub fn make(key: &SigningKey, domain: &str, bytes: &[u8]) -> Self {
        let signature = key.sign(&message(domain, bytes));
        Self {
            key: PublicKey::of(key).id(),
            halves: [*signature.r_bytes(), *signature.s_bytes()],
        }
    }
}

/// What is really signed: the domain, a zero byte and the bytes, so that no payload passes for another type.
fn message(domain: &str, bytes: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], bytes].concat()
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.hex()[..16])
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signature(by {})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::{PublicKey, Signature, SignatureError};

    #[test]
    fn a_signature_counts_for_its_key_domain_and_bytes_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let other = PublicKey::of(&SigningKey::from_bytes(&[8; 32]));
        let signature = Signature::make(&key, "wave", b"bytes");
        let public = PublicKey::of(&key);
        assert_eq!(public.verify("wave", b"bytes", &signature), Ok(()));
        assert_eq!(
            public.verify("receipt", b"bytes", &signature),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            public.verify("wave", b"Bytes", &signature),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            other.verify("wave", b"bytes", &signature),
            Err(SignatureError::OtherKey)
        );
    }
}
