//! The signed clock: what time it is, and the digest of everything that each agent has to keep, under one Merkle root
//! and the signatures of k timestamp keys. It holds against freezing (an agent that hears none takes no new work) and
//! against mix-and-match (an agent that was given some of its orders sees that its set is another one).
//!
//! As with waves, raw bytes are verified first and decoded after. Nothing of a [`SignedClock`] may be used before
//! [`SignedClock::verify`]; whether it is newer than what an agent saw is the second question.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    codec::{self, DecodeError, Format},
    digest::Digest,
    ids::{AgentId, Epoch, Generation, TrustVersion, UnitId},
    keys::Signature,
    time::Timestamp,
    trust::{TrustError, TrustRoot},
    wave::is_included,
};

/// The domain under which timestamp keys sign a statement.
pub const CLOCK_DOMAIN: &str = "dotmac/clock/v1";
/// The domain of the digest of a desired set.
pub const DESIRED_DOMAIN: &str = "dotmac/desired/v1";

/// Version 1 of what timestamp keys sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatement {
    /// Counts up with every statement of the cluster.
    pub number: u64,
    /// The controllers' clock; signers refuse one that is off their own.
    pub at: Timestamp,
    /// Root of the Merkle tree over the encoded leaves, in the order of the agents' names.
    pub root: Digest,
    /// Number of leaves: one for each agent.
    pub leaves: u32,
    /// The epoch of the trust root.
    pub epoch: Epoch,
    /// The version of the trust root that the signatures are to be checked against.
    pub trust_version: TrustVersion,
}

impl Format for ClockStatement {
    const KIND: &'static str = "clock statement";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

/// Version 1 of what a statement says to one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredLeaf {
    /// Whom it is about.
    pub agent: AgentId,
    /// [`desired_digest`] of everything it has to keep.
    pub desired: Digest,
}

impl Format for DesiredLeaf {
    const KIND: &'static str = "desired leaf";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

impl DesiredLeaf {
    /// Encoded form; what is hashed into the tree.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("a leaf of a valid id stays within its limit")
    }
}

/// A statement as it travels to one agent. Nothing in it may be used before [`SignedClock::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedClock {
    /// Encoded [`ClockStatement`].
    pub body: Vec<u8>,
    /// Signatures by timestamp keys over the body.
    pub signatures: Vec<Signature>,
    /// Encoded [`DesiredLeaf`].
    pub leaf: Vec<u8>,
    /// The leaf's place in the tree.
    pub index: u32,
    /// Sibling digests from the leaf to the root.
    pub path: Vec<Digest>,
}

impl Format for SignedClock {
    const KIND: &'static str = "signed clock";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 8 * 1024;
}

/// Proof that a signed clock was checked against a trust root: only `verify` makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedClock {
    statement: ClockStatement,
    desired: Digest,
}

