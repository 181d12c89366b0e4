//! Waves and intents: a batch of orders under one Merkle root (RFC 9162 hashing) and one set of signatures.
//!
//! ```text
//!   leaf, leaf, leaf ... --Merkle--> root in the wave header --k of n Ed25519--> signatures
//!   an agent gets: header bytes, signatures, its leaf, the path from it to the root, the payload
//! ```
//! Raw bytes are verified first and decoded after. Nothing of a [`SignedIntent`] may be used before
//! [`SignedIntent::verify`], and only that makes a [`VerifiedIntent`].

use ct_merkle::{InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

use crate::{
    codec::{self, DecodeError, Format},
    digest::Digest,
    ids::{AgentId, Epoch, Generation, RequestId, Sequence, TenantId, TrustVersion, UnitId},
    keys::Signature,
    time::{Timestamp, Window},
    trace::TraceContext,
    trust::{TrustError, TrustRoot},
    unit::Payload,
};

/// Leaves in one wave at most.
pub const WAVE_LEAVES_MAX: usize = 1024;
/// The domain under which controllers sign a wave's header.
pub const WAVE_DOMAIN: &str = "dotmac/wave/v1";

/// What an intent orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Make the unit what the payload says, and keep it so.
    Apply,
    /// Remove the unit: a tombstone. The only thing that ever removes one (law 2).
    Remove,
}

/// Version 1 of one order, as it is hashed into the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Which agent has to obey.
    pub agent: AgentId,
    /// Whose unit it is; it never changes.
    pub tenant: TenantId,
    /// Which unit.
    pub unit: UnitId,
    /// What to do.
    pub verb: Verb,
    /// How often what the unit should be has changed.
    pub generation: Generation,
    /// Number of this intent for this agent and unit.
    pub sequence: Sequence,
    /// The last sequence that the agent acknowledged when this one was sealed; 0 for none.
    pub previous: Sequence,
    /// The epoch of the trust root.
    pub epoch: Epoch,
    /// The version of the trust root that the signatures are to be checked against.
    pub trust_version: TrustVersion,
    /// When the intent may be accepted.
    pub window: Window,
    /// Digest of the encoded payload.
    pub payload: Digest,
    /// The request that authorised it, for the story of the audit.
    pub request: RequestId,
    /// The trace of that request; nothing is decided by it.
    pub trace: Option<TraceContext>,
}

impl Format for Leaf {
    const KIND: &'static str = "leaf";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024;
}

/// Version 1 of what controllers sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveHeader {
    /// Counts up with every wave of the cluster.
    pub number: u64,
    /// Root of the Merkle tree over the encoded leaves.
    pub root: Digest,
    /// Number of leaves.
    pub leaves: u32,
    /// The epoch of every leaf.
    pub epoch: Epoch,
    /// The trust root version of every leaf.
    pub trust_version: TrustVersion,
    /// The proposer's clock when it was sealed; signers refuse one that is off their own.
    pub sealed_at: Timestamp,
    /// The window of every leaf.
    pub window: Window,
}

impl Format for WaveHeader {
    const KIND: &'static str = "wave header";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 256;
}

/// An intent as it travels. Nothing in it may be used before [`SignedIntent::verify`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIntent {
    /// Encoded [`WaveHeader`].
    pub header: Vec<u8>,
    /// Signatures of controllers over the header.
    pub signatures: Vec<Signature>,
    /// Encoded [`Leaf`].
    pub leaf: Vec<u8>,
    /// The leaf's place in the tree.
    pub index: u32,
    /// Sibling digests from the leaf to the root.
    pub path: Vec<Digest>,
    /// Encoded [`Payload`].
    pub payload: Vec<u8>,
}

impl Format for SignedIntent {
    const KIND: &'static str = "signed intent";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = Payload::BYTES_MAX + 8 * 1024;
}

impl std::fmt::Debug for SignedIntent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "SignedIntent({} signatures)",
            self.signatures.len()
        )
    }
}

/// Proof that an intent was checked against a trust root: only `verify` makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedIntent {
    header: WaveHeader,
    leaf: Leaf,
    leaf_digest: Digest,
    payload: Payload,
}

