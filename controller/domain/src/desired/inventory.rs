//! What an agent says it holds, against what the outbox believes it holds. An agent whose disk lost an order gets it
//! again; nothing is ever removed because an inventory lacks it (law 2).

use dotmac_protocol::{
    frame::InventoryItem,
    ids::{AgentId, Generation, Sequence},
    record::HealthStatus,
    time::Timestamp,
    wave::Verb,
};

use crate::{
    command::Behind,
    desired::Unit,
    envelope::Envelope,
    reply::{Accepted, Reply},
    state::State,
    tenancy::Status,
};

impl State {
    /// The units of which an agent holds less than it acknowledged once: its disk went back, or a file of it broke.
    #[must_use]
    pub fn behind(&self, agent: &AgentId, inventory: &[InventoryItem]) -> Vec<Behind> {
        self.units_of(agent)
            .filter_map(|(unit_id, unit)| {
                let item = inventory.iter().find(|item| item.unit == *unit_id);
                let behind = Behind {
                    unit: unit_id.clone(),
                    sequence: item.map_or(Sequence(0), |item| item.sequence),
                    generation: item.map_or(Generation(0), |item| item.generation),
                };
                self.lacks(unit, &behind).then_some(behind)
            })
            .collect()
    }

    /// Whether a unit has to be ordered again. A removal that was confirmed stays done.
    fn lacks(&self, unit: &Unit, behind: &Behind) -> bool {
        let is_gone = unit.verb == Verb::Remove
            && self
                .deployments
                .get(&unit.deployment)
                .is_none_or(|deployment| deployment.status == Status::Destroyed);
        behind.sequence < unit.acknowledged && !is_gone
    }

    pub(crate) fn note_inventory(
        &mut self,
        envelope: &Envelope,
        behind: &[Behind],
        now: Timestamp,
    ) -> Reply {
        let agent = self.agent_of(envelope)?;
        for one in behind {
            let key = (agent.clone(), one.unit.clone());
            let Some(unit) = self.units.get(&key).cloned() else {
                continue;
            };
            if !self.lacks(&unit, one) {
                continue;
            }
            let id = unit.deployment.clone();
            let entry = Unit {
                acknowledged: one.sequence,
                acknowledged_generation: one
                    .generation
                    .min(Generation(unit.generation.0.saturating_sub(1))),
                wave: None,
                refused: None,
                ..unit
            };
            self.put_unit(key, entry);
            self.change_deployment(&id, now, |deployment| {
                deployment.health = HealthStatus::Unknown;
                deployment.health_reason = "its agent lost the order and is given it again".into();
                deployment.components.clear();
                if deployment.status == Status::Active {
                    deployment.status = Status::Degraded;
                }
            });
            self.refresh_waiting_of(&id, now);
        }
        Ok(Accepted::Agent(agent))
    }
}
