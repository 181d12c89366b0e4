//! Version 1 of the State as it is written, frozen: what a cluster writes until it is finalized, so that the program of
//! before can still be put back. Golden files hold its bytes. Only the outermost layer is repeated here: the entities
//! are those of today, and get a frozen copy of their own once they change.

use dotmac_protocol::{
    codec::Format,
    digest::Digest,
    ids::{AgentId, DeploymentId, RegionId, RequestId, TenantId, TokenId, UnitId},
    record::ChainHead,
    time::Timestamp,
    trust::TrustRoot,
};
use rpds::QueueSync;
use serde::{Deserialize, Serialize};

use super::{Answer, Map};
use crate::{
    access::Token,
    audit::Stream,
    changed::Entities,
    clock::SealedClock,
    command::Genesis,
    desired::{Unit, Wave},
    fleet::{Agent, JoinToken, RevokedAgent},
    region::Region,
    release::{Release, ReleaseKey},
    reported::Reported,
    tenancy::{Deployment, Tenant},
};

/// Everything that was replicated under version 1 of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    pub(super) rules: u16,
    pub(super) now: Timestamp,
    pub(super) genesis: Option<Genesis>,
    pub(super) trust: Option<TrustRoot>,
    pub(super) tokens: Entities<TokenId, Token>,
    pub(super) token_ids: Map<Digest, TokenId>,
    pub(super) tenants: Entities<TenantId, Tenant>,
    pub(super) deployments: Entities<DeploymentId, Deployment>,
    pub(super) domains: Map<String, DeploymentId>,
    pub(super) releases: Entities<ReleaseKey, Release>,
    pub(super) channels: Map<String, ReleaseKey>,
    pub(super) join_tokens: Map<TokenId, JoinToken>,
    pub(super) agents: Entities<AgentId, Agent>,
    pub(super) revoked_agents: Entities<AgentId, RevokedAgent>,
    pub(super) regions: Entities<RegionId, Region>,
    pub(super) units: Map<(AgentId, UnitId), Unit>,
    pub(super) waves: Map<u64, Wave>,
    pub(super) open_orders: Map<u64, u32>,
    pub(super) wave_number: u64,
    pub(super) streams: Map<Stream, ChainHead>,
    pub(super) answers: Map<RequestId, Answer>,
    pub(super) answer_order: QueueSync<RequestId>,
    pub(super) removals: Map<(Timestamp, DeploymentId), TenantId>,
    pub(super) clock: Option<SealedClock>,
    pub(super) reported: Map<DeploymentId, Reported>,
}

impl Format for State {
    const KIND: &'static str = "state";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = super::State::BYTES_MAX;
}

impl State {
    /// The part of a State that version 1 knows; under its rules that is all of it. Shares what it holds.
    #[must_use]
    pub fn of(state: &super::State) -> Self {
        Self {
            rules: state.rules,
            now: state.now,
            genesis: state.genesis.clone(),
            trust: state.trust.clone(),
            tokens: state.tokens.clone(),
            token_ids: state.token_ids.clone(),
            tenants: state.tenants.clone(),
            deployments: state.deployments.clone(),
            domains: state.domains.clone(),
            releases: state.releases.clone(),
            channels: state.channels.clone(),
            join_tokens: state.join_tokens.clone(),
            agents: state.agents.clone(),
            revoked_agents: state.revoked_agents.clone(),
            regions: state.regions.clone(),
            units: state.units.clone(),
            waves: state.waves.clone(),
            open_orders: state.open_orders.clone(),
            wave_number: state.wave_number,
            streams: state.streams.clone(),
            answers: state.answers.clone(),
            answer_order: state.answer_order.clone(),
            removals: state.removals.clone(),
            clock: state.clock.clone(),
            reported: state.reported.clone(),
        }
    }
}

impl From<State> for super::State {
    fn from(state: State) -> Self {
        let mut seeded = Self::default();
        if let (Some(genesis), Some(trust)) = (&state.genesis, &state.trust) {
            seeded.seed_controllers(genesis, trust.clone());
        }
        Self {
            rules: state.rules,
            now: state.now,
            genesis: state.genesis,
            trust: state.trust,
            tokens: state.tokens,
            token_ids: state.token_ids,
            tenants: state.tenants,
            deployments: state.deployments,
            domains: state.domains,
            releases: state.releases,
            channels: state.channels,
            join_tokens: state.join_tokens,
            agents: state.agents,
            revoked_agents: state.revoked_agents,
            regions: state.regions,
            units: state.units,
            waves: state.waves,
            open_orders: state.open_orders,
            wave_number: state.wave_number,
            streams: state.streams,
            answers: state.answers,
            answer_order: state.answer_order,
            removals: state.removals,
            clock: state.clock,
            reported: state.reported,
            ..seeded
        }
    }
}
