//! Who may do what: access tokens, roles and permissions. Secrets never come here, only their digests.

use dotmac_protocol::{
    digest::Digest,
    ids::{TenantId, TokenId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    command::CreateToken,
    envelope::{Actor, Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Make a tenant.
    TenantCreate,
    /// Make a deployment.
    DeploymentCreate,
    /// See deployments.
    DeploymentRead,
    /// Change a deployment.
    DeploymentUpdate,
    /// Delete a deployment, or take that back.
    DeploymentDelete,
    /// See an instance's output.
    DeploymentLogs,
    /// See releases.
    ReleaseRead,
    /// Add and retire releases.
    ReleaseWrite,
    /// See agents.
    AgentRead,
    /// Make join tokens.
    AgentWrite,
    /// See the cluster.
    ClusterRead,
    /// Read the audit.
    AuditRead,
    /// Make access tokens.
    TokenWrite,
}

impl Permission {
    /// The permission as the contract writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantCreate => "tenant:create",
            Self::DeploymentCreate => "deployment:create",
            Self::DeploymentRead => "deployment:read",
            Self::DeploymentUpdate => "deployment:update",
            Self::DeploymentDelete => "deployment:delete",
            Self::DeploymentLogs => "deployment:logs",
            Self::ReleaseRead => "release:read",
            Self::ReleaseWrite => "release:write",
            Self::AgentRead => "agent:read",
            Self::AgentWrite => "agent:write",
            Self::ClusterRead => "cluster:read",
            Self::AuditRead => "audit:read",
            Self::TokenWrite => "token:write",
        }
    }
}

impl Role {
    /// Whether the role includes a permission; the tenant a token is bound to narrows it further.
    #[must_use]
    pub fn grants(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Self::PlatformAdmin => true,
            Self::TenantAdmin => matches!(
                permission,
                P::DeploymentCreate
                    | P::DeploymentRead
                    | P::DeploymentUpdate
                    | P::DeploymentDelete
                    | P::DeploymentLogs
                    | P::AuditRead
            ),
            Self::TenantUser => matches!(permission, P::DeploymentRead),
            Self::Reseller => matches!(permission, P::ReleaseRead),
            Self::Support => {
                matches!(
                    permission,
                    P::DeploymentRead | P::ReleaseRead | P::AgentRead | P::ClusterRead
                )
            }
            Self::Auditor => matches!(
                permission,
                P::DeploymentRead | P::ReleaseRead | P::AgentRead | P::ClusterRead | P::AuditRead
            ),
        }
    }

    /// Whether a token of this role must name a tenant.
    #[must_use]
    pub fn is_tenant_bound(self) -> bool {
        matches!(self, Self::TenantAdmin | Self::TenantUser)
    }
}

/// An access token as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Digest of the whole secret text.
    pub secret_digest: Digest,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The only tenant it may touch, if any.
    pub tenant: Option<TenantId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who vouches for it; `None` for the founder's.
    pub warrant: Option<Warrant>,
}

impl State {
    /// The token with this secret, if there is one.
    #[must_use]
    pub fn token_by_secret(&self, secret_digest: Digest) -> Option<(&TokenId, &Token)> {
        let id = self.token_ids.get(&secret_digest)?;
        self.tokens.get_key_value(id)
    }

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

    pub(crate) fn create_token(
        &mut self,
        envelope: &Envelope,
        token: &CreateToken,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::TokenWrite, None)?;
        if token.role.is_tenant_bound() != token.tenant.is_some() {
            let allowed = "a tenant with the tenant roles, none with the others";
            let found = token.tenant.as_ref().map_or("", TenantId::as_str);
            return Err(Rejection::field("tenant_id", found, allowed));
        }
        if let Some(tenant) = &token.tenant
            && !self.tenants.contains_key(tenant)
        {
            return Err(Rejection::not_found("tenant", tenant));
        }
        if token.name.is_empty() || token.name.chars().count() > 100 {
            return Err(Rejection::field("name", &token.name, "1 to 100 characters"));
        }
        self.insert_token(token, now, Some(Warrant::of(envelope, now)))?;
        Ok(Accepted::Done)
    }

    pub(crate) fn insert_token(
        &mut self,
        token: &CreateToken,
        now: Timestamp,
        warrant: Option<Warrant>,
    ) -> Result<(), Rejection> {
        let known = self.tokens.contains_key(&token.id);
        if known || self.token_ids.contains_key(&token.secret_digest) {
            let detail = format!("token {} exists already", token.id);
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        self.token_ids
            .insert_mut(token.secret_digest, token.id.clone());
        let entry = Token {
            secret_digest: token.secret_digest,
            name: token.name.clone(),
            role: token.role,
            tenant: token.tenant.clone(),
            created_at: now,
            warrant,
        };
        self.tokens.insert_mut(token.id.clone(), entry);
        Ok(())
    }
}
