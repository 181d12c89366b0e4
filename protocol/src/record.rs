//! What an agent reports: records in one hash chain per incarnation, each signed by the agent.
//!
//! Receipts, health transitions and audit events are records of the same chain, so that none can be left out,
//! moved or changed without the next one showing it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    codec::{self, DecodeError, Format},
    digest::Digest,
    ids::{AgentId, Generation, IncarnationId, PartName, RequestId, Sequence, TenantId, UnitId},
    keys::{PublicKey, Signature, SignatureError},
    time::Timestamp,
};

pub mod reports;

use reports::Report;

/// The domain under which agents sign records.
pub const RECORD_DOMAIN: &str = "dotmac/record/v1";
/// Bytes of a free text in a record at most; longer texts are cut.
pub const DETAIL_BYTES_MAX: usize = 4 * 1024;

/// Version 1 of one link of an agent's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who reports.
    pub agent: AgentId,
    /// Which life of the agent.
    pub incarnation: IncarnationId,
    /// Counts up from 1 within the incarnation.
    pub sequence: u64,
    /// Digest of the encoded record before this one; [`Digest::ZERO`] for the first.
    pub previous: Digest,
    /// The agent's clock.
    pub at: Timestamp,
    /// Whose unit it is about, if any.
    pub tenant: Option<TenantId>,
    /// Which unit, if any.
    pub unit: Option<UnitId>,
    /// The request that set it off, if one did.
    pub request: Option<RequestId>,
    /// What happened.
    pub event: Event,
}

impl Format for Record {
    const KIND: &'static str = "record";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 16 * 1024;
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// What became of an intent.
    Receipt(Receipt),
    /// The health of a unit changed.
    Health(Health),
    /// Something else worth keeping, such as a restart; `action` is a dotted name.
    Audit {
        /// Dotted name in the past tense, such as `instance.restarted`.
        action: String,
        /// For people, at most [`DETAIL_BYTES_MAX`] bytes.
        detail: String,
    },
    /// What an instance reported and what was measured of it: one batch of at most
    /// [`reports::REPORTS_BYTES_MAX`] encoded bytes.
    Reports(Vec<Report>),
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Digest of the signed leaf.
    pub leaf: Digest,
    /// Its generation.
    pub generation: Generation,
    /// Its sequence.
    pub sequence: Sequence,
    /// The outcome.
    pub outcome: Outcome,
    /// When it passed which station, in order: the way of the order through the agent.
    pub hops: Vec<Hop>,
}

/// A station of an order and when it passed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Such as `agent.journalled`.
    pub station: String,
    /// The clock of whoever wrote it.
    pub at: Timestamp,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// On disk; from now on the agent keeps it true.
    Accepted,
    /// Not taken, and why.
    Refused {
        /// The refusal, for people.
        reason: String,
    },
    /// Every component was started (or is gone, for a tombstone's removal see [`Outcome::Removed`]).
    Applied {
        /// Whether the tier's limits hold.
        limits: Limits,
    },
    /// It cannot be done now, and why; the agent keeps trying.
    Failing {
        /// The reason, for people.
        reason: String,
    },
    /// The unit is gone.
    Removed,
}

/// Whether a tier's limits hold on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limits {
    /// The kernel enforces them.
    Enforced {
        /// By what, such as `cgroup v2`.
        by: String,
    },
    /// They are not, and why.
    NotEnforced {
        /// The reason, for people.
        reason: String,
    },
}

/// How a unit is, as the agent's own probes see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The generation it runs.
    pub generation: Generation,
    /// The summary.
    pub status: HealthStatus,
    /// Why it is not healthy; with the last lines of output when it crashed.
    pub reason: String,
    /// The parts.
    pub components: Vec<ComponentHealth>,
    /// When it passed which station on its way to the first healthy probe; empty later.
    pub hops: Vec<Hop>,
}

/// The summary of a unit's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing is known yet.
    Unknown,
    /// It starts; nothing was wrong so far.
    Starting,
    /// All components are ready.
    Healthy,
    /// A component is not ready, or was restarted a short while ago.
    Degraded,
    /// A component keeps crashing or never became ready.
    Failed,
    /// It is stopped because it should be.
    Stopped,
}

