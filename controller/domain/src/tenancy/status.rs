//! Where a deployment is in its life, in the contract's words.

use serde::{Deserialize, Serialize};

/// Where a deployment is in its life; see the contract. Only guarded transitions exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// No agent has taken it yet.
    Pending,
    /// Its agent makes it true.
    Provisioning,
    /// It runs and its probes are well.
    Active,
    /// It runs, not all of it is well.
    Degraded,
    /// A new version is coming.
    Upgrading,
    /// The version before is coming back.
    RollingBack,
    /// It is stopped by order.
    Suspended,
    /// It keeps failing.
    Failed,
    /// It will be removed when its grace time is over.
    Destroying,
    /// It is gone. Final.
    Destroyed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Provisioning,
        Self::Active,
        Self::Degraded,
        Self::Upgrading,
        Self::RollingBack,
        Self::Suspended,
        Self::Failed,
        Self::Destroying,
        Self::Destroyed,
    ];

    /// The status as the contract writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Upgrading => "upgrading",
            Self::RollingBack => "rolling_back",
            Self::Suspended => "suspended",
            Self::Failed => "failed",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        }
    }
}
