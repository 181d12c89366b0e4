//! How an agent is shut out for good: only once it keeps nothing any more, so that nothing is ever orphaned by it. Its
//! name and key stay known, because its records are still to be verified, and because it must not come back.

use dotmac_protocol::{
    ids::{AgentId, DeploymentId, RegionId, UnitId},
    keys::PublicKey,
    time::Timestamp,
    wave::Verb,
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    desired::Unit,
    envelope::Envelope,
    fleet::Agent,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::{Status, expect_revision},
};

/// Revoked agents kept at most; the one revoked first goes first.
pub const REVOKED_AGENTS_MAX: usize = 20_000;

/// What stays of a revoked agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedAgent {
    /// Where it worked.
    pub region: RegionId,
    /// Signed its records.
    pub identity: PublicKey,
    /// When it had joined.
    pub enrolled_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Timestamp,
}

impl Agent {
    /// Its revision: the first, until it is revoked.
    #[must_use]
    pub fn revision(&self) -> u64 {
        1
    }
}

impl RevokedAgent {
    /// Its revision: the last one.
    #[must_use]
    pub fn revision(&self) -> u64 {
        2
    }
}

impl State {
    pub(crate) fn revoke_agent(
        &mut self,
        envelope: &Envelope,
        id: &AgentId,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::AgentDelete, None)?;
        if let Some(revoked) = self.revoked_agents.get(id) {
            expect_revision(envelope, "agent", revoked.revision())?;
            return Ok(Accepted::Agent(id.clone()));
        }
        let Some(agent) = self.agents.get(id) else {
            return Err(Rejection::not_found("agent", id));
        };
        expect_revision(envelope, "agent", agent.revision())?;
        if let Some(deployment) = self.kept_by(id).next() {
            let count = self.kept_by(id).count();
            let detail = format!(
                "agent {id} still keeps {count} of the deployments, {deployment} for one: delete them and wait until they \
                 are destroyed"
            );
            return Err(Rejection::new(Code::WrongState, detail));
        }
        let revoked = RevokedAgent {
            region: agent.region.clone(),
            identity: agent.identity,
            enrolled_at: agent.enrolled_at,
            revoked_at: now,
        };
        self.drop_units_of(id);
        self.await_no_more(id);
        self.agents.remove_mut(id);
        self.forget_revoked_agent();
        self.revoked_agents.insert_mut(id.clone(), revoked);
        Ok(Accepted::Agent(id.clone()))
    }

    /// The deployments that an agent has not removed, by their units and by what they say of themselves.
    pub fn kept_by(&self, agent: &AgentId) -> impl Iterator<Item = &DeploymentId> {
        let units = self
            .units_of(agent)
            .filter(|(_, unit)| !self.is_removed(unit))
            .map(|(_, unit)| &unit.deployment);
        let given = self
            .deployments
            .iter()
            .filter(move |(id, one)| {
                one.agent.as_ref() == Some(agent)
                    && one.status != Status::Destroyed
                    && !self
                        .units
                        .contains_key(&(agent.clone(), UnitId::instance(id)))
            })
            .map(|(id, _)| id);
        units.chain(given)
    }

    /// The key that an agent signs its records with; of a revoked one, too.
    #[must_use]
    pub fn identity_of(&self, agent: &AgentId) -> Option<PublicKey> {
        let present = self.agents.get(agent).map(|one| one.identity);
        present.or_else(|| Some(self.revoked_agents.get(agent)?.identity))
    }

    /// How many units an agent keeps true, or has not removed yet.
    #[must_use]
    pub fn units_kept_by(&self, agent: &AgentId) -> usize {
        self.units_of(agent)
            .filter(|(_, unit)| !self.is_removed(unit))
            .count()
    }

    /// Whether a unit is a tombstone that its agent has obeyed.
    fn is_removed(&self, unit: &Unit) -> bool {
        let is_obeyed = self
            .deployments
            .get(&unit.deployment)
            .is_none_or(|one| one.status == Status::Destroyed);
        unit.verb == Verb::Remove && unit.acknowledged_generation >= unit.generation && is_obeyed
    }

    /// Its tombstones have nobody to go to any more.
    fn drop_units_of(&mut self, agent: &AgentId) {
        let units: Vec<(UnitId, u64)> = self
            .units_of(agent)
            .map(|(id, unit)| (id.clone(), unit.sealed_in))
            .collect();
        for (unit, sealed_in) in units {
            // Signers vouch for a wave as a whole: what else was in it is sealed again.
            self.break_wave(sealed_in);
            self.units.remove_mut(&(agent.clone(), unit));
        }
    }

    fn forget_revoked_agent(&mut self) {
        if self.revoked_agents.size() < REVOKED_AGENTS_MAX {
            return;
        }
        let oldest = self
            .revoked_agents
            .iter()
            .min_by_key(|(_, one)| one.revoked_at);
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.revoked_agents.remove_mut(&id);
        }
    }
}
