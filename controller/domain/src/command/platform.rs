//! What is to be different about a tenant or a region.

use dotmac_protocol::ids::{RegionId, TenantId};
use serde::{Deserialize, Serialize};

/// What is to be different about a tenant; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateTenant {
    /// Which one.
    pub tenant: TenantId,
    /// Another name; 1 to 255 characters.
    pub name: Option<String>,
    /// Another partner; none, if empty.
    pub reseller: Option<String>,
}

/// What is to be different about a region; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRegion {
    /// Which one.
    pub region: RegionId,
    /// For people; at most 200 characters.
    pub description: Option<String>,
    /// Whether new deployments may be placed there.
    pub accepts_deployments: Option<bool>,
}
