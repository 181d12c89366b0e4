//! Tenants and their deployments: made, deleted with a grace time, taken back, removed, forgotten.

use std::collections::BTreeMap;

use dotmac_protocol::{
    ids::{AgentId, DeploymentId, Generation, RegionId, RequestId, TenantId},
    license::{GRACE_DEFAULT_MS, License, LicenseStanding},
    record::{ComponentHealth, HealthStatus, Hop, Limits},
    time::Timestamp,
    unit::{Resources, RunState, SealedCredential},
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    command::CreateDeployment,
    envelope::{Envelope, Warrant},
    release::ReleaseKey,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

mod change;
mod grant;
mod removal;
mod status;
mod tenants;
mod validate;
mod version;

pub use change::{EXPIRY_MAX, LicenseOrder, REASON_CHARS_MAX, REPLICAS_BOUND_MAX, REPLICAS_MAX};
pub use grant::LicenseTerms;
pub(crate) use removal::BUDGET_REASON;
pub use removal::DESTROYED_KEPT_MS;
pub use status::Status;
pub use tenants::{TENANTS_MAX, Tenant, TenantStatus};
pub use validate::tenant_slug;
pub use version::Version;

/// Why something is not done yet (law 10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What it waits for.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Who can change it.
    pub who: String,
}

/// One instance of the ISP Framework, as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's name.
    pub tenant_name: String,
    /// `development`, `staging` or `production`.
    pub environment: String,
    /// Where.
    pub region: RegionId,
    /// Which agent keeps it true; `None` until one of the region is there.
    pub agent: Option<AgentId>,
    /// Where it is in its life.
    pub status: Status,
    /// Where it was when it was deleted, for `undelete`.
    pub status_before: Option<Status>,
    /// Name of the resource tier.
    pub resource_tier: String,
    /// What the tier grants.
    pub resources: Resources,
    /// Replicas at most in that tier.
    pub tier_max_replicas: u16,
    /// Replicas at least, as asked for.
    pub min_replicas: u16,
    /// Replicas at most, as asked for; never above the tier's maximum.
    pub max_replicas: u16,
    /// Replicas that should run.
    pub replicas: u16,
    /// Restarts that were ordered.
    pub restarts: u32,
    /// Name of the license tier as it was asked for.
    pub license_tier: String,
    /// What the license grants.
    pub license: License,
    /// The operator's order against its licence, while it is suspended or revoked.
    pub license_order: Option<LicenseOrder>,
    /// Host name.
    pub domain_name: Option<String>,
    /// A label for people.
    pub cluster_name: Option<String>,
    /// What it consists of.
    pub release: ReleaseKey,
    /// Switches handed to the instance.
    pub features: BTreeMap<String, bool>,
    /// Further configuration as JSON.
    pub custom_config: String,
    /// Credentials sealed to the agent.
    pub credentials: Vec<SealedCredential>,
    /// The partner who sold it.
    pub reseller: Option<String>,
    /// Counts changes of what it should be.
    pub generation: Generation,
    /// Counts what persons decided about it, from 1; health and progress do not count. What `ETag` says.
    pub revision: u64,
    /// The last version that was healthy.
    pub confirmed: Option<Box<Version>>,
    /// The one before it.
    pub previous: Option<Box<Version>>,
    /// Why it was suspended, while it is.
    pub suspended_reason: Option<String>,
    /// Whether the operator suspended it: then only he resumes it.
    pub suspended_by_operator: bool,
    /// What authorises its content.
    pub warrant: Warrant,
    /// The permission that the warrant's actor needed.
    pub permission: Permission,
    /// What authorises its removal, while it is being deleted or after.
    pub removal: Option<Warrant>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was first active.
    pub deployed_at: Option<Timestamp>,
    /// When anything changed.
    pub updated_at: Timestamp,
    /// When its grace time ends, while it is `destroying`.
    pub delete_after: Option<Timestamp>,
    /// The generation that its agent's probes spoke of last.
    pub observed_generation: Generation,
    /// What its agent's probes say.
    pub health: HealthStatus,
    /// Why it is not healthy.
    pub health_reason: String,
    /// The parts.
    pub components: Vec<ComponentHealth>,
    /// Whether the tier's limits hold.
    pub limits: Option<Limits>,
    /// The way of the order that made it, station by station.
    pub journey: Vec<Hop>,
    /// What it waits for.
    pub waiting: Option<Waiting>,
}

impl Deployment {
    /// Whether its instance should run.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        let is_suspended = match self.status {
            Status::Destroying => self.status_before == Some(Status::Suspended),
            status => status == Status::Suspended,
        };
        if is_suspended {
            RunState::Suspended
        } else {
            RunState::Running
        }
    }
}

impl State {
    /// A deployment that an actor may see; a stranger's is the same as none (law 7).
    #[must_use]
    pub fn visible_deployment(
        &self,
        actor: &crate::envelope::Actor,
        id: &DeploymentId,
    ) -> Option<&Deployment> {
        self.deployments
            .get(id)
            .filter(|one| self.may(actor, Permission::DeploymentRead, Some(&one.tenant)))
    }

