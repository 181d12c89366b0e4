//! The envelope of every log entry: when, who, with what proof, and what. Version 1, frozen by a golden file.

use dotmac_protocol::{
    codec::{self, Format},
    digest::Digest,
    ids::{AgentId, RequestId, TokenId},
    keys::Signature,
    record::Hop,
    time::Timestamp,
    trace::TraceContext,
    trust::ROLE_KEYS_MAX,
    wave::merkle_root,
};
use serde::{Deserialize, Serialize};

use crate::{checked::Checked, command::Command, reply::Rejection};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The proposer's clock; apply makes it monotonic.
    pub at: Timestamp,
    /// The rules version under which it was made.
    pub rules: u16,
    /// What the request is called; a second envelope with this id gets the first one's answer.
    pub request: RequestId,
    /// Digest of what was asked (method, path and body for a person's request), to tell a retry from a mix-up.
    pub asked: Digest,
    /// Who asks.
    pub actor: Actor,
    /// The proof that he asked.
    pub evidence: Evidence,
    /// The revision that the asker saw of what he changes (`If-Match`); apply refuses the change of any other.
    pub expected: Option<u64>,
    /// Stations passed so far, for the story only.
    pub hops: Vec<Hop>,
    /// The trace that it belongs to. Nothing is decided by it, and nobody vouches for it.
    pub trace: Option<TraceContext>,
    /// What is asked.
    pub command: Command,
}

impl Format for Envelope {
    const KIND: &'static str = "envelope";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Actor {
    /// A holder of an access token.
    Person(TokenId),
    /// An agent, over its own session.
    Agent(AgentId),
    /// A planner of the leader, carrying on what somebody asked for.
    Planner,
    /// Whoever created the cluster.
    Founder,
}

/// The proof that an actor asked. Signers check it; a controller alone cannot make one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// None: planners cite the request that authorised them, and agents' records carry their own signatures.
    None,
    /// Controllers that each checked the bearer token themselves.
    Attested {
        /// First moment at which the attestations no longer count.
        expires_at: Timestamp,
        /// Their signatures over [`Attestation`] under [`ATTESTATION_DOMAIN`].
        signatures: Vec<Signature>,
    },
    /// The person's own request signature (RFC 9421) with a key registered for him.
    RequestSigned {
        /// The covered components, as signed.
        signature_base: Vec<u8>,
        /// The signature over them.
        signature: Signature,
    },
    /// Controllers that each checked the bearer tokens of a whole batch of requests themselves, and signed them together.
    AttestedInBatch(Box<InBatch>),
}

/// The place of one request in a batch that controllers attested together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InBatch {
    /// First moment at which the attestation no longer counts.
    pub expires_at: Timestamp,
    /// What was signed.
    pub batch: AttestationBatch,
    /// The place of this request's [`Attestation`] among the leaves, from 0.
    pub index: u32,
    /// The Merkle path from it to the root.
    pub path: Vec<Digest>,
    /// Signatures over [`AttestationBatch`] under [`ATTESTATION_BATCH_DOMAIN`].
    pub signatures: Vec<Signature>,
}

/// Bytes of a request's signature base at most.
pub const SIGNATURE_BASE_BYTES_MAX: usize = 8 * 1024;

impl Evidence {
    /// Refuses evidence that is too large to be kept with what it vouches for.
    pub(crate) fn check_size(&self) -> Result<(), Rejection> {
        let (found, allowed, unit) = match self {
            Self::None => return Ok(()),
            Self::Attested { signatures, .. } => (signatures.len(), ROLE_KEYS_MAX, "attestations"),
            Self::RequestSigned { signature_base, .. } => {
                (signature_base.len(), SIGNATURE_BASE_BYTES_MAX, "bytes")
            }
            Self::AttestedInBatch(place) if place.path.len() > BATCH_PATH_MAX => {
                (place.path.len(), BATCH_PATH_MAX, "digests in a path")
            }
            Self::AttestedInBatch(place) => (place.signatures.len(), ROLE_KEYS_MAX, "attestations"),
        };
        if found <= allowed {
            return Ok(());
        }
        let allowed = format!("at most {allowed} {unit}");
        Err(Rejection::field("evidence", found, allowed))
    }
}

