//! Tenants: the ISPs that are customers. Made alone or with their first deployment, changed, deleted once they have no
//! deployment any more. How one is doing follows from its deployments and is never written down.

use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    DESTROYED_KEPT_MS, Deployment, Status, expect_revision, grant::LicenseTerms, tenant_id,
};
use crate::{
    access::Permission,
    command::UpdateTenant,
    envelope::{Actor, Envelope},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

/// Tenants at most, deleted ones that are still shown too.
pub const TENANTS_MAX: usize = 20_000;

/// An ISP that is a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// The name as people write it. Its instances get to know another one with their next update.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
    /// The partner who brought it.
    pub reseller: Option<String>,
    /// When it was deleted; it is shown for 30 days then.
    pub cancelled_at: Option<Timestamp>,
    /// Counts what persons decided about it, from 1.
    pub revision: u64,
    /// What the licences of its deployments that are gone still mean.
    pub license_terms: Option<LicenseTerms>,
}

/// How a tenant is doing; see the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantStatus {
    /// It has no deployment that an agent has taken.
    Pending,
    /// Its agent makes it true.
    Provisioning,
    /// It runs.
    Active,
    /// It is stopped by order.
    Suspended,
    /// Another version is on its way.
    Maintenance,
    /// It will be removed.
    Deprovisioning,
    /// It was deleted.
    Cancelled,
    /// It keeps failing.
    Failed,
}

impl TenantStatus {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Provisioning,
        Self::Active,
        Self::Suspended,
        Self::Maintenance,
        Self::Deprovisioning,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The status as the contract writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Maintenance => "maintenance",
            Self::Deprovisioning => "deprovisioning",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    fn of(deployment: Status) -> Self {
        match deployment {
            Status::Pending => Self::Pending,
            Status::Provisioning => Self::Provisioning,
            Status::Active | Status::Degraded => Self::Active,
            Status::Upgrading | Status::RollingBack => Self::Maintenance,
            Status::Suspended => Self::Suspended,
            Status::Failed => Self::Failed,
            Status::Destroying | Status::Destroyed => Self::Deprovisioning,
        }
    }
}

impl Tenant {
    /// A new tenant.
    pub(super) fn new(name: &str, reseller: Option<String>, now: Timestamp) -> Self {
        Self {
            name: name.trim().to_owned(),
            created_at: now,
            updated_at: now,
            reseller,
            cancelled_at: None,
            revision: 1,
            license_terms: None,
        }
    }

    /// Whether something may be made for it: it was not deleted.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.cancelled_at.is_none()
    }

    fn is_shown(&self, now: Timestamp) -> bool {
        let end = self.cancelled_at;
        end.is_none_or(|end| now.millis_since(end) < DESTROYED_KEPT_MS)
    }
}

impl State {
    /// A tenant that an actor may see; a stranger's is the same as none (law 7).
    #[must_use]
    pub fn visible_tenant(&self, actor: &Actor, id: &TenantId) -> Option<&Tenant> {
        self.tenants
            .get(id)
            .filter(|one| one.is_shown(self.now))
            .filter(|_| self.may(actor, Permission::TenantRead, Some(id)))
    }

    /// A tenant's deployments, destroyed ones too while they are shown.
    pub fn deployments_of(
        &self,
        tenant: &TenantId,
    ) -> impl Iterator<Item = (&DeploymentId, &Deployment)> {
        let first = DeploymentId::first_of(tenant);
        let prefix = first.as_str().to_owned();
        let tenant = tenant.clone();
        self.deployments
            .range(first..)
            .take_while(move |(id, _)| id.as_str().starts_with(&prefix))
            .filter(move |(_, one)| one.tenant == tenant)
    }

    /// How a tenant is doing: as its deployment for production is, or else staging, or else development.
    #[must_use]
    pub fn status_of(&self, id: &TenantId, tenant: &Tenant) -> TenantStatus {
        if tenant.cancelled_at.is_some() {
            return TenantStatus::Cancelled;
        }
        let main = self.main_deployment_of(id);
        main.map_or(TenantStatus::Pending, |(_, one)| {
            TenantStatus::of(one.status)
        })
    }

    /// The deployment that a tenant's status is of: that for production, or else staging, or else development.
    #[must_use]
    pub fn main_deployment_of(&self, id: &TenantId) -> Option<(&DeploymentId, &Deployment)> {
        let rank = |one: &Deployment| match one.environment.as_str() {
            "production" => 0,
            "staging" => 1,
            _ => 2,
        };
        let living = self
            .deployments_of(id)
            .filter(|(_, one)| one.status != Status::Destroyed);
        living.min_by_key(|(_, one)| rank(one))
    }

