//! Why a deployment is not done yet, since when, and who can change it (law 10). Said again after everything that
//! may change the answer.

use dotmac_protocol::{
    ids::{AgentId, DeploymentId, UnitId},
    record::HealthStatus,
    time::Timestamp,
    wave::Verb,
};

use super::Unit;
use crate::{
    fleet::Presence,
    signer,
    state::State,
    tenancy::{Deployment, Status, Waiting},
};

impl State {
    /// Says again what the deployments of an agent wait for.
    pub(crate) fn refresh_waiting(&mut self, agent: &AgentId, now: Timestamp) {
        let ids: Vec<DeploymentId> = self
            .units_of(agent)
            .map(|(_, unit)| unit.deployment.clone())
            .collect();
        for id in ids {
            self.refresh_waiting_of(&id, now);
        }
    }

    /// Says again what one deployment waits for; `since` moves only with the reason.
    pub(crate) fn refresh_waiting_of(&mut self, id: &DeploymentId, now: Timestamp) {
        let Some(deployment) = self.deployments.get(id) else {
            return;
        };
        let found = self.reason_of(id, deployment);
        let is_same = match (&found, &deployment.waiting) {
            (Some((reason, _)), Some(waiting)) => *reason == waiting.reason,
            (found, waiting) => found.is_none() && waiting.is_none(),
        };
        if is_same {
            return;
        }
        let waiting = found.map(|(reason, who)| Waiting {
            reason,
            since: now,
            who,
        });
        let updated = deployment.updated_at;
        self.change_deployment(id, updated, |deployment| deployment.waiting = waiting);
    }

    /// The reason, and who can change it; `None` when nothing is waited for.
    fn reason_of(&self, id: &DeploymentId, deployment: &Deployment) -> Option<(String, String)> {
        match deployment.status {
            Status::Destroyed => return None,
            Status::Active | Status::Suspended
                if self.is_settled(id, deployment) && !self.is_quarantined(id, deployment) =>
            {
                return None;
            }
            Status::Suspended if deployment.agent.is_none() => {
                return Some((
                    "its license was withdrawn before an agent had it".to_owned(),
                    format!("the operator: `dotmac licenses reinstate {id}`"),
                ));
            }
            _ => {}
        }
        if deployment.delete_after.is_some() {
            let waiting = deployment.waiting.clone();
            return waiting.map(|waiting| (waiting.reason, waiting.who));
        }
        let Some(agent) = &deployment.agent else {
            let region = &deployment.region;
            return Some((
                format!("no agent has joined region {region} yet"),
                format!(
                    "an operator: `dotmac agents token --region {region}` and start an agent with it"
                ),
            ));
        };
        let key = (agent.clone(), UnitId::instance(id));
        if let Some(held) = self
            .recovery
            .as_ref()
            .and_then(|one| one.quarantined.get(&key))
        {
            return Some((
                format!(
                    "its agent keeps generation {}, which is newer than the restored backup: it is left as it is",
                    held.generation
                ),
                format!(
                    "an operator: compare it with `dotmac agents show {agent}`, then ask for what it should be"
                ),
            ));
        }
        let Some(unit) = self.units.get(&key) else {
            return Some((
                "its order does not fit into one message".to_owned(),
                "whoever asked for it: ask for less configuration".to_owned(),
            ));
        };
        if unit.acknowledged_generation >= unit.generation {
            return Some(reason_when_held(deployment, agent, unit));
        }
        Some(self.reason_on_the_way(agent, unit))
    }

    /// Whether its agent has what was ordered last and has made it so.
    fn is_settled(&self, id: &DeploymentId, deployment: &Deployment) -> bool {
        let agent = deployment.agent.as_ref();
        let unit = agent.and_then(|agent| self.units.get(&(agent.clone(), UnitId::instance(id))));
        let is_held = unit.is_none_or(|unit| unit.acknowledged_generation >= unit.generation);
        let is_seen = deployment.observed_generation == deployment.generation;
        let is_stopped = deployment.health == HealthStatus::Stopped;
        is_held && is_seen && (deployment.status == Status::Active || is_stopped)
    }

    /// Whether its agent keeps something newer than a restored State knows.
    fn is_quarantined(&self, id: &DeploymentId, deployment: &Deployment) -> bool {
        let key = deployment
            .agent
            .as_ref()
            .map(|agent| (agent.clone(), UnitId::instance(id)));
        let recovery = self.recovery.as_ref();
        key.is_some_and(|key| recovery.is_some_and(|one| one.quarantined.contains_key(&key)))
    }

    fn reason_on_the_way(&self, agent: &AgentId, unit: &Unit) -> (String, String) {
        let presence = self.agents.get(agent).map(|agent| &agent.presence);
        if let Some(Presence::Disconnected { .. }) = presence {
            return (
                format!("agent {agent} is not connected"),
                "whoever runs that agent".to_owned(),
            );
        }
        if self.awaits(agent) {
            return (
                format!(
                    "agent {agent} has not told yet all that it did after the backup that was restored"
                ),
                format!("agent {agent}, as soon as it is connected"),
            );
        }
        if let Some(refusal) = &unit.refused {
            return (
                format!("agent {agent} refused the order: {refusal}"),
                "an operator: see `dotmac audit`".to_owned(),
            );
        }
        if let Some(number) = unit.wave {
            return (
                format!(
                    "wave {number} is on its way to agent {agent}: signed by a majority of the controllers, then taken by the agent"
                ),
                format!(
                    "the controllers (`dotmac cluster status` shows who signs), then agent {agent}"
                ),
            );
        }
        match signer::prove(self, agent, unit) {
            Ok(()) => (
                "its order is not sealed yet".to_owned(),
                "the leading controller".to_owned(),
            ),
            Err(refusal) => (
                format!("no order for it will be signed: {refusal}"),
                "an operator: see `dotmac audit`, and ask for it again".to_owned(),
            ),
        }
    }
}

fn reason_when_held(deployment: &Deployment, agent: &AgentId, unit: &Unit) -> (String, String) {
    if unit.verb == Verb::Remove {
        let reason = "its agent has the order and has not confirmed the removal yet";
        return (reason.to_owned(), format!("agent {agent}"));
    }
    if deployment.status == Status::Suspended {
        let reason = "its agent has the order and has not stopped it yet";
        return (reason.to_owned(), format!("agent {agent}"));
    }
    if deployment.health_reason.is_empty() {
        let reason = "its agent has the order and its probes are not healthy yet";
        return (reason.to_owned(), format!("agent {agent}"));
    }
    (
        deployment.health_reason.clone(),
        format!("agent {agent} keeps trying"),
    )
}
