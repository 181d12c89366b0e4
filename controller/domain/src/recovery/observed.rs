//! What is known of how a deployment is. After a restore its agent's last words are as old as the backup: until the agent
//! has told again, nothing is known.

use std::borrow::Cow;

use dotmac_protocol::{
    ids::Generation,
    record::{ComponentHealth, HealthStatus},
};

use crate::{state::State, tenancy::Deployment};

/// How a deployment was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed<'a> {
    /// The generation that was seen; 0 when none was.
    pub generation: Generation,
    /// What the probes say.
    pub health: HealthStatus,
    /// Why it is not healthy, or not known.
    pub reason: Cow<'a, str>,
    /// The parts.
    pub components: &'a [ComponentHealth],
}

impl State {
    /// How a deployment is, as far as its agent has told since the last restore.
    #[must_use]
    pub fn observed<'a>(&self, deployment: &'a Deployment) -> Observed<'a> {
        match &deployment.agent {
            Some(agent) if self.awaits(agent) => Observed {
                generation: Generation(0),
                health: HealthStatus::Unknown,
                reason: Cow::Owned(format!(
                    "agent {agent} has not told yet how it is since the backup was restored"
                )),
                components: &[],
            },
            Some(_) | None => Observed {
                generation: deployment.observed_generation,
                health: deployment.health,
                reason: Cow::Borrowed(&deployment.health_reason),
                components: &deployment.components,
            },
        }
    }
}