    pub(crate) fn create_deployment(
        &mut self,
        envelope: &Envelope,
        create: &CreateDeployment,
        now: Timestamp,
    ) -> Reply {
        let plan = self.check_create(envelope, create)?;
        let tenant = plan.tenant.clone();
        let id = plan.id.clone();
        if !self.tenants.contains_key(&tenant) {
            let entry = Tenant::new(&create.tenant_name, create.reseller.clone(), now);
            self.insert_tenant(&tenant, entry);
        }
        self.renew_terms(envelope, &tenant);
        if let Some(domain) = &create.domain_name {
            self.domains
                .insert_mut(domain.to_ascii_lowercase(), id.clone());
        }
        let deployment = Deployment {
            tenant: tenant.clone(),
            tenant_name: plan.tenant_name,
            environment: create.environment.clone(),
            region: plan.region.clone(),
            agent: None,
            status: Status::Pending,
            status_before: None,
            resource_tier: create.resource_tier.clone(),
            resources: plan.grant.resources,
            tier_max_replicas: plan.grant.max_replicas,
            min_replicas: 1,
            max_replicas: plan.grant.max_replicas,
            replicas: match create.environment.as_str() {
                "production" => plan.grant.production_replicas,
                _ => 1,
            },
            restarts: 0,
            license_tier: create.license_tier.clone(),
            license: License {
                tier: plan.license_tier,
                max_subscribers: create.max_customers,
                max_services: create.max_services,
                api_rate_limit: create.api_rate_limit,
                expires_at: plan.terms.and_then(|terms| terms.expires_at),
                grace_ms: plan.terms.map_or(GRACE_DEFAULT_MS, |terms| terms.grace_ms),
                standing: LicenseStanding::Valid,
            },
            license_order: None,
            domain_name: create
                .domain_name
                .as_ref()
                .map(|name| name.to_ascii_lowercase()),
            cluster_name: create.cluster_name.clone(),
            release: plan.release,
            features: create.features.clone(),
            custom_config: create.custom_config.clone(),
            credentials: create.credentials.clone(),
            reseller: create.reseller.clone(),
            generation: plan.generation,
            revision: 1,
            confirmed: None,
            previous: None,
            suspended_reason: None,
            suspended_by_operator: false,
            warrant: Warrant::of(envelope, now),
            permission: Permission::DeploymentCreate,
            removal: None,
            created_at: now,
            deployed_at: None,
            updated_at: now,
            delete_after: None,
            observed_generation: Generation(0),
            health: HealthStatus::Unknown,
            health_reason: String::new(),
            components: Vec::new(),
            limits: None,
            journey: Vec::new(),
            waiting: None,
        };
        self.deployments.insert_mut(id.clone(), deployment);
        for hop in &envelope.hops {
            self.note_hop(&id, &hop.station, hop.at);
        }
        self.note_hop(&id, "controller.committed", now);
        self.settle(&id, create.sealed_for.clone(), now);
        Ok(Accepted::Deployment {
            tenant,
            deployment: id,
        })
    }

    /// Gives a deployment without an agent to one, or says that it waits for one.
    fn settle(&mut self, id: &DeploymentId, agent: Option<AgentId>, now: Timestamp) {
        let Some(deployment) = self.deployments.get(id) else {
            return;
        };
        let agent = agent.or_else(|| self.place(&deployment.region));
        match agent.filter(|_| deployment.agent.is_none()) {
            Some(agent) => self.assign(id, &agent, now),
            None => self.refresh_waiting_of(id, now),
        }
    }

    /// Gives the deployments of a region that wait for an agent to the one that joined.
    pub(crate) fn place_waiting(&mut self, region: &RegionId, now: Timestamp) {
        let waiting: Vec<DeploymentId> = self
            .deployments
            .iter()
            .filter(|(_, one)| {
                one.agent.is_none() && one.region == *region && one.status == Status::Pending
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            self.settle(&id, None, now);
        }
    }

    /// A deployment that the actor may change; otherwise as if it did not exist.
    fn owned(
        &self,
        envelope: &Envelope,
        id: &DeploymentId,
        permission: Permission,
    ) -> Result<&Deployment, Rejection> {
        let unknown = || Rejection::not_found("deployment", id);
        let deployment = self
            .visible_deployment(&envelope.actor, id)
            .ok_or_else(unknown)?;
        self.require(&envelope.actor, permission, Some(&deployment.tenant))?;
        expect_revision(envelope, "deployment", deployment.revision)?;
        Ok(deployment)
    }

    pub(crate) fn change_deployment(
        &mut self,
        id: &DeploymentId,
        now: Timestamp,
        change: impl FnOnce(&mut Deployment),
    ) {
        if let Some(deployment) = self.deployments.get(id) {
            let mut changed = deployment.clone();
            change(&mut changed);
            changed.updated_at = now;
            self.deployments.insert_mut(id.clone(), changed);
        }
    }
}

/// That the asker saw this revision of what he changes, if he says which one he saw.
pub(crate) fn expect_revision(
    envelope: &Envelope,
    kind: &str,
    revision: u64,
) -> Result<(), Rejection> {
    match envelope.expected {
        Some(expected) if expected != revision => {
            let detail = match expected {
                u64::MAX => format!(
                    "the {kind} has revision {revision}, and never had the one that is named"
                ),
                _ => format!("the {kind} has revision {revision} by now, not {expected}"),
            };
            Err(Rejection::new(Code::PreconditionFailed, detail))
        }
        _ => Ok(()),
    }
}

/// The tenant id that a request makes: the slug of its name and 8 digits that follow from the request's own id, so
/// that a retry through another controller asks for the same tenant.
#[must_use]
pub fn tenant_id(name: &str, request: &RequestId) -> TenantId {
    let digest =
        dotmac_protocol::digest::Digest::tagged("dotmac/tenant-id", request.as_str().as_bytes());
    format!("{}-{}", tenant_slug(name), &digest.hex()[..8])
        .parse()
        .expect("a slug of at most 28 characters and 8 digits make a tenant id")
}