    pub(crate) fn create_tenant(
        &mut self,
        envelope: &Envelope,
        (name, reseller): (&str, Option<&str>),
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::TenantCreate, None)?;
        check_tenant_name(name)?;
        check_reseller(reseller)?;
        let id = tenant_id(name, &envelope.request);
        self.check_new_tenant(&id)?;
        let tenant = Tenant::new(name, reseller.map(str::to_owned), now);
        self.insert_tenant(&id, tenant);
        Ok(Accepted::Tenant(id))
    }

    /// Whether there is room for a tenant of this id.
    pub(super) fn check_new_tenant(&self, id: &TenantId) -> Result<(), Rejection> {
        if self.tenants.contains_key(id) {
            let detail = format!("tenant {id} exists already: ask again");
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        let kept = || self.tenants.values().filter(|one| one.is_shown(self.now));
        if self.tenants.size() >= TENANTS_MAX && kept().count() >= TENANTS_MAX {
            let detail = format!("there are {TENANTS_MAX} tenants already, the most there can be");
            return Err(Rejection::new(Code::LimitReached, detail));
        }
        Ok(())
    }

    /// Puts a new tenant; forgets those that are no longer shown when there is no other room.
    pub(super) fn insert_tenant(&mut self, id: &TenantId, tenant: Tenant) {
        if self.tenants.size() >= TENANTS_MAX {
            let old = self.tenants.iter();
            let old = old.filter(|(_, one)| !one.is_shown(self.now));
            let old: Vec<TenantId> = old.map(|(id, _)| id.clone()).collect();
            for id in old {
                self.tenants.remove_mut(&id);
            }
        }
        self.tenants.insert_mut(id.clone(), tenant);
    }

    pub(crate) fn update_tenant(
        &mut self,
        envelope: &Envelope,
        update: &UpdateTenant,
        now: Timestamp,
    ) -> Reply {
        let id = &update.tenant;
        let before = self.changeable_tenant(envelope, id, Permission::TenantUpdate)?;
        let name = update.name.as_ref().unwrap_or(&before.name);
        check_tenant_name(name)?;
        let reseller = match update.reseller.as_deref() {
            None => before.reseller.clone(),
            Some("") => None,
            Some(reseller) => {
                check_reseller(Some(reseller))?;
                Some(reseller.to_owned())
            }
        };
        let after = Tenant {
            name: name.trim().to_owned(),
            reseller,
            ..before.clone()
        };
        if after != *before {
            self.put_tenant(id, after, now);
        }
        Ok(Accepted::Tenant(id.clone()))
    }

    pub(crate) fn delete_tenant(
        &mut self,
        envelope: &Envelope,
        id: &TenantId,
        now: Timestamp,
    ) -> Reply {
        let tenant = self.changeable_tenant(envelope, id, Permission::TenantDelete)?;
        let living = self
            .deployments_of(id)
            .find(|(_, one)| one.status != Status::Destroyed);
        if let Some((deployment, one)) = living {
            let status = one.status.as_str();
            let detail = format!(
                "tenant {id} still has deployment {deployment}, which is {status}: delete it and wait until it is destroyed"
            );
            return Err(Rejection::new(Code::WrongState, detail));
        }
        let after = Tenant {
            cancelled_at: Some(now),
            ..tenant.clone()
        };
        self.put_tenant(id, after, now);
        self.end_tokens_of(id, now);
        Ok(Accepted::Tenant(id.clone()))
    }

    /// A tenant that the actor may change; otherwise as if it did not exist.
    fn changeable_tenant(
        &self,
        envelope: &Envelope,
        id: &TenantId,
        permission: Permission,
    ) -> Result<&Tenant, Rejection> {
        let tenant = self
            .visible_tenant(&envelope.actor, id)
            .ok_or_else(|| Rejection::not_found("tenant", id))?;
        self.require(&envelope.actor, permission, Some(id))?;
        expect_revision(envelope, "tenant", tenant.revision)?;
        if !tenant.is_served() {
            let detail = format!("tenant {id} is cancelled");
            return Err(Rejection::new(Code::WrongState, detail));
        }
        Ok(tenant)
    }

    fn put_tenant(&mut self, id: &TenantId, tenant: Tenant, now: Timestamp) {
        let tenant = Tenant {
            updated_at: now,
            revision: tenant.revision.saturating_add(1),
            ..tenant
        };
        self.tenants.insert_mut(id.clone(), tenant);
    }
}

fn check_tenant_name(name: &str) -> Result<(), Rejection> {
    let trimmed = name.trim();
    let is_sized = (1..=255).contains(&trimmed.chars().count());
    if is_sized && !trimmed.chars().any(char::is_control) {
        return Ok(());
    }
    let allowed = "1 to 255 characters, no control characters";
    Err(Rejection::field("tenant_name", trimmed, allowed))
}

fn check_reseller(reseller: Option<&str>) -> Result<(), Rejection> {
    let is_sound = |text: &str| {
        (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    };
    match reseller.filter(|text| !is_sound(text)) {
        Some(text) => {
            let allowed = "1 to 100 characters, no control characters";
            Err(Rejection::field("reseller_id", text, allowed))
        }
        None => Ok(()),
    }
}
