//! Agents: how they are admitted, which keys are theirs, whether they are connected, what they are good for, how they are
//! shut out.

use dotmac_protocol::{
    digest::Digest,
    frame,
    ids::{AgentId, IncarnationId, NodeId, RegionId},
    keys::PublicKey,
    time::Timestamp,
    wave::Verb,
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    command::EnrolAgent,
    envelope::{Actor, Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    signer,
    state::State,
};

mod join;
mod revocation;

pub use join::{JOIN_TOKEN_LIFETIME_MAX_MS, JOIN_TOKENS_MAX, JoinToken, JoinTokenStatus};
pub use revocation::{REVOKED_AGENTS_MAX, RevokedAgent};

/// An agent as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Where it works.
    pub region: RegionId,
    /// Its present life.
    pub incarnation: IncarnationId,
    /// Signs its records and recovery requests.
    pub identity: PublicKey,
    /// X25519 key that credentials are sealed to.
    pub seal_key: [u8; 32],
    /// Digest of the key of its newest certificate; only this and the one before are admitted.
    pub key: Digest,
    /// The key before, while its certificate may still be in use.
    pub key_before: Option<Digest>,
    /// When the newest certificate ends.
    pub not_after: Timestamp,
    /// When it joined.
    pub enrolled_at: Timestamp,
    /// Whether it is connected, as far as is known.
    pub presence: Presence,
    /// Who vouches for it: the request that made its join token.
    pub warrant: Warrant,
}

/// Whether an agent is connected. A new leader starts at what the State says, never at "down".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Nothing was heard yet.
    Unknown,
    /// It is.
    Connected {
        /// To which controller.
        node: NodeId,
        /// Version of its program.
        software: String,
        /// Since when.
        since: Timestamp,
    },
    /// It is not. Cut off is not down (law 5): nothing follows from it.
    Disconnected {
        /// Since when.
        since: Timestamp,
    },
}

impl State {
    pub(crate) fn enrol_agent(
        &mut self,
        envelope: &Envelope,
        enrol: &EnrolAgent,
        now: Timestamp,
    ) -> Reply {
        let refuse = |why: &str| Err(Rejection::new(Code::JoinTokenRefused, why));
        let Some(token) = self.join_tokens.get(&enrol.token).cloned() else {
            return refuse("the join token is unknown");
        };
        if token.secret_digest != frame::JoinToken::digest_of_proof(&enrol.proof) {
            return refuse("the join token is unknown");
        }
        if token.region != enrol.region {
            return refuse("the join token is bound to another region");
        }
        let agent = agent_name(&enrol.region, &enrol.identity);
        if envelope.actor != Actor::Agent(agent.clone()) {
            return refuse("an agent joins for itself only");
        }
        if token
            .used_by
            .as_ref()
            .is_some_and(|used_by| *used_by != agent)
        {
            return refuse("the join token was used already");
        }
        if token.used_by.is_none() && token.revoked_at.is_some() {
            return refuse("the join token was revoked");
        }
        if token.used_by.is_none() && token.expires_at <= now {
            return refuse("the join token has expired");
        }
        if self.revoked_agents.contains_key(&agent) {
            return refuse("this agent was revoked; a new one has another identity");
        }
        let before = self.agents.get(&agent);
        // Whoever knows an agent's public identity must not get its name: only the very same keys may enrol again.
        let is_retry = |known: &Agent| {
            known.key == enrol.key
                && known.seal_key == enrol.seal_key
                && known.incarnation == enrol.incarnation
        };
        if before.is_some_and(|known| !is_retry(known)) {
            return refuse(
                "this agent has joined already; its identity key recovers a certificate",
            );
        }
        // A proven admission stays the one that counts, whichever token the agent shows later.
        let action = Some((Permission::AgentWrite, None));
        let is_proven =
            |known: &&Agent| signer::check_request(self, &known.warrant, action).is_ok();
        let admission = before.filter(is_proven).map(|known| &known.warrant);
        let entry = Agent {
            region: enrol.region.clone(),
            incarnation: enrol.incarnation.clone(),
            identity: enrol.identity,
            seal_key: enrol.seal_key,
            key: enrol.key,
            key_before: before.and_then(|agent| agent.key_before),
            not_after: enrol.not_after,
            enrolled_at: before.map_or(now, |agent| agent.enrolled_at),
            presence: before.map_or(Presence::Unknown, |agent| agent.presence.clone()),
            warrant: admission.unwrap_or(&token.warrant).clone(),
        };
        self.agents.insert_mut(agent.clone(), entry);
        let used = JoinToken {
            used_by: Some(agent.clone()),
            ..token
        };
        self.join_tokens.insert_mut(enrol.token.clone(), used);
        self.place_waiting(&enrol.region, now);
        Ok(Accepted::Agent(agent))
    }

