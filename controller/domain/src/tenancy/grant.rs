//! What is paid for: what a resource tier grants, which requests choose nothing above the defaults, and what the licences of
//! a tenant leave to those that he asks for himself. Whoever lacks [`Permission::DeploymentPlan`] gets nothing of it by
//! deleting, making or rolling back.

use std::collections::BTreeMap;

use dotmac_protocol::{
    ids::TenantId,
    license::{License, LicenseStanding, Tier},
    time::Timestamp,
    unit::Resources,
};
use serde::{Deserialize, Serialize};

use super::{Deployment, Status};
use crate::{
    access::Permission,
    command::{CreateDeployment, CustomResources},
    envelope::Envelope,
    reply::{Code, Rejection},
    state::State,
    tier,
};

/// What the licences of a tenant's deployments that are gone still mean for the next one: the severest order, and the
/// earliest end. A deployment that somebody with [`Permission::DeploymentPlan`] makes ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseTerms {
    /// What an operator ordered.
    pub standing: LicenseStanding,
    /// When the licence ended or ends; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// Milliseconds of grace after that end.
    pub grace_ms: u64,
}

impl LicenseTerms {
    fn of(license: &License) -> Self {
        Self {
            standing: license.standing,
            expires_at: license.expires_at,
            grace_ms: license.grace_ms,
        }
    }

    fn and(self, other: Self) -> Self {
        // An end counts before none; of two the earlier, and of the same end the shorter grace.
        let end = |one: Self| (one.expires_at.is_none(), one.expires_at, one.grace_ms);
        let earlier = if end(other) < end(self) { other } else { self };
        Self {
            standing: self.standing.max(other.standing),
            ..earlier
        }
    }
}

impl State {
    /// The terms under which a tenant may make a further deployment himself.
    ///
    /// # Errors
    /// When an operator suspended or revoked a licence of his: then only an operator makes one.
    pub(super) fn check_terms(
        &self,
        envelope: &Envelope,
        tenant: &TenantId,
    ) -> Result<Option<LicenseTerms>, Rejection> {
        if self.may(&envelope.actor, Permission::DeploymentPlan, Some(tenant)) {
            return Ok(None);
        }
        let gone = self.tenants.get(tenant).and_then(|one| one.license_terms);
        let living = self.deployments_of(tenant);
        let living = living.filter(|(_, one)| one.status != Status::Destroyed);
        let living = living.map(|(_, one)| LicenseTerms::of(&one.license));
        let terms = gone.into_iter().chain(living).reduce(LicenseTerms::and);
        let withdrawn = terms.filter(|terms| terms.standing != LicenseStanding::Valid);
        if withdrawn.is_some() {
            let detail = format!(
                "a license of tenant {tenant} was suspended or revoked: only the operator makes a further deployment"
            );
            return Err(Rejection::new(Code::Forbidden, detail));
        }
        Ok(terms)
    }

    /// Keeps the terms of a licence whose deployment is gone.
    pub(super) fn keep_terms(&mut self, deployment: &Deployment) {
        let Some(tenant) = self.tenants.get(&deployment.tenant) else {
            return;
        };
        let terms = LicenseTerms::of(&deployment.license);
        let kept = tenant.license_terms.map_or(terms, |kept| kept.and(terms));
        self.set_terms(&deployment.tenant.clone(), Some(kept));
    }

    /// What the tenant's licences were counts no more, when somebody made a deployment who may choose what is paid for.
    pub(super) fn renew_terms(&mut self, envelope: &Envelope, tenant: &TenantId) {
        if self.may(&envelope.actor, Permission::DeploymentPlan, Some(tenant)) {
            self.set_terms(tenant, None);
        }
    }

    fn set_terms(&mut self, id: &TenantId, terms: Option<LicenseTerms>) {
        let known = self.tenants.get(id);
        let Some(tenant) = known.filter(|tenant| tenant.license_terms != terms) else {
            return;
        };
        let mut tenant = tenant.clone();
        tenant.license_terms = terms;
        self.insert_tenant(id, tenant);
    }

    /// A change that grants more of what is paid for than there was takes the permission to choose that.
    pub(super) fn require_plan_for(
        &self,
        envelope: &Envelope,
        before: &Deployment,
        after: &Deployment,
    ) -> Result<(), Rejection> {
        let is_same_tier = (
            &before.resource_tier,
            before.resources,
            before.tier_max_replicas,
        ) == (
            &after.resource_tier,
            after.resources,
            after.tier_max_replicas,
        );
        let grants = grants_beyond(after.license.tier, &before.features, &after.features);
        if is_same_tier && !grants {
            return Ok(());
        }
        self.require(
            &envelope.actor,
            Permission::DeploymentPlan,
            Some(&before.tenant),
        )
    }
}

