//! Nothing is removed that nobody asked to delete: no unit leaves an agent's journal, no instance its host, and no
//! tombstone comes without a request (law 2).

use std::collections::{BTreeMap, BTreeSet};

use dotmac_agent::unit::Order;
use dotmac_protocol::ids::{AgentId, UnitId};

use super::{AgentView, Invariant, Verdict, View};

#[derive(Default)]
pub(super) struct AbsenceNeverDestroys {
    ordered: BTreeMap<AgentId, BTreeSet<UnitId>>,
    ran: BTreeMap<AgentId, (u64, BTreeSet<UnitId>)>,
}

impl AbsenceNeverDestroys {
    fn look(&mut self, agent: &AgentView, deleted: &BTreeSet<UnitId>) -> Verdict {
        let Some(desired) = &agent.desired else {
            return Ok(());
        };
        let ordered = self.ordered.entry(agent.id.clone()).or_default();
        if let Some(unit) = ordered.iter().find(|unit| !desired.contains_key(*unit)) {
            return Err(format!("{unit} left the journal of agent {}", agent.id));
        }
        ordered.extend(desired.keys().cloned());
        for wanted in desired.values() {
            if wanted.order == Order::Remove && !deleted.contains(&wanted.unit) {
                return Err(format!(
                    "agent {} is to remove {}, which nobody deleted",
                    agent.id, wanted.unit
                ));
            }
        }
        let ran = self.ran.entry(agent.id.clone()).or_default();
        if ran.0 == agent.power_losses {
            let is_gone =
                |unit: &&UnitId| !agent.instances.contains_key(*unit) && !deleted.contains(*unit);
            if let Some(unit) = ran.1.iter().find(is_gone) {
                return Err(format!("{unit} is gone from the host of {}", agent.id));
            }
        }
        *ran = (
            agent.power_losses,
            agent.instances.keys().cloned().collect(),
        );
        Ok(())
    }
}

impl Invariant for AbsenceNeverDestroys {
    fn name(&self) -> &'static str {
        "absence_never_destroys"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        let deleted = view.deleted.iter().map(UnitId::instance).collect();
        for agent in &view.agents {
            self.look(agent, &deleted)?;
        }
        Ok(())
    }
}
