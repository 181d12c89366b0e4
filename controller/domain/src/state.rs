//! The replicated entities. Structure-sharing ordered maps: cloning the State costs nothing, so that a snapshot or a
//! consistent read does not stop writers.

use dotmac_protocol::{
    codec::{self, DecodeError, EncodeError, Format},
    digest::Digest,
    ids::{AgentId, DeploymentId, RegionId, RequestId, TenantId, TokenId, UnitId},
    record::ChainHead,
    time::Timestamp,
    trust::TrustRoot,
};
use rpds::{QueueSync, RedBlackTreeMapSync};
use serde::{Deserialize, Serialize};

use crate::{
    access::Token,
    audit::Stream,
    changed::Entities,
    clock::SealedClock,
    command::Genesis,
    desired::{Unit, Wave},
    envelope::{Actor, Envelope},
    fleet::{Agent, JoinToken, RevokedAgent},
    region::Region,
    release::{Release, ReleaseKey},
    reply::Reply,
    reported::Reported,
    tenancy::{Deployment, Tenant},
};

/// An ordered map that shares structure with its copies.
pub type Map<K, V> = RedBlackTreeMapSync<K, V>;

/// The newest rules version this program knows.
pub const RULES_VERSION: u16 = 1;
/// Answers kept for retries at most; the oldest go first.
pub const ANSWERS_MAX: usize = 100_000;
/// Milliseconds for which an answer is kept for retries: 24 hours.
pub const ANSWER_KEPT_MS: u64 = 24 * 3_600_000;

/// Version 1 of everything that is replicated.
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
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
}

impl State {
    /// Encoded form, for snapshots.
    ///
    /// # Errors
    /// When it would exceed 2 GiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        codec::encode(self)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// When the bytes are no State of a known version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }

    /// Digest of the encoded State: equal on all nodes at equal log indexes (law 6).
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