impl HealthStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Starting,
        Self::Healthy,
        Self::Degraded,
        Self::Failed,
        Self::Stopped,
    ];

    /// The word for it in records' lines, stories, metrics and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// One component's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentHealth {
    /// Its name in the manifest.
    pub name: PartName,
    /// Copies that should run.
    pub desired: u16,
    /// Copies that are ready.
    pub ready: u16,
    /// Restarts since the generation was applied.
    pub restarts: u32,
    /// Process ids, for people on that host.
    pub pids: Vec<u32>,
    /// Address on which it answers, such as `127.0.0.1:8101`.
    pub address: Option<String>,
}

/// A record and its signature, as kept and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    /// Encoded [`Record`].
    pub body: Vec<u8>,
    /// The agent's signature over it.
    pub signature: Signature,
}

impl Format for SignedRecord {
    const KIND: &'static str = "signed record";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = Record::BYTES_MAX + 256;
}

/// Why a record is not believed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RecordError {
    /// It does not parse.
    #[error("the record cannot be read")]
    Decode(#[from] DecodeError),
    /// The agent did not sign it.
    #[error("the record's signature does not hold")]
    Signature(#[from] SignatureError),
    /// It is not the link after the one before it.
    #[error("record {found} does not follow record {before} of the chain")]
    Chain { before: u64, found: u64 },
    /// It is about another agent or another life of it.
    #[error("the record belongs to agent {0}")]
    Agent(AgentId),
}

/// The end of a chain: what the next record must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Sequence of the last record; 0 for none.
    pub sequence: u64,
    /// Digest of it; [`Digest::ZERO`] for none.
    pub digest: Digest,
}

impl ChainHead {
    /// The start of a chain.
    pub const START: Self = Self {
        sequence: 0,
        digest: Digest::ZERO,
    };
}

impl SignedRecord {
    /// Digest of the signed bytes; the next record carries it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::tagged(RECORD_DOMAIN, &self.body)
    }

    /// Checks signature and place in the chain, and gives the record and the new head.
    pub fn verify(
        &self,
        key: &PublicKey,
        head: ChainHead,
    ) -> Result<(Record, ChainHead), RecordError> {
        key.verify(RECORD_DOMAIN, &self.body, &self.signature)?;
        let record: Record = codec::decode(&self.body)?;
        let follows = record.sequence == head.sequence.saturating_add(1);
        if !follows || record.previous != head.digest {
            return Err(RecordError::Chain {
                before: head.sequence,
                found: record.sequence,
            });
        }
        let head = ChainHead {
            sequence: record.sequence,
            digest: self.digest(),
        };
        Ok((record, head))
    }
}

/// Cuts a text for a record, at a character boundary.
#[must_use]
pub fn cut_detail(text: &str) -> String {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::{ChainHead, Event, RECORD_DOMAIN, Record, RecordError, SignedRecord};
    use crate::{
        codec::encode,
        keys::{PublicKey, Signature},
        time::Timestamp,
    };

    fn record(sequence: u64, head: ChainHead) -> SignedRecord {
        let record = Record {
            agent: "aws-1".parse().unwrap(),
            incarnation: "00".repeat(16).parse().unwrap(),
            sequence,
            previous: head.digest,
            at: Timestamp(1),
            tenant: None,
            unit: None,
            request: None,
            event: Event::Audit {
                action: "agent.started".into(),
                detail: String::new(),
            },
        };
        let body = encode(&record).unwrap();
        let signature = Signature::make(&SigningKey::from_bytes(&[5; 32]), RECORD_DOMAIN, &body);
        SignedRecord { body, signature }
    }

    #[test]
    fn a_chain_shows_what_is_missing_repeated_or_changed() {
        let key = PublicKey::of(&SigningKey::from_bytes(&[5; 32]));
        let first = record(1, ChainHead::START);
        let (_, head) = first.verify(&key, ChainHead::START).unwrap();
        let second = record(2, head);
        assert!(second.verify(&key, head).is_ok());
        assert!(matches!(
            first.verify(&key, head),
            Err(RecordError::Chain { .. })
        ));
        assert!(matches!(
            second.verify(&key, ChainHead::START),
            Err(RecordError::Chain { .. })
        ));
        let mut changed = second;
        changed.body[40] ^= 1;
        assert!(matches!(
            changed.verify(&key, head),
            Err(RecordError::Signature(_))
        ));
    }
}