/// Why a signed clock is not to be believed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ClockError {
    /// Too few timestamp keys signed it.
    #[error("the clock lacks signatures")]
    Signatures(#[source] TrustError),
    /// A part does not parse.
    #[error("a part of the clock cannot be read")]
    Decode(#[from] DecodeError),
    /// It was signed for another version of the trust root.
    #[error("the clock is signed for trust root {found}, held is {held}")]
    TrustVersion {
        held: TrustVersion,
        found: TrustVersion,
    },
    /// It belongs to another epoch.
    #[error("the clock belongs to epoch {found}, the trust root says {expected}")]
    Epoch { expected: Epoch, found: Epoch },
    /// The leaf is not in the tree.
    #[error("the leaf is not in the signed tree")]
    Path,
    /// It is meant for another agent.
    #[error("the clock is for agent {found}")]
    Audience { found: AgentId },
}

/// Digest of a desired set: unit, generation and payload digest of everything that is to be kept (tombstones are
/// not), in the order of the units' names, whatever order they come in.
#[must_use]
pub fn desired_digest<'a>(
    kept: impl IntoIterator<Item = (&'a UnitId, Generation, Digest)>,
) -> Digest {
    let kept = kept
        .into_iter()
        .map(|(unit, generation, payload)| (unit, (generation, payload)));
    let mut bytes = Vec::new();
    // A unit's name holds no zero byte and the rest is of fixed length, so that no two sets give the same bytes.
    for (unit, (generation, payload)) in kept.collect::<BTreeMap<_, _>>() {
        bytes.extend_from_slice(unit.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&generation.0.to_be_bytes());
        bytes.extend_from_slice(payload.as_bytes());
    }
    Digest::tagged(DESIRED_DOMAIN, &bytes)
}

impl SignedClock {
    /// Checks signatures, trust root, epoch, tree and audience.
    ///
    /// # Errors
    /// When any of them does not hold; nothing in it is then to be used.
    pub fn verify(&self, trust: &TrustRoot, me: &AgentId) -> Result<VerifiedClock, ClockError> {
        trust
            .timestamp
            .check("timestamp", CLOCK_DOMAIN, &self.body, &self.signatures)
            .map_err(|error| self.unsigned(trust, error))?;
        let statement: ClockStatement = codec::decode(&self.body)?;
        if statement.trust_version != trust.version {
            let (held, found) = (trust.version, statement.trust_version);
            return Err(ClockError::TrustVersion { held, found });
        }
        if statement.epoch != trust.epoch {
            let (expected, found) = (trust.epoch, statement.epoch);
            return Err(ClockError::Epoch { expected, found });
        }
        let (leaves, root) = (statement.leaves, statement.root);
        if !is_included(&self.leaf, self.index, leaves, &self.path, root) {
            return Err(ClockError::Path);
        }
        let leaf: DesiredLeaf = codec::decode(&self.leaf)?;
        if leaf.agent != *me {
            return Err(ClockError::Audience { found: leaf.agent });
        }
        let desired = leaf.desired;
        Ok(VerifiedClock { statement, desired })
    }

    /// Too few signatures by this trust root: if it says that it is for a newer one, with other keys, that has to come
    /// first.
    fn unsigned(&self, trust: &TrustRoot, error: TrustError) -> ClockError {
        let held = trust.version;
        match codec::decode::<ClockStatement>(&self.body) {
            Ok(statement) if statement.trust_version > held => {
                let found = statement.trust_version;
                ClockError::TrustVersion { held, found }
            }
            _ => ClockError::Signatures(error),
        }
    }
}

impl VerifiedClock {
    /// What was signed for everybody.
    #[must_use]
    pub fn statement(&self) -> &ClockStatement {
        &self.statement
    }

    /// [`desired_digest`] of what this agent has to keep, as the controllers know it.
    #[must_use]
    pub fn desired(&self) -> Digest {
        self.desired
    }
}

#[cfg(test)]
mod tests {
    use super::desired_digest;
    use crate::{
        digest::Digest,
        ids::{Generation, UnitId},
    };

    #[test]
    fn a_desired_set_is_told_from_every_other_and_its_order_does_not_matter() {
        let [one, two]: [UnitId; 2] =
            ["instance/one", "instance/two"].map(|id| id.parse().unwrap());
        let item = |unit, generation, payload: &[u8]| {
            desired_digest([(unit, Generation(generation), Digest::of(payload))])
        };
        let pair = [
            (&one, Generation(1), Digest::of(b"a")),
            (&two, Generation(2), Digest::of(b"b")),
        ];
        let swapped = [pair[1], pair[0]];
        assert_eq!(desired_digest(pair), desired_digest(swapped));
        let others = [
            desired_digest([]),
            desired_digest(pair),
            item(&one, 1, b"a"),
            item(&two, 1, b"a"),
            item(&one, 2, b"a"),
            item(&one, 1, b"b"),
        ];
        for (index, digest) in others.iter().enumerate() {
            assert!(!others[..index].contains(digest), "{index}");
        }
    }
}
