//! What controllers ask each other besides Raft: to vouch for a request, for signatures, for whom they hear.

use std::fmt;

use dotmac_domain::Envelope;
use dotmac_protocol::{
    codec::Format,
    digest::Digest,
    ids::{AgentId, NodeId},
    keys::Signature,
    time::Timestamp,
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// A question to a peer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerCall {
    /// Check this bearer token yourself, and sign that its holder asked for this command.
    Attest {
        /// The token's whole text. Never logged.
        bearer: String,
        /// The request, without evidence.
        envelope: Box<Envelope>,
        /// When the attestation is to end.
        expires_at: Timestamp,
    },
    /// Here is my signature.
    Countersign {
        /// Under what.
        subject: Subject,
        /// The signature.
        signature: Signature,
    },
    /// Which signatures under this do you have?
    Signatures {
        /// Under what.
        subject: Subject,
    },
    /// These agents are connected to me.
    Hear {
        /// Who, and with which program.
        agents: Vec<HeardAgent>,
    },
    /// How are you?
    Status,
    /// What are you, and what can you follow? Programs of version 1 do not know the question, and give no answer.
    Describe,
    /// What is the digest of your State?
    Digest,
    /// Check each of these bearer tokens yourself, and sign that their holders asked for all of this: at most
    /// [`dotmac_domain::envelope::ATTESTATION_BATCH_MAX`]. Programs of version 1 do not know the question: it is asked only
    /// under later rules.
    AttestBatch(Vec<ToAttest>),
}

/// One request that a peer is asked to vouch for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToAttest {
    /// The token's whole text. Never logged.
    pub bearer: String,
    /// The request, without evidence.
    pub envelope: Envelope,
    /// When the attestation is to end.
    pub expires_at: Timestamp,
}

impl fmt::Debug for ToAttest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ToAttest({})", self.envelope.request)
    }
}

/// What controllers sign together, outside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The wave of this number.
    Wave(u64),
    /// The clock of this number.
    Clock(u64),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wave(number) => write!(formatter, "wave {number}"),
            Self::Clock(number) => write!(formatter, "clock {number}"),
        }
    }
}

/// An agent with a live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardAgent {
    /// Who.
    pub agent: AgentId,
    /// Version of its program.
    pub software: String,
    /// Since when.
    pub since: Timestamp,
}

impl Format for PeerCall {
    const KIND: &'static str = "peer call";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 2 * 1024 * 1024;
}

impl fmt::Debug for PeerCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Attest { .. } => "Attest",
            Self::Countersign { .. } => "Countersign",
            Self::Signatures { .. } => "Signatures",
            Self::Hear { .. } => "Hear",
            Self::Status => "Status",
            Self::Describe => "Describe",
            Self::Digest => "Digest",
            Self::AttestBatch(_) => "AttestBatch",
        })
    }
}

/// A peer's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// Its attestation.
    Attested(Signature),
    /// Signatures under the subject, and when each was made by its signer's clock.
    Signatures(Vec<(Signature, Timestamp)>),
    /// Done; nothing to say.
    Noted,
    /// How it is.
    Status(NodeStatus),
    /// It will not, and why.
    Refused(String),
    /// What it is.
    Described(Description),
    /// The digest of its State.
    Digest(StateDigest),
    /// It vouches for none of a batch, because of these: their places, and why.
    RefusedOf(Vec<(u32, String)>),
}

impl Format for PeerAnswer {
    const KIND: &'static str = "peer answer";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}

/// How a controller is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which one.
    pub node: NodeId,
    /// Its process id.
    pub pid: u32,
    /// Index of the last entry applied.
    pub applied: u64,
    /// The Raft term it is in.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Its clock.
    pub now: Timestamp,
    /// Agents connected to it.
    pub agents: u32,
    /// What it refused to sign lately, with the reason.
    pub refusals: Vec<String>,
    /// Why its disk takes no new writes, if it does not.
    pub storage: Option<String>,
}

/// What a controller's program is, and what it can follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Which controller.
    pub node: NodeId,
    /// Version of its program.
    pub software: String,
    /// The oldest rules that it follows.
    pub rules_oldest: u16,
    /// The newest rules that it follows.
    pub rules_newest: u16,
    /// Why its disk is slow, if it is.
    pub slow_disk: Option<String>,
}

/// The State at one index: equal on all controllers at equal indexes (law 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest {
    /// Index of the last entry applied.
    pub applied: u64,
    /// Digest of the State after exactly that entry.
    pub digest: Digest,
}

/// Answers peers' calls. `from` is whom the peer's certificate names.
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers one call; a refusal is an answer, too.
    fn handle(&self, from: NodeId, call: PeerCall) -> BoxFuture<'_, PeerAnswer>;
}