impl Deployment {
    /// Another licence tier takes along what the one before granted: a lower one switches nothing on that is not its own,
    /// but what an operator granted beyond both stays.
    pub(super) fn set_license_tier(&mut self, name: &str, tier: Tier) {
        let before = std::mem::replace(&mut self.license.tier, tier);
        name.clone_into(&mut self.license_tier);
        self.features
            .retain(|feature, is_on| !*is_on || !tier.lacks(feature) || before.lacks(feature));
    }
}

/// Whether switches turn on what the licence's tier lacks and what was not on before.
fn grants_beyond(
    tier: Tier,
    before: &BTreeMap<String, bool>,
    after: &BTreeMap<String, bool>,
) -> bool {
    let mut on = after.iter().filter(|(_, is_on)| **is_on);
    on.any(|(feature, _)| tier.lacks(feature) && before.get(feature) != Some(&true))
}

/// What a resource tier grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct TierGrant {
    pub(super) resources: Resources,
    pub(super) max_replicas: u16,
    /// Replicas at the start in production; elsewhere one.
    pub(super) production_replicas: u16,
}

impl TierGrant {
    /// The tier of a request: one of the price list, or `custom` with every number.
    pub(super) fn of(name: &str, custom: Option<&CustomResources>) -> Result<Self, Rejection> {
        match (tier::resource_tier(name), custom) {
            (Some(tier), None) => Ok(Self {
                resources: tier.resources,
                max_replicas: tier.max_replicas,
                production_replicas: tier.production_replicas,
            }),
            (Some(_), Some(_)) => {
                let allowed = "no resources with this tier, only with custom";
                Err(Rejection::field("resources", "given", allowed))
            }
            (None, Some(custom)) if name == "custom" => {
                check_custom(custom)?;
                Ok(Self {
                    resources: custom.resources,
                    max_replicas: custom.max_replicas,
                    production_replicas: 1,
                })
            }
            (None, None) if name == "custom" => {
                let allowed = "every number, with tier custom";
                Err(Rejection::field("resources", "none", allowed))
            }
            (None, _) => Err(Rejection::field(
                "resource_tier",
                name,
                tier::RESOURCE_TIERS,
            )),
        }
    }
}

/// Whether a request chooses nothing above the defaults of what is paid for.
pub(super) fn is_plain(create: &CreateDeployment) -> bool {
    matches!(create.resource_tier.as_str(), "micro" | "small")
        && matches!(create.license_tier.as_str(), "free" | "basic")
        && create.max_customers <= 1000
        && create.max_services <= 500
        && create.api_rate_limit <= 1000
        && create.reseller.is_none()
        && Tier::from_name(&create.license_tier)
            .is_some_and(|tier| !grants_beyond(tier, &BTreeMap::new(), &create.features))
}

fn check_custom(custom: &CustomResources) -> Result<(), Rejection> {
    let r = custom.resources;
    let cpu = |millis: u32| format!("{millis}m");
    let wrong = |field: &str, value: String, allowed: String| {
        Err(Rejection::field(
            &format!("resources.{field}"),
            value,
            allowed,
        ))
    };
    if r.cpu_request_millis == 0 || r.cpu_request_millis > r.cpu_limit_millis {
        let allowed = format!("1m to cpu_limit, which is {}", cpu(r.cpu_limit_millis));
        return wrong("cpu_request", cpu(r.cpu_request_millis), allowed);
    }
    if r.memory_request_bytes == 0 || r.memory_request_bytes > r.memory_limit_bytes {
        let allowed = format!("1 to memory_limit, which is {} bytes", r.memory_limit_bytes);
        return wrong(
            "memory_request",
            format!("{} bytes", r.memory_request_bytes),
            allowed,
        );
    }
    if r.storage_bytes == 0 {
        return wrong("storage", "0".to_owned(), "at least 1 byte".to_owned());
    }
    if !(1..=50).contains(&custom.max_replicas) {
        return wrong(
            "max_replicas",
            custom.max_replicas.to_string(),
            "1 to 50".to_owned(),
        );
    }
    Ok(())
}
