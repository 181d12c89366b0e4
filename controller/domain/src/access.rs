//! Who may do what: roles, permissions, and the access tokens that carry them. Secrets never come here, only their
//! digests.

use dotmac_protocol::ids::TenantId;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Actor,
    reply::{Code, Rejection},
    state::State,
};

mod platform;
mod token;

pub(crate) use platform::Words;
pub use token::{
    LIVE_TOKENS_MAX, TOKEN_LIFETIME_MAX_MS, TOKEN_USES_MAX, TOKENS_MAX, Token, TokenEnd, minute_of,
};

/// The roles of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Operates the platform.
    PlatformAdmin,
    /// Runs one ISP.
    TenantAdmin,
    /// Works at one ISP.
    TenantUser,
    /// Sells to ISPs.
    Reseller,
    /// Helps ISPs; reads.
    Support,
    /// Reads, the audit too.
    Auditor,
}

/// One thing that can be permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// Make a tenant.
    TenantCreate,
    /// See tenants.
    TenantRead,
    /// Change a tenant.
    TenantUpdate,
    /// Delete a tenant.
    TenantDelete,
    /// See what an instance is started with, its secrets too.
    TenantInstanceEnv,
    /// Make a deployment.
    DeploymentCreate,
    /// See deployments.
    DeploymentRead,
    /// Change a deployment.
    DeploymentUpdate,
    /// Change how many copies of an instance run.
    DeploymentScale,
    /// Restart an instance.
    DeploymentRestart,
    /// Delete a deployment, or take that back.
    DeploymentDelete,
    /// See an instance's output.
    DeploymentLogs,
    /// See releases.
    ReleaseRead,
    /// Add and retire releases.
    ReleaseWrite,
    /// See regions.
    RegionRead,
    /// Add and change regions.
    RegionWrite,
    /// See agents and join tokens.
    AgentRead,
    /// Make and revoke join tokens.
    AgentWrite,
    /// Revoke an agent.
    AgentDelete,
    /// See the cluster.
    ClusterRead,
    /// Read the audit.
    AuditRead,
    /// Follow what changes.
    EventRead,
    /// See access tokens.
    TokenRead,
    /// Make and revoke access tokens.
    TokenWrite,
    /// Choose what is paid for: resource tier, license tier, limits, reseller.
    DeploymentPlan,
    /// See licences.
    LicenseRead,
    /// Change, suspend, revoke and reinstate licences.
    LicenseUpdate,
    /// Read what controllers count.
    MetricsRead,
    /// Change the controllers and the trust root.
    ClusterWrite,
    /// See backups.
    BackupRead,
    /// Ask for a backup.
    BackupCreate,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::TenantCreate,
        Self::TenantRead,
        Self::TenantUpdate,
        Self::TenantDelete,
        Self::TenantInstanceEnv,
        Self::DeploymentCreate,
        Self::DeploymentRead,
        Self::DeploymentUpdate,
        Self::DeploymentScale,
        Self::DeploymentRestart,
        Self::DeploymentDelete,
        Self::DeploymentLogs,
        Self::ReleaseRead,
        Self::ReleaseWrite,
        Self::RegionRead,
        Self::RegionWrite,
        Self::AgentRead,
        Self::AgentWrite,
        Self::AgentDelete,
        Self::ClusterRead,
        Self::AuditRead,
        Self::EventRead,
        Self::TokenRead,
        Self::TokenWrite,
        Self::DeploymentPlan,
        Self::LicenseRead,
        Self::LicenseUpdate,
        Self::MetricsRead,
        Self::ClusterWrite,
        Self::BackupRead,
        Self::BackupCreate,
    ];

    /// The permission as the contract writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantCreate => "tenant:create",
            Self::TenantRead => "tenant:read",
            Self::TenantUpdate => "tenant:update",
            Self::TenantDelete => "tenant:delete",
            Self::TenantInstanceEnv => "tenant:instance-env",
            Self::DeploymentCreate => "deployment:create",
            Self::DeploymentRead => "deployment:read",
            Self::DeploymentUpdate => "deployment:update",
            Self::DeploymentScale => "deployment:scale",
            Self::DeploymentRestart => "deployment:restart",
            Self::DeploymentDelete => "deployment:delete",
            Self::DeploymentLogs => "deployment:logs",
            Self::ReleaseRead => "release:read",
            Self::ReleaseWrite => "release:write",
            Self::RegionRead => "region:read",
            Self::RegionWrite => "region:write",
            Self::AgentRead => "agent:read",
            Self::AgentWrite => "agent:write",
            Self::AgentDelete => "agent:delete",
            Self::ClusterRead => "cluster:read",
            Self::AuditRead => "audit:read",
            Self::EventRead => "event:read",
            Self::TokenRead => "token:read",
            Self::TokenWrite => "token:write",
            Self::DeploymentPlan => "deployment:plan",
            Self::LicenseRead => "license:read",
            Self::LicenseUpdate => "license:update",
            Self::MetricsRead => "metrics:read",
            Self::ClusterWrite => "cluster:write",
            Self::BackupRead => "backup:read",
            Self::BackupCreate => "backup:create",
        }
    }
}

