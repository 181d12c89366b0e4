//! Once faults are over everything that was asked for becomes so: controllers are level, agents hold the newest orders,
//! what they told counts, and nothing is left on its way.

use dotmac_domain::tenancy::Status;

use super::{AgentView, ControllerView, Invariant, Verdict, View};

pub(super) struct AgentsConverge;

impl Invariant for AgentsConverge {
    fn name(&self) -> &'static str {
        "agents_converge"
    }

    fn conclude(&mut self, view: &View<'_>) -> Verdict {
        match unsettled(view) {
            None => Ok(()),
            Some(why) => Err(why),
        }
    }
}

/// What is not as it should be in the end.
pub(super) fn unsettled(view: &View<'_>) -> Option<String> {
    if !view.is_idle {
        return Some("somebody still waits for an answer".into());
    }
    let leader = view.members().find(|one| one.leads_in.is_some());
    let Some(leader) = leader else {
        return Some("nobody leads".into());
    };
    if let Some(behind) = view.members().find(|one| one.applied != leader.applied) {
        return Some(format!(
            "controller {} applied {} entries, controller {} {}",
            leader.place, leader.applied, behind.place, behind.applied
        ));
    }
    let mut deployments = leader.state.deployments.iter();
    let open = deployments.find(|(_, one)| {
        !matches!(
            one.status,
            Status::Active | Status::Suspended | Status::Destroyed
        ) || one.waiting.is_some()
    });
    if let Some((id, deployment)) = open {
        return Some(format!(
            "{id} is {}: {:?}",
            deployment.status.as_str(),
            deployment.waiting
        ));
    }
    view.agents
        .iter()
        .find_map(|agent| unsettled_agent(leader, agent))
}

fn unsettled_agent(leader: &ControllerView, agent: &AgentView) -> Option<String> {
    let Some(desired) = &agent.desired else {
        return Some(format!("agent {} does not run", agent.id));
    };
    if !agent.is_heard {
        return Some(format!("agent {} has records that do not count", agent.id));
    }
    for (id, unit) in leader.state.units_of(&agent.id) {
        let held = desired.get(id).map(|wanted| wanted.generation);
        if held != Some(unit.generation) {
            return Some(format!(
                "agent {} holds {held:?} of {id}, wanted is {}",
                agent.id, unit.generation
            ));
        }
    }
    None
}
