//! What is to be different about a licence.

use dotmac_protocol::{ids::DeploymentId, time::Timestamp};
use serde::{Deserialize, Serialize};

/// What is to be different about a deployment's licence; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateLicense {
    /// Whose.
    pub deployment: DeploymentId,
    /// Another license tier.
    pub license_tier: Option<String>,
    /// Subscribers at most, 1 to 1,000,000.
    pub max_subscribers: Option<u32>,
    /// Services at most, 1 to 100,000.
    pub max_services: Option<u32>,
    /// Calls of its API a minute at most, 100 to 1,000,000.
    pub api_rate_limit: Option<u32>,
    /// Another end, or none any more.
    pub expires_at: Option<Option<Timestamp>>,
    /// Milliseconds of grace after its end, at most 90 days.
    pub grace_ms: Option<u64>,
}