impl Role {
    /// All of them, the mightiest first.
    pub const ALL: [Self; 6] = [
        Self::PlatformAdmin,
        Self::TenantAdmin,
        Self::TenantUser,
        Self::Reseller,
        Self::Support,
        Self::Auditor,
    ];

    /// The role as the contract writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlatformAdmin => "platform_admin",
            Self::TenantAdmin => "tenant_admin",
            Self::TenantUser => "tenant_user",
            Self::Reseller => "reseller",
            Self::Support => "support",
            Self::Auditor => "auditor",
        }
    }

    /// Whether the role includes a permission; the tenant a token is bound to narrows it further.
    #[must_use]
    pub fn grants(self, permission: Permission) -> bool {
        use Permission as P;
        let reads = matches!(
            permission,
            P::TenantRead
                | P::DeploymentRead
                | P::ReleaseRead
                | P::RegionRead
                | P::AgentRead
                | P::ClusterRead
                | P::EventRead
                | P::LicenseRead
                | P::MetricsRead
                | P::BackupRead
        );
        match self {
            Self::PlatformAdmin => true,
            Self::TenantAdmin => matches!(
                permission,
                P::TenantRead
                    | P::TenantInstanceEnv
                    | P::DeploymentCreate
                    | P::DeploymentRead
                    | P::DeploymentUpdate
                    | P::DeploymentScale
                    | P::DeploymentRestart
                    | P::DeploymentDelete
                    | P::DeploymentLogs
                    | P::RegionRead
                    | P::AuditRead
                    | P::EventRead
                    | P::LicenseRead
            ),
            Self::TenantUser => matches!(
                permission,
                P::TenantRead | P::DeploymentRead | P::RegionRead | P::EventRead | P::LicenseRead
            ),
            Self::Reseller => matches!(permission, P::ReleaseRead | P::RegionRead),
            Self::Support => reads,
            Self::Auditor => reads || matches!(permission, P::AuditRead | P::TokenRead),
        }
    }

    /// Whether a token of this role must name a tenant.
    #[must_use]
    pub fn is_tenant_bound(self) -> bool {
        matches!(self, Self::TenantAdmin | Self::TenantUser)
    }
}

impl State {
    /// Whether an actor may do this to something of `tenant` (`None`: to something of the platform).
    #[must_use]
    pub fn may(&self, actor: &Actor, permission: Permission, tenant: Option<&TenantId>) -> bool {
        match actor {
            Actor::Person(id) => self.tokens.get(id).is_some_and(|token| {
                let inside = match (&token.tenant, tenant) {
                    (None, _) => !token.role.is_tenant_bound(),
                    (Some(own), Some(other)) => own == other,
                    (Some(_), None) => false,
                };
                inside && token.role.grants(permission)
            }),
            Actor::Agent(_) | Actor::Planner | Actor::Founder => false,
        }
    }

    /// Like [`Self::may`], as a rejection that names the permission.
    pub(crate) fn require(
        &self,
        actor: &Actor,
        permission: Permission,
        tenant: Option<&TenantId>,
    ) -> Result<(), Rejection> {
        if self.may(actor, permission, tenant) {
            return Ok(());
        }
        let detail = format!("this needs the permission {}", permission.as_str());
        Err(Rejection::new(Code::Forbidden, detail))
    }
}