/// The domain under which controllers attest requests.
pub const ATTESTATION_DOMAIN: &str = "dotmac/attestation/v1";

/// The domain under which controllers attest batches of requests.
pub const ATTESTATION_BATCH_DOMAIN: &str = "dotmac/attestation-batch/v1";
/// The rules under which they do.
pub const ATTESTATION_BATCH_RULES: u16 = 2;
/// Requests that are attested together at most.
pub const ATTESTATION_BATCH_MAX: usize = 256;
/// Digests of a path in a tree of [`ATTESTATION_BATCH_MAX`] leaves at most.
const BATCH_PATH_MAX: usize = 8;

/// What controllers sign that vouch for many requests at once: the Merkle root over the encoded [`Attestation`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationBatch {
    /// The root.
    pub root: Digest,
    /// How many there are.
    pub leaves: u32,
}

impl Format for AttestationBatch {
    const KIND: &'static str = "attestation batch";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 64;
}

impl AttestationBatch {
    /// The batch of these encoded attestations.
    #[must_use]
    pub fn of(leaves: &[Vec<u8>]) -> Self {
        Self {
            root: merkle_root(leaves),
            leaves: u32::try_from(leaves.len()).unwrap_or(u32::MAX),
        }
    }

    /// Encoded form; what is signed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("a digest and a number stay within their limit")
    }
}

/// What an attesting controller signs: that this actor, whose token it checked, asked for this command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The request.
    pub request: RequestId,
    /// [`command_digest`] of the command.
    pub command: Digest,
    /// Whose token was checked.
    pub actor: Actor,
    /// When the attestation ends.
    pub expires_at: Timestamp,
}

impl Format for Attestation {
    const KIND: &'static str = "attestation";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 512;
}

impl Attestation {
    /// That the actor of this envelope asked for its command.
    #[must_use]
    pub fn of(envelope: &Envelope, expires_at: Timestamp) -> Self {
        Self::with_size(envelope, expires_at).0
    }

    /// The same, and the bytes of the command.
    #[must_use]
    pub fn with_size(envelope: &Envelope, expires_at: Timestamp) -> (Self, usize) {
        let (command, bytes) = command_digest_and_size(&envelope.command);
        let attestation = Self {
            request: envelope.request.clone(),
            command,
            actor: envelope.actor.clone(),
            expires_at,
        };
        (attestation, bytes)
    }

    /// Encoded form; what is signed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("an attestation of valid ids stays within its limit")
    }
}

/// Digest of a command, as attestations name it.
#[must_use]
pub fn command_digest(command: &Command) -> Digest {
    command_digest_and_size(command).0
}

/// The same, and the bytes of the command.
fn command_digest_and_size(command: &Command) -> (Digest, usize) {
    let bytes = codec::encode(command).expect("a command inside an envelope is within its limit");
    (Digest::tagged("dotmac/command/v1", &bytes), bytes.len())
}

/// What authorises an order: kept with everything that signers have to vouch for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warrant {
    /// The request.
    pub request: RequestId,
    /// Digest of the command that was asked for.
    pub command: Digest,
    /// Who asked.
    pub actor: Actor,
    /// The proof.
    pub evidence: Evidence,
    /// When it was applied.
    pub at: Timestamp,
    /// The trace of the request, for the spans of what follows from it.
    pub trace: Option<TraceContext>,
    /// What this process knows of the evidence; no part of the warrant.
    #[serde(skip)]
    pub checked: Checked,
}

impl Warrant {
    /// The warrant that an envelope gives to what it makes.
    #[must_use]
    pub fn of(envelope: &Envelope, at: Timestamp) -> Self {
        Self {
            request: envelope.request.clone(),
            command: command_digest(&envelope.command),
            actor: envelope.actor.clone(),
            evidence: envelope.evidence.clone(),
            at,
            trace: envelope.trace,
            checked: Checked::default(),
        }
    }
}
