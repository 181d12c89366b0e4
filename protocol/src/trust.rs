//! The trust root: which keys count for what, and how many of them. Version N+1 is signed by the root thresholds
//! of N and of N+1, so that an agent that pinned one version can follow to any later one (as in TUF, section 5.3).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    codec::{self, DecodeError, Format},
    digest::Digest,
    ids::{ClusterId, Epoch, NodeId, TrustVersion},
    keys::{KeyId, PublicKey, Signature},
};

/// Keys per role at most.
pub const ROLE_KEYS_MAX: usize = 16;

/// A set of keys, and how many different ones must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Signatures needed; between 1 and the number of keys.
    pub threshold: u16,
    /// The keys of the role.
    pub keys: Vec<PublicKey>,
}

/// One controller as agents know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerIdentity {
    /// Its number in the cluster.
    pub node: NodeId,
    /// The key it signs waves with; a member of the controller role.
    pub signing_key: PublicKey,
    /// Digest of the DER certificate it issues other certificates with.
    pub issuer: Digest,
}

/// Version 1 of the document; see the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRoot {
    /// The cluster this document is about.
    pub cluster: ClusterId,
    /// Counts up by one.
    pub version: TrustVersion,
    /// The epoch that waves must carry.
    pub epoch: Epoch,
    /// Signs trust roots; its keys stay offline.
    pub root: Role,
    /// Approves the most dangerous verbs; no controller holds its keys.
    pub approver: Role,
    /// Signs waves.
    pub controller: Role,
    /// Signs the clock and the digest of each agent's desired set.
    pub timestamp: Role,
    /// The controllers that agents connect to.
    pub controllers: Vec<ControllerIdentity>,
}

impl Format for TrustRoot {
    const KIND: &'static str = "trust root";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 64 * 1024;
}

/// How many of so many keys count: a strict majority.
#[must_use]
pub fn majority(keys: usize) -> u16 {
    u16::try_from(keys / 2 + 1).unwrap_or(u16::MAX)
}

/// A trust root as it travels: the bytes that were signed, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTrustRoot {
    /// Encoded [`TrustRoot`], kept as received.
    pub body: Vec<u8>,
    /// Signatures by root keys.
    pub signatures: Vec<Signature>,
}

impl Format for SignedTrustRoot {
    const KIND: &'static str = "signed trust root";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 80 * 1024;
}

/// Why a trust root is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TrustError {
    /// Its bytes do not parse.
    #[error("the trust root cannot be read")]
    Decode(#[from] DecodeError),
    /// A threshold is 0 or above the number of keys, keys repeat, or there are too many.
    #[error("role {role} of the trust root has {keys} different keys and threshold {threshold}")]
    Role {
        role: &'static str,
        keys: usize,
        threshold: u16,
    },
    /// Too few keys of the role signed.
    #[error("{found} of the {needed} signatures needed from role {role}")]
    Signatures {
        role: &'static str,
        found: usize,
        needed: u16,
    },
    /// It is not the next version of the pinned one.
    #[error("trust root {found} does not follow the pinned {pinned}")]
    Version {
        pinned: TrustVersion,
        found: TrustVersion,
    },
    /// It is about another cluster, or lowers the epoch.
    #[error("the trust root belongs to another cluster or an earlier epoch")]
    Lineage,
    /// It is not the document that the join token named.
    #[error("the trust root is not the one that the join token names")]
    Pin,
    /// A controller's signing key is not in the controller role.
    #[error("controller {node} is listed with a key outside the controller role")]
    Controller { node: NodeId },
}

/// The domain under which trust roots are signed.
pub const TRUST_ROOT_DOMAIN: &str = "dotmac/trust-root/v1";

impl Role {
    /// Counts the different keys of this role with a valid signature over `bytes`.
    #[must_use]
    pub fn signers(&self, domain: &str, bytes: &[u8], signatures: &[Signature]) -> BTreeSet<KeyId> {
        let mut found = BTreeSet::new();
        for key in self.keys.iter().take(ROLE_KEYS_MAX) {
            let id = key.id();
            let valid = |signature: &&Signature| {
                signature.key == id && key.verify(domain, bytes, signature).is_ok()
            };
            if signatures
                .iter()
                .take(ROLE_KEYS_MAX)
                .any(|signature| valid(&signature))
            {
                found.insert(id);
            }
        }
        found
    }

    /// Whether enough different keys of this role signed `bytes` (law 3).
    pub fn check(
        &self,
        role: &'static str,
        domain: &str,
        bytes: &[u8],
        signatures: &[Signature],
    ) -> Result<(), TrustError> {
        let found = self.signers(domain, bytes, signatures).len();
        if found < usize::from(self.threshold.max(1)) {
            return Err(TrustError::Signatures {
                role,
                found,
                needed: self.threshold,
            });
        }
        Ok(())
    }

    /// Whether the key of this name belongs to the role.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id() == id)
    }

    fn validate(&self, role: &'static str) -> Result<(), TrustError> {
        let keys = self.keys.iter().collect::<BTreeSet<_>>().len();
        let threshold = self.threshold;
        let sound = keys == self.keys.len()
            && keys <= ROLE_KEYS_MAX
            && threshold > 0
            && usize::from(threshold) <= keys;
        if sound {
            Ok(())
        } else {
            Err(TrustError::Role {
                role,
                keys,
                threshold,
            })
        }
    }
}