/// Why an intent is not to be obeyed, whatever the agent holds.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum IntentError {
    /// Too few controllers signed it.
    #[error("the wave lacks signatures")]
    Signatures(#[source] TrustError),
    /// A part does not parse.
    #[error("a part of the intent cannot be read")]
    Decode(#[from] DecodeError),
    /// It was signed for another version of the trust root.
    #[error("the wave is signed for trust root {found}, held is {held}")]
    TrustVersion {
        held: TrustVersion,
        found: TrustVersion,
    },
    /// It belongs to another epoch.
    #[error("the wave belongs to epoch {found}, the trust root says {expected}")]
    Epoch { expected: Epoch, found: Epoch },
    /// The leaf is not in the tree.
    #[error("the leaf is not in the signed tree")]
    Path,
    /// Header and leaf contradict each other.
    #[error("the leaf disagrees with its wave in {field}")]
    Header { field: &'static str },
    /// It is meant for another agent.
    #[error("the intent is for agent {found}")]
    Audience { found: AgentId },
    /// The payload is not the one the leaf names.
    #[error("the payload is not the one that was signed")]
    Payload,
    /// Verb and payload do not fit.
    #[error("the payload does not fit the verb, the tenant or the unit")]
    Contradiction,
}

impl Leaf {
    /// Encoded form; what is hashed into the tree.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("a leaf of valid ids stays within its limit")
    }
}

/// Root of the Merkle tree over encoded leaves.
#[must_use]
pub fn merkle_root(leaves: &[Vec<u8>]) -> Digest {
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    leaves.iter().for_each(|leaf| tree.push(leaf.clone()));
    Digest::from_bytes((*tree.root().as_bytes()).into())
}

/// The paths of all leaves, in their order.
#[must_use]
pub fn merkle_paths(leaves: &[Vec<u8>]) -> Vec<Vec<Digest>> {
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    leaves.iter().for_each(|leaf| tree.push(leaf.clone()));
    (0..leaves.len())
        .map(|index| {
            let proof = tree.prove_inclusion(index);
            let split = |digest: &[u8]| Digest::from_bytes(digest.try_into().expect("32 bytes"));
            proof.as_bytes().chunks_exact(32).map(split).collect()
        })
        .collect()
}

/// Whether a path leads from a leaf to the root of a tree of so many leaves.
#[must_use]
pub fn is_included(leaf: &[u8], index: u32, leaves: u32, path: &[Digest], root: Digest) -> bool {
    if index >= leaves || path.len() > 32 {
        return false;
    }
    let root = RootHash::<Sha256>::new((*root.as_bytes()).into(), u64::from(leaves));
    let proof = path.iter().flat_map(|digest| *digest.as_bytes()).collect();
    InclusionProof::<Sha256>::try_from_bytes(proof).is_ok_and(|proof| {
        root.verify_inclusion(&leaf, u64::from(index), &proof)
            .is_ok()
    })
}

impl SignedIntent {
    /// Checks signatures, tree, audience, epoch and payload. Whether it is *newer* than what the agent holds,
    /// and inside its window, is the second question: [`crate::acceptance::accept`].
    pub fn verify(&self, trust: &TrustRoot, me: &AgentId) -> Result<VerifiedIntent, IntentError> {
        trust
            .controller
            .check("controller", WAVE_DOMAIN, &self.header, &self.signatures)
            .map_err(|error| self.unsigned(trust, error))?;
        let header: WaveHeader = codec::decode(&self.header)?;
        if header.trust_version != trust.version {
            let (held, found) = (trust.version, header.trust_version);
            return Err(IntentError::TrustVersion { held, found });
        }
        if header.epoch != trust.epoch {
            return Err(IntentError::Epoch {
                expected: trust.epoch,
                found: header.epoch,
            });
        }
        if !is_included(
            &self.leaf,
            self.index,
            header.leaves,
            &self.path,
            header.root,
        ) {
            return Err(IntentError::Path);
        }
        let leaf: Leaf = codec::decode(&self.leaf)?;
        leaf.check_header(&header)?;
        if leaf.agent != *me {
            return Err(IntentError::Audience { found: leaf.agent });
        }
        if Digest::of(&self.payload) != leaf.payload {
            return Err(IntentError::Payload);
        }
        let payload: Payload = codec::decode(&self.payload)?;
        leaf.check_payload(&payload)?;
        let leaf_digest = Digest::of(&self.leaf);
        Ok(VerifiedIntent {
            header,
            leaf,
            leaf_digest,
            payload,
        })
    }

    /// Too few signatures by this trust root: if it says that it is for a newer one, with other keys, that has to come
    /// first.
    fn unsigned(&self, trust: &TrustRoot, error: TrustError) -> IntentError {
        let held = trust.version;
        match codec::decode::<WaveHeader>(&self.header) {
            Ok(header) if header.trust_version > held => {
                let found = header.trust_version;
                IntentError::TrustVersion { held, found }
            }
            _ => IntentError::Signatures(error),
        }
    }
}

impl Leaf {
    fn check_header(&self, header: &WaveHeader) -> Result<(), IntentError> {
        let fields = [
            ("epoch", self.epoch == header.epoch),
            ("trust_version", self.trust_version == header.trust_version),
            ("window", self.window == header.window),
        ];
        match fields.iter().find(|(_, equal)| !equal) {
            Some((field, _)) => Err(IntentError::Header { field }),
            None => Ok(()),
        }
    }

    fn check_payload(&self, payload: &Payload) -> Result<(), IntentError> {
        let fits = match (self.verb, payload) {
            (Verb::Remove, Payload::Nothing) => true,
            (Verb::Apply, Payload::Instance(instance)) => {
                instance.tenant == self.tenant
                    && UnitId::instance(&instance.deployment) == self.unit
                    && Digest::of(&instance.manifest) == instance.release
            }
            (Verb::Remove, Payload::Instance(_)) | (Verb::Apply, Payload::Nothing) => false,
        };
        if fits {
            Ok(())
        } else {
            Err(IntentError::Contradiction)
        }
    }
}

impl VerifiedIntent {
    /// The wave it came in.
    #[must_use]
    pub fn header(&self) -> &WaveHeader {
        &self.header
    }

    /// The order.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Digest of the order as it was signed.
    #[must_use]
    pub fn leaf_digest(&self) -> Digest {
        self.leaf_digest
    }

    /// What the unit should be.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }
}