    pub(crate) fn renew_certificate(
        &mut self,
        envelope: &Envelope,
        key: Digest,
        not_after: Timestamp,
        _now: Timestamp,
    ) -> Reply {
        let agent = self.agent_of(envelope)?;
        let entry = self.agents.get(&agent).expect("agent_of found it").clone();
        if entry.key != key {
            let key_before = Some(entry.key);
            self.agents.insert_mut(
                agent.clone(),
                Agent {
                    key,
                    key_before,
                    not_after,
                    ..entry
                },
            );
        }
        Ok(Accepted::Agent(agent))
    }

    /// The agent that speaks; one agent is worth one agent (law 4).
    pub(crate) fn agent_of(&self, envelope: &Envelope) -> Result<AgentId, Rejection> {
        match &envelope.actor {
            Actor::Agent(agent) if self.agents.contains_key(agent) => Ok(agent.clone()),
            Actor::Agent(agent) => Err(Rejection::not_found("agent", agent)),
            Actor::Person(_) | Actor::Planner | Actor::Founder => Err(Rejection::new(
                Code::Forbidden,
                "only an agent reports for itself",
            )),
        }
    }

    pub(crate) fn note_presence(
        &mut self,
        envelope: &Envelope,
        changes: &[(AgentId, Presence)],
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        for (id, presence) in changes {
            if let Some(agent) = self.agents.get(id) {
                let entry = Agent {
                    presence: presence.clone(),
                    ..agent.clone()
                };
                self.agents.insert_mut(id.clone(), entry);
                self.refresh_waiting(id, now);
            }
        }
        Ok(Accepted::Done)
    }

    pub(crate) fn require_planner(&self, envelope: &Envelope) -> Result<(), Rejection> {
        match envelope.actor {
            Actor::Planner => Ok(()),
            Actor::Person(_) | Actor::Agent(_) | Actor::Founder => Err(Rejection::new(
                Code::Forbidden,
                "only the leader's planner asks for this",
            )),
        }
    }

    /// The agent of a region for a new deployment: a connected one before others, then the one with the fewest units,
    /// then the first by name.
    #[must_use]
    pub fn place(&self, region: &RegionId) -> Option<AgentId> {
        let load = |id: &AgentId| {
            self.units_of(id)
                .filter(|(_, unit)| unit.verb == Verb::Apply)
                .count()
        };
        let distance = |presence: &Presence| match presence {
            Presence::Connected { .. } => 0,
            Presence::Unknown => 1,
            Presence::Disconnected { .. } => 2,
        };
        self.agents
            .iter()
            .filter(|(_, agent)| agent.region == *region)
            .min_by_key(|(id, agent)| (distance(&agent.presence), load(id), (*id).clone()))
            .map(|(id, _)| id.clone())
    }

    /// Whether a certificate with this key is an agent's (only those in the State are admitted).
    #[must_use]
    pub fn admits(&self, agent: &AgentId, key: Digest) -> bool {
        self.agents
            .get(agent)
            .is_some_and(|agent| agent.key == key || agent.key_before == Some(key))
    }
}

/// An agent's name: its region and the first 8 digits of its identity key's name, so that a retried enrolment gives the same one.
#[must_use]
pub fn agent_name(region: &RegionId, identity: &PublicKey) -> AgentId {
    let digits = identity.id().0.hex();
    format!("{region}-{}", &digits[..8])
        .parse()
        .expect("a region of 40 and 8 digits fit")
}
