//! Audit facts: hash-chained streams, one for the platform, one a tenant, one for each life of each agent.
//!
//! The State keeps the end of every stream; the ledger keeps the links. A link that is missing, moved or changed
//! breaks the chain behind it.

use std::{fmt, str::FromStr};

use dotmac_protocol::{
    codec::{self, Format},
    digest::Digest,
    ids::{AgentId, IdError, IncarnationId, RequestId, TenantId, UnitId},
    record::{ChainHead, SignedRecord},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    envelope::{Actor, Warrant},
    state::State,
};

/// Which chain a fact belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// What concerns the platform as a whole.
    Platform,
    /// The story of one tenant.
    Tenant(TenantId),
    /// The signed records of one life of one agent.
    Agent(AgentId, IncarnationId),
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => formatter.write_str("platform"),
            Self::Tenant(tenant) => write!(formatter, "tenant/{tenant}"),
            Self::Agent(agent, incarnation) => write!(formatter, "agent/{agent}/{incarnation}"),
        }
    }
}

impl FromStr for Stream {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let unknown = || IdError {
            kind: "stream",
            found: text.chars().take(80).collect(),
            allowed: "platform, tenant/ID or agent/ID/INCARNATION",
        };
        match text.split('/').collect::<Vec<_>>()[..] {
            ["platform"] => Ok(Self::Platform),
            ["tenant", tenant] => Ok(Self::Tenant(tenant.parse()?)),
            ["agent", agent, incarnation] => Ok(Self::Agent(agent.parse()?, incarnation.parse()?)),
            _ => Err(unknown()),
        }
    }
}

/// One link of a stream, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Which chain.
    pub stream: Stream,
    /// Its place, from 1.
    pub sequence: u64,
    /// The link.
    pub link: Link,
}

/// What a link holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Written by apply: an encoded [`AuditRecord`], kept as first encoded.
    Entry(Vec<u8>),
    /// An agent's own record, kept as received.
    Record(SignedRecord),
}

impl Format for Fact {
    const KIND: &'static str = "fact";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 64 * 1024;
}

/// Version 1 of a link that apply writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its place, from 1.
    pub sequence: u64,
    /// Digest of the link before it; [`Digest::ZERO`] for the first.
    pub previous: Digest,
    /// The State's clock.
    pub at: Timestamp,
    /// What happened.
    pub entry: Entry,
}

impl Format for AuditRecord {
    const KIND: &'static str = "audit record";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 48 * 1024;
}

/// What happened, by whom, for whom, because of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who.
    pub actor: Actor,
    /// Dotted name in the past tense, such as `deployment.created`.
    pub action: String,
    /// Whose thing it is.
    pub tenant: Option<TenantId>,
    /// Which unit, if one.
    pub unit: Option<UnitId>,
    /// The request that ties the story together.
    pub request: RequestId,
    /// For people.
    pub detail: String,
    /// The proof of a person's request.
    pub warrant: Option<Warrant>,
}

/// The domain under which links written by apply are hashed.
pub const AUDIT_DOMAIN: &str = "dotmac/audit/v1";

impl Link {
    /// Digest of the link: what the next one carries as `previous`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Entry(bytes) => Digest::tagged(AUDIT_DOMAIN, bytes),
            Self::Record(record) => record.digest(),
        }
    }
}

/// Facts collected while one envelope is applied.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<Fact>);

impl Facts {
    pub(crate) fn push(&mut self, fact: Fact) {
        self.0.push(fact);
    }

    pub(crate) fn done(self) -> Vec<Fact> {
        self.0
    }
}

impl State {
    /// Appends an entry to its tenant's stream, or to the platform's.
    pub(crate) fn append_entry(&mut self, entry: Entry, at: Timestamp, facts: &mut Facts) {
        let stream = entry
            .tenant
            .clone()
            .map_or(Stream::Platform, Stream::Tenant);
        let head = self
            .streams
            .get(&stream)
            .copied()
            .unwrap_or(ChainHead::START);
        let sequence = head.sequence.saturating_add(1);
        let record = AuditRecord {
            sequence,
            previous: head.digest,
            at,
            entry,
        };
        let bytes = codec::encode(&record).expect("texts of an entry are cut to their limits");
        self.append_link(stream, sequence, Link::Entry(bytes), facts);
    }

    /// Appends a link whose place was checked.
    pub(crate) fn append_link(
        &mut self,
        stream: Stream,
        sequence: u64,
        link: Link,
        facts: &mut Facts,
    ) {
        self.streams.insert_mut(
            stream.clone(),
            ChainHead {
                sequence,
                digest: link.digest(),
            },
        );
        facts.push(Fact {
            stream,
            sequence,
            link,
        });
    }
}
