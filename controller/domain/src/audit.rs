//! Audit facts: hash-chained streams, one for the platform, one a tenant, one for each life of each agent, three series
//! a deployment.
//!
//! The State keeps the end of every stream; the ledger keeps the links. A link that is missing, moved or changed
//! breaks the chain behind it.

use std::{fmt, str::FromStr};

use dotmac_protocol::{
    codec::{self, DecodeError, Format},
    digest::Digest,
    ids::{AgentId, DeploymentId, IdError, IncarnationId, RequestId, TenantId, UnitId},
    record::{ChainHead, Record, SignedRecord, reports::Report},
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
    /// What a deployment's instance used, by its own count.
    Usage(DeploymentId),
    /// What happened in a deployment's instance, as it told.
    Events(DeploymentId),
    /// What the probes of a deployment found, minute by minute.
    Minutes(DeploymentId),
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => formatter.write_str("platform"),
            Self::Tenant(tenant) => write!(formatter, "tenant/{tenant}"),
            Self::Agent(agent, incarnation) => write!(formatter, "agent/{agent}/{incarnation}"),
            Self::Usage(deployment) => write!(formatter, "usage/{deployment}"),
            Self::Events(deployment) => write!(formatter, "events/{deployment}"),
            Self::Minutes(deployment) => write!(formatter, "minutes/{deployment}"),
        }
    }
}

impl FromStr for Stream {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let unknown = || IdError {
            kind: "stream",
            found: text.chars().take(80).collect(),
            allowed: "platform, tenant/ID, agent/ID/INCARNATION, usage/ID, events/ID or minutes/ID",
        };
        match text.split('/').collect::<Vec<_>>()[..] {
            ["platform"] => Ok(Self::Platform),
            ["tenant", tenant] => Ok(Self::Tenant(tenant.parse()?)),
            ["agent", agent, incarnation] => Ok(Self::Agent(agent.parse()?, incarnation.parse()?)),
            ["usage", deployment] => Ok(Self::Usage(deployment.parse()?)),
            ["events", deployment] => Ok(Self::Events(deployment.parse()?)),
            ["minutes", deployment] => Ok(Self::Minutes(deployment.parse()?)),
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
    /// Written by apply: an encoded [`ReportRecord`], kept as first encoded.
    Report(Vec<u8>),
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

/// Version 1 of a link of a series: one report, and the signed record that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecord {
    /// Its place, from 1.
    pub sequence: u64,
    /// Digest of the link before it; [`Digest::ZERO`] for the first.
    pub previous: Digest,
    /// The State's clock when it came.
    pub at: Timestamp,
    /// The agent that brought it.
    pub agent: AgentId,
    /// Which life of the agent.
    pub incarnation: IncarnationId,
    /// The number of the record, in that life's chain.
    pub record: u64,
    /// What was reported.
    pub report: Report,
}

impl Format for ReportRecord {
    const KIND: &'static str = "report record";
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
/// The domain under which links of series are hashed.
pub const REPORT_DOMAIN: &str = "dotmac/report/v1";

impl Link {
    /// Digest of the link before it.
    ///
    /// # Errors
    /// When the link is none of this program's.
    pub fn previous(&self) -> Result<Digest, DecodeError> {
        Ok(match self {
            Self::Entry(bytes) => codec::decode::<AuditRecord>(bytes)?.previous,
            Self::Record(record) => codec::decode::<Record>(&record.body)?.previous,
            Self::Report(bytes) => codec::decode::<ReportRecord>(bytes)?.previous,
        })
    }

    /// Digest of the link: what the next one carries as `previous`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Entry(bytes) => Digest::tagged(AUDIT_DOMAIN, bytes),
            Self::Record(record) => record.digest(),
            Self::Report(bytes) => Digest::tagged(REPORT_DOMAIN, bytes),
        }
    }

    /// Its own number, and the digest of the link before it, as it says itself.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn place(&self) -> Result<(u64, Digest), DecodeError> {
        Ok(match self {
            Self::Entry(bytes) => {
                let record: AuditRecord = codec::decode(bytes)?;
                (record.sequence, record.previous)
            }
            Self::Record(signed) => {
                let record: Record = codec::decode(&signed.body)?;
                (record.sequence, record.previous)
            }
            Self::Report(bytes) => {
                let record: ReportRecord = codec::decode(bytes)?;
                (record.sequence, record.previous)
            }
        })
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
        let head = self.head_of(&stream);
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

    /// Appends a report to its series.
    pub(crate) fn append_report(
        &mut self,
        stream: Stream,
        (record, report): (&Record, Report),
        at: Timestamp,
        facts: &mut Facts,
    ) {
        let head = self.head_of(&stream);
        let sequence = head.sequence.saturating_add(1);
        let link = ReportRecord {
            sequence,
            previous: head.digest,
            at,
            agent: record.agent.clone(),
            incarnation: record.incarnation.clone(),
            record: record.sequence,
            report,
        };
        let bytes = codec::encode(&link).expect("a report is smaller than the record it came in");
        self.append_link(stream, sequence, Link::Report(bytes), facts);
    }

    fn head_of(&self, stream: &Stream) -> ChainHead {
        let head = self.streams.get(stream).copied();
        head.unwrap_or(ChainHead::START)
    }

    /// Appends a link whose place was checked.
    pub(crate) fn append_link(
        &mut self,
        stream: Stream,
        sequence: u64,
        link: Link,
        facts: &mut Facts,
    ) {
        let before = self.head_of(&stream);
        self.mark_period(&stream, before);
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