impl TrustRoot {
    /// Checks what must hold of any trust root, whoever signed it.
    pub fn validate(&self) -> Result<(), TrustError> {
        self.root.validate("root")?;
        self.approver.validate("approver")?;
        self.controller.validate("controller")?;
        self.timestamp.validate("timestamp")?;
        for controller in &self.controllers {
            if !self.controller.contains(controller.signing_key.id()) {
                return Err(TrustError::Controller {
                    node: controller.node,
                });
            }
        }
        Ok(())
    }

    /// Which controller holds the signing key of this name.
    #[must_use]
    pub fn node_of(&self, key: KeyId) -> Option<NodeId> {
        self.controllers
            .iter()
            .find(|controller| controller.signing_key.id() == key)
            .map(|controller| controller.node)
    }

    /// Digests of the certificates that controllers issue with.
    #[must_use]
    pub fn issuers(&self) -> Vec<Digest> {
        self.controllers
            .iter()
            .map(|controller| controller.issuer)
            .collect()
    }
}

impl SignedTrustRoot {
    /// Digest of the signed bytes: what a join token names.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::tagged(TRUST_ROOT_DOMAIN, &self.body)
    }

    /// Accepts the first trust root, named by its digest in a join token.
    pub fn pin(&self, expected: Digest) -> Result<TrustRoot, TrustError> {
        if self.digest() != expected {
            return Err(TrustError::Pin);
        }
        self.self_signed()
    }

    /// Checks the document against its own root role only. For documents read back from one's own disk.
    pub fn self_signed(&self) -> Result<TrustRoot, TrustError> {
        let trust: TrustRoot = codec::decode(&self.body)?;
        trust.validate()?;
        trust
            .root
            .check("root", TRUST_ROOT_DOMAIN, &self.body, &self.signatures)?;
        Ok(trust)
    }

    /// Accepts the version after `pinned`: signed by the root thresholds of both.
    pub fn follow(&self, pinned: &TrustRoot) -> Result<TrustRoot, TrustError> {
        pinned
            .root
            .check("root", TRUST_ROOT_DOMAIN, &self.body, &self.signatures)?;
        let next = self.self_signed()?;
        if next.version != TrustVersion(pinned.version.0.saturating_add(1)) {
            return Err(TrustError::Version {
                pinned: pinned.version,
                found: next.version,
            });
        }
        if next.cluster != pinned.cluster || next.epoch < pinned.epoch {
            return Err(TrustError::Lineage);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::{Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustError, TrustRoot};
    use crate::{
        codec::encode,
        digest::Digest,
        ids::{Epoch, TrustVersion},
        keys::{PublicKey, Signature},
    };

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn role(threshold: u16, seeds: &[u8]) -> Role {
        Role {
            threshold,
            keys: seeds
                .iter()
                .map(|seed| PublicKey::of(&key(*seed)))
                .collect(),
        }
    }

    fn root(version: u64, root_seeds: &[u8]) -> TrustRoot {
        TrustRoot {
            cluster: "test".parse().unwrap(),
            version: TrustVersion(version),
            epoch: Epoch(1),
            root: role(1, root_seeds),
            approver: role(1, &[20]),
            controller: role(2, &[1, 2, 3]),
            timestamp: role(2, &[1, 2, 3]),
            controllers: vec![],
        }
    }

    fn sign(trust: &TrustRoot, seeds: &[u8]) -> SignedTrustRoot {
        let body = encode(trust).unwrap();
        let signatures = seeds
            .iter()
            .map(|seed| Signature::make(&key(*seed), TRUST_ROOT_DOMAIN, &body))
            .collect();
        SignedTrustRoot { body, signatures }
    }

    #[test]
    fn the_next_version_needs_the_thresholds_of_both() {
        let first = root(1, &[10]);
        let second = root(2, &[11]);
        assert_eq!(sign(&second, &[10, 11]).follow(&first), Ok(second.clone()));
        for signers in [&[10][..], &[11], &[1, 2, 3]] {
            assert!(matches!(
                sign(&second, signers).follow(&first),
                Err(TrustError::Signatures { .. })
            ));
        }
    }

    #[test]
    fn a_version_is_neither_skipped_nor_repeated() {
        let first = root(1, &[10]);
        for version in [0, 1, 3] {
            let other = sign(&root(version, &[10]), &[10]);
            assert!(
                matches!(other.follow(&first), Err(TrustError::Version { .. })),
                "{version}"
            );
        }
    }

    #[test]
    fn one_key_signing_twice_counts_once() {
        let bytes = b"bytes";
        let twice = vec![Signature::make(&key(1), "wave", bytes); 2];
        assert_eq!(
            role(2, &[1, 2, 3]).check("controller", "wave", bytes, &twice),
            Err(TrustError::Signatures {
                role: "controller",
                found: 1,
                needed: 2
            })
        );
    }

    #[test]
    fn thresholds_out_of_range_and_repeated_keys_are_refused() {
        for broken in [role(0, &[1]), role(2, &[1]), role(1, &[1, 1])] {
            let mut trust = root(1, &[10]);
            trust.controller = broken;
            assert!(matches!(trust.validate(), Err(TrustError::Role { .. })));
        }
    }

    #[test]
    fn a_join_token_pins_one_document() {
        let signed = sign(&root(1, &[10]), &[10]);
        assert!(signed.pin(signed.digest()).is_ok());
        assert_eq!(signed.pin(Digest::of(b"other")), Err(TrustError::Pin));
    }
}
