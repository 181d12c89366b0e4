//! The replicated entities. Structure-sharing ordered maps: cloning the State costs nothing, so that a snapshot or a
//! consistent read does not stop writers.
//!
//! Its written form follows the rules in force: version 1 ([`v1`], frozen) until the cluster is finalized, version 2 (the
//! fields as they stand here) from then on. A field that a version adds keeps its default under older rules.

use dotmac_protocol::{
    codec::{self, DecodeError, EncodeError, Format},
    digest::Digest,
    ids::{
        AgentId, DeploymentId, NodeId, RegionId, RequestId, TenantId, TokenId, TrustVersion, UnitId,
    },
    record::ChainHead,
    time::Timestamp,
    trust::TrustRoot,
};
use rpds::{QueueSync, RedBlackTreeMapSync};
use serde::{Deserialize, Serialize};

pub mod v1;

use crate::{
    access::Token,
    audit::Stream,
    backups::Backups,
    changed::Entities,
    checked::CheckedBatches,
    clock::SealedClock,
    cluster::Controller,
    command::Genesis,
    desired::{Unit, Wave},
    envelope::{Actor, Envelope},
    fleet::{Agent, JoinToken, RevokedAgent},
    recovery::Recovery,
    region::Region,
    release::{Release, ReleaseKey},
    reply::Reply,
    reported::Reported,
    retention::Retained,
    rules::Raised,
    tenancy::{Deployment, Tenant},
    trust::KnownRoot,
};

/// An ordered map that shares structure with its copies.
pub type Map<K, V> = RedBlackTreeMapSync<K, V>;

pub use crate::rules::RULES_VERSION;

/// Answers kept for retries at most; the oldest go first.
pub const ANSWERS_MAX: usize = 100_000;
/// Milliseconds for which an answer is kept for retries: 24 hours.
pub const ANSWER_KEPT_MS: u64 = 24 * 3_600_000;

/// Version 2 of everything that is replicated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Version of the rules that apply follows.
    pub rules: u16,
    /// The highest `at` applied: the State's clock.
    pub now: Timestamp,
    /// How the cluster began; `None` before its first entry.
    pub genesis: Option<Genesis>,
    /// The decoded trust root in force.
    pub trust: Option<TrustRoot>,
    /// Access tokens.
    pub tokens: Entities<TokenId, Token>,
    /// Token ids by secret.
    pub token_ids: Map<Digest, TokenId>,
    /// ISPs.
    pub tenants: Entities<TenantId, Tenant>,
    /// Their deployments.
    pub deployments: Entities<DeploymentId, Deployment>,
    /// Which deployment a domain name belongs to.
    pub domains: Map<String, DeploymentId>,
    /// Releases.
    pub releases: Entities<ReleaseKey, Release>,
    /// The default release of each channel.
    pub channels: Map<String, ReleaseKey>,
    /// Join tokens, used ones too until they expire.
    pub join_tokens: Map<TokenId, JoinToken>,
    /// Agents.
    pub agents: Entities<AgentId, Agent>,
    /// Agents that were shut out.
    pub revoked_agents: Entities<AgentId, RevokedAgent>,
    /// Where workloads may run.
    pub regions: Entities<RegionId, Region>,
    /// What each agent has to keep true: the outbox.
    pub units: Map<(AgentId, UnitId), Unit>,
    /// Waves that an unacknowledged order still belongs to.
    pub waves: Map<u64, Wave>,
    /// How many orders of each wave are neither acknowledged nor replaced.
    pub open_orders: Map<u64, u32>,
    /// Number of the last wave.
    pub wave_number: u64,
    /// The end of every audit stream.
    pub streams: Map<Stream, ChainHead>,
    /// Answers to requests, for retries.
    pub answers: Map<RequestId, Answer>,
    /// The answered requests, oldest first.
    pub answer_order: QueueSync<RequestId>,
    /// Tombstones ordered within the last hour: when, and whose.
    pub removals: Map<(Timestamp, DeploymentId), TenantId>,
    /// The newest sealed clock.
    pub clock: Option<SealedClock>,
    /// What the deployments' instances reported of themselves and their probes found of them, in short.
    pub reported: Map<DeploymentId, Reported>,
    // What version 2 added; the controllers and the trust root of the genesis are there under version 1, too, and are not
    // written.
    /// When each version of the rules came into force, and by whom. Since version 2.
    pub raised: Map<u16, Raised>,
    /// Controllers, those that left too.
    pub controllers: Map<NodeId, Controller>,
    /// Every version of the trust root.
    pub trust_roots: Map<TrustVersion, KnownRoot>,
    /// What of each chain of facts was dropped, and may be. Since version 2; empty under version 1.
    pub retained: Map<Stream, Retained>,
    /// What this process knows of attested batches; no part of the State.
    #[serde(skip)]
    pub batches: CheckedBatches,
    /// What is remembered of backups.
    pub backups: Backups,
    /// What is remembered of the last restore from a backup.
    pub recovery: Option<Recovery>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When it was given.
    pub at: Timestamp,
    /// Whose request it was; nobody else gets its answer.
    pub actor: Actor,
    /// Digest of what was asked.
    pub asked: Digest,
    /// What was answered.
    pub reply: Reply,
}

impl Format for State {
    const KIND: &'static str = "state";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
}

/// A State in the form in which it is written under the rules in force. Serializing it costs no copy.
#[derive(Debug)]
pub enum Written<'s> {
    /// As programs of version 1 read it.
    V1(Box<v1::State>),
    /// As this program keeps it.
    V2(&'s State),
}

impl State {
    /// The form in which it is written: what every program that can follow its rules reads.
    #[must_use]
    pub fn written(&self) -> Written<'_> {
        match self.rules {
            0 | 1 => Written::V1(Box::new(v1::State::of(self))),
            _ => Written::V2(self),
        }
    }

    /// Encoded form, for snapshots.
    ///
    /// # Errors
    /// When it would exceed 2 GiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        match self.written() {
            Written::V1(state) => codec::encode(&*state),
            Written::V2(state) => codec::encode(state),
        }
    }

    /// Reads a snapshot back, of this version or an older one.
    ///
    /// # Errors
    /// When the bytes are no State of a known version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.first() {
            Some(&v1::State::VERSION) => codec::decode::<v1::State>(bytes).map(Self::from),
            _ => codec::decode(bytes),
        }
    }

    /// Digest of the encoded State: equal on all nodes at equal log indexes (law 6), whatever program they run.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let bytes = self
            .to_bytes()
            .expect("a State in memory is within its limit");
        Digest::tagged("dotmac/state/v1", &bytes)
    }

    /// Remembers an answer, and forgets those that are too old or too many.
    pub(crate) fn remember(&mut self, envelope: &Envelope, reply: &Reply) {
        let answer = Answer {
            at: self.now,
            actor: envelope.actor.clone(),
            asked: envelope.asked,
            reply: reply.clone(),
        };
        self.answers.insert_mut(envelope.request.clone(), answer);
        self.answer_order.enqueue_mut(envelope.request.clone());
        while let Some(oldest) = self.answer_order.peek() {
            let is_old = self
                .answers
                .get(oldest)
                .is_none_or(|answer| self.now.millis_since(answer.at) > ANSWER_KEPT_MS);
            if !is_old && self.answer_order.len() <= ANSWERS_MAX {
                break;
            }
            let oldest = oldest.clone();
            self.answers.remove_mut(&oldest);
            self.answer_order.dequeue_mut();
        }
    }
}
