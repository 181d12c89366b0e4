//! How units are, as the rest of the agent is told.

use std::collections::BTreeMap;

use dotmac_protocol::{
    ids::{Generation, UnitId},
    record::{ComponentHealth, HealthStatus, Limits},
};

/// How a unit is, for the agent's hello and for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStatus {
    /// The generation it works on.
    pub generation: Generation,
    /// The health last recorded.
    pub health: HealthStatus,
    /// Why it is not healthy.
    pub reason: String,
    /// The parts.
    pub components: Vec<ComponentHealth>,
    /// Whether its limits hold, once something was started.
    pub limits: Option<Limits>,
    /// What it waits for, if it does.
    pub waiting: Option<String>,
}

/// All units' statuses.
pub type Statuses = BTreeMap<UnitId, UnitStatus>;
