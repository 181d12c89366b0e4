//! What an agent was ordered once never makes room for something older: neither an older generation nor an older order,
//! also after its power went (laws 1 and 3).

use std::collections::BTreeMap;

use dotmac_protocol::ids::{AgentId, Generation, Sequence, UnitId};

use super::{Invariant, Verdict, View};

#[derive(Default)]
pub(super) struct AnAgentNeverGoesBack {
    highest: BTreeMap<(AgentId, UnitId), (Generation, Sequence)>,
}

impl Invariant for AnAgentNeverGoesBack {
    fn name(&self) -> &'static str {
        "an_agent_never_goes_back"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        for agent in &view.agents {
            for wanted in agent.desired.iter().flat_map(|desired| desired.values()) {
                let now = (wanted.generation, wanted.sequence);
                let key = (agent.id.clone(), wanted.unit.clone());
                let before = self.highest.entry(key).or_insert(now);
                if now.0 < before.0 || now.1 < before.1 {
                    return Err(format!(
                        "agent {} holds generation {} sequence {} of {}, and held {} and {}",
                        agent.id, now.0, now.1, wanted.unit, before.0, before.1
                    ));
                }
                *before = now;
            }
        }
        Ok(())
    }
}
