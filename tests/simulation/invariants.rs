//! What must hold in every world at every moment, one file each.

mod absence_never_destroys;
mod acknowledged_is_durable;
mod agents_converge;
mod an_agent_never_goes_back;
mod every_fact_once;
mod every_wait_has_a_reason;
mod nobody_stops_by_itself;
mod states_agree;
mod time_never_goes_back;
mod votes_never_go_back;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dotmac_agent::unit::Desired;
use dotmac_controller::{raft::simulation::Granted, storage::ledger::Ledger};
use dotmac_domain::State;
use dotmac_protocol::ids::{AgentId, DeploymentId, Generation, UnitId};

use crate::{clients::Acknowledged, network::Place};

/// One controller as it is seen from outside.
pub(crate) struct ControllerView {
    pub(crate) place: Place,
    /// How often it was started.
    pub(crate) starts: u64,
    /// Whether it came back with an empty disk, and is none of the cluster any more.
    pub(crate) is_wiped: bool,
    /// The last entry in its State.
    pub(crate) applied: u64,
    pub(crate) state: Arc<State>,
    pub(crate) ledger: Ledger,
    /// The term in which it takes itself for the leader.
    pub(crate) leads_in: Option<u64>,
}

/// One agent as it is seen from outside.
pub(crate) struct AgentView {
    pub(crate) id: AgentId,
    /// What it is ordered to keep; none while it does not run.
    pub(crate) desired: Option<Arc<Desired>>,
    /// What runs on its host.
    pub(crate) instances: BTreeMap<UnitId, Generation>,
    /// How often it lost its power, and its instances with it.
    pub(crate) power_losses: u64,
    /// Whether everything it told counts.
    pub(crate) is_heard: bool,
}

/// A world at one moment.
pub(crate) struct View<'a> {
    /// Those that run.
    pub(crate) controllers: Vec<ControllerView>,
    pub(crate) agents: Vec<AgentView>,
    /// Votes given since the last moment.
    pub(crate) votes: Vec<(Place, Granted)>,
    pub(crate) acknowledged: &'a [Acknowledged],
    /// Deployments whose deletion was asked for.
    pub(crate) deleted: &'a BTreeSet<DeploymentId>,
    /// What went wrong by itself.
    pub(crate) troubles: Vec<String>,
    /// Whether nobody waits for an answer.
    pub(crate) is_idle: bool,
}

impl View<'_> {
    /// The controllers that still belong to the cluster.
    pub(crate) fn members(&self) -> impl Iterator<Item = &ControllerView> {
        self.controllers.iter().filter(|one| !one.is_wiped)
    }
}

/// Why it does not hold.
pub(crate) type Verdict = Result<(), String>;

/// Something that must hold.
pub(crate) trait Invariant {
    /// As its file is called.
    fn name(&self) -> &'static str;

    /// Looks at one moment.
    fn observe(&mut self, _view: &View<'_>) -> Verdict {
        Ok(())
    }

    /// Looks at the end, when everything is well again.
    fn conclude(&mut self, _view: &View<'_>) -> Verdict {
        Ok(())
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(nobody_stops_by_itself::NobodyStopsByItself),
        Box::new(votes_never_go_back::VotesNeverGoBack::default()),
        Box::new(states_agree::StatesAgree::default()),
        Box::new(time_never_goes_back::TimeNeverGoesBack::default()),
        Box::new(an_agent_never_goes_back::AnAgentNeverGoesBack::default()),
        Box::new(absence_never_destroys::AbsenceNeverDestroys::default()),
        Box::new(every_wait_has_a_reason::EveryWaitHasAReason),
        Box::new(acknowledged_is_durable::AcknowledgedIsDurable),
        Box::new(every_fact_once::EveryFactOnce),
        Box::new(agents_converge::AgentsConverge),
    ]
}

/// Whether everything that was asked for is so, and if not, what is not: the world waits for it once faults are over.
pub(crate) fn unsettled(view: &View<'_>) -> Option<String> {
    agents_converge::unsettled(view)
}
