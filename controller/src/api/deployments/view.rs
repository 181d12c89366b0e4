//! A deployment as JSON, with the contract's names. It shows what the State knows and computes nothing anew.
//!
//! A list of a hundred is read often, so what is shown borrows from the State and is written out at once.

use std::collections::BTreeMap;

use std::borrow::Cow;

use dotmac_domain::{
    State,
    release::ReleaseKey,
    tenancy::{Deployment, Status, Version, Waiting},
};
use dotmac_protocol::{
    ids::{AgentId, DeploymentId, Generation, RegionId, ReleaseName, ReleaseVersion, TenantId},
    record::{ComponentHealth, HealthStatus, Hop, Limits},
    unit::Resources,
};
use serde::Serialize;
use serde_json::Value;

use crate::api::{answer::time, licenses, tenants};

/// The contract's `Deployment`, for whoever keeps or compares it.
pub(in crate::api) fn deployment(state: &State, id: &DeploymentId, one: &Deployment) -> Value {
    serde_json::to_value(shown(state, id, one)).expect("every name is a string")
}

/// The contract's `Deployment`.
pub(super) fn shown<'a>(state: &State, id: &'a DeploymentId, one: &'a Deployment) -> Shown<'a> {
    let observed = state.observed(one);
    let sum = |count: fn(&ComponentHealth) -> u16| {
        let counts = observed
            .components
            .iter()
            .map(|part| u32::from(count(part)));
        counts.sum()
    };
    let release = state.releases.get(&one.release);
    let waiting = one.waiting.as_ref();
    Shown {
        id,
        tenant_id: &one.tenant,
        tenant_name: &one.tenant_name,
        deployment_name: format!("isp-{id}"),
        namespace: format!("dotmac-tenant-{}", one.tenant),
        environment: &one.environment,
        region: &one.region,
        agent: one.agent.as_ref(),
        status: one.status.as_str(),
        resource_tier: &one.resource_tier,
        license_tier: &one.license_tier,
        domain_name: one.domain_name.as_deref(),
        cluster_name: one.cluster_name.as_deref(),
        reseller_id: one.reseller.as_deref(),
        replicas: one.replicas,
        min_replicas: one.min_replicas,
        max_replicas: one.max_replicas,
        tier_max_replicas: one.tier_max_replicas,
        pod_count: sum(|part| part.desired),
        ready_pods: sum(|part| part.ready),
        health_status: health(observed.health),
        health_reason: observed.reason,
        generation: one.generation,
        observed_generation: observed.generation,
        revision: one.revision,
        restarts_ordered: one.restarts,
        suspended_reason: one.suspended_reason.as_deref(),
        created_at: time(one.created_at),
        deployed_at: one.deployed_at.map(time),
        last_updated: time(one.updated_at),
        delete_after: one.delete_after.map(time),
        features: &one.features,
        max_customers: one.license.max_subscribers,
        max_services: one.license.max_services,
        api_rate_limit: one.license.api_rate_limit,
        license: licenses::brief(state, one),
        usage: tenants::usage_brief(state, id, one),
        release: ShownRelease {
            name: &one.release.name,
            version: &one.release.version,
            digest: release.map(|release| release.digest.to_string()),
        },
        resources: resources(&one.resources),
        rollback_to: one.rollback_target().map(version),
        limits: one.limits.as_ref().map(limits),
        custom_config: serde_json::from_str(&one.custom_config).unwrap_or_default(),
        credentials: one
            .credentials
            .iter()
            .map(|one| one.name.as_str())
            .collect(),
        waiting: waiting.map(wait),
        reason: reason(one),
        next_step: next_step(id, one),
        components: observed.components,
        journey: one.journey.iter().map(hop).collect(),
    }
}

/// What [`shown`] gives.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: &'a DeploymentId,
    tenant_id: &'a TenantId,
    tenant_name: &'a str,
    deployment_name: String,
    namespace: String,
    environment: &'a str,
    region: &'a RegionId,
    agent: Option<&'a AgentId>,
    status: &'static str,
    resource_tier: &'a str,
    license_tier: &'a str,
    domain_name: Option<&'a str>,
    cluster_name: Option<&'a str>,
    reseller_id: Option<&'a str>,
    replicas: u16,
    min_replicas: u16,
    max_replicas: u16,
    tier_max_replicas: u16,
    pod_count: u32,
    ready_pods: u32,
    health_status: &'static str,
    health_reason: Cow<'a, str>,
    generation: Generation,
    observed_generation: Generation,
    revision: u64,
    restarts_ordered: u32,
    suspended_reason: Option<&'a str>,
    created_at: String,
    deployed_at: Option<String>,
    last_updated: String,
    delete_after: Option<String>,
    features: &'a BTreeMap<String, bool>,
    max_customers: u32,
    max_services: u32,
    api_rate_limit: u32,
    license: licenses::Brief,
    usage: Option<tenants::UsageBrief>,
    release: ShownRelease<'a>,
    resources: ShownResources,
    rollback_to: Option<ShownVersion<'a>>,
    limits: Option<String>,
    custom_config: Value,
    /// The names only: what they hold is for the agent's eyes.
    credentials: Vec<&'a str>,
    waiting: Option<ShownWaiting<'a>>,
    reason: Option<Cow<'a, str>>,
    next_step: Option<Cow<'a, str>>,
    components: &'a [ComponentHealth],
    journey: Vec<ShownHop<'a>>,
}

#[derive(Serialize)]
struct ShownRelease<'a> {
    name: &'a ReleaseName,
    version: &'a ReleaseVersion,
    digest: Option<String>,
}

/// In the units of Kubernetes, as requests write them.
#[derive(Serialize)]
struct ShownResources {
    cpu_request: String,
    memory_request: String,
    cpu_limit: String,
    memory_limit: String,
    storage: String,
}

/// A version that was healthy.
#[derive(Serialize)]
struct ShownVersion<'a> {
    release: &'a ReleaseKey,
    resource_tier: &'a str,
    features: &'a BTreeMap<String, bool>,
    generation: Generation,
    confirmed_at: String,
}

#[derive(Serialize)]
struct ShownWaiting<'a> {
    reason: &'a str,
    since: String,
    who: &'a str,
}

#[derive(Serialize)]
struct ShownHop<'a> {
    station: &'a str,
    at_ms: u64,
}

fn resources(numbers: &Resources) -> ShownResources {
    let bytes = |bytes: u64| {
        let whole = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
        let unit = whole
            .into_iter()
            .find(|(size, _)| bytes.is_multiple_of(*size));
        unit.map_or_else(
            || bytes.to_string(),
            |(size, name)| format!("{}{name}", bytes / size),
        )
    };
    ShownResources {
        cpu_request: format!("{}m", numbers.cpu_request_millis),
        memory_request: bytes(numbers.memory_request_bytes),
        cpu_limit: format!("{}m", numbers.cpu_limit_millis),
        memory_limit: bytes(numbers.memory_limit_bytes),
        storage: bytes(numbers.storage_bytes),
    }
}

fn version(version: &Version) -> ShownVersion<'_> {
    ShownVersion {
        release: &version.release,
        resource_tier: &version.resource_tier,
        features: &version.features,
        generation: version.generation,
        confirmed_at: time(version.confirmed_at),
    }
}

/// Why it is not active.
fn reason(one: &Deployment) -> Option<Cow<'_, str>> {
    let waiting = one.waiting.as_ref();
    let waiting = waiting.map(|waiting| Cow::from(waiting.reason.as_str()));
    waiting.or_else(|| match (one.status, one.suspended_reason.as_deref()) {
        (Status::Suspended, None | Some("")) => Some("it was suspended".into()),
        (Status::Suspended, Some(why)) => Some(format!("it was suspended: {why}").into()),
        (Status::Destroyed, _) => Some("it was deleted".into()),
        _ => None,
    })
}

/// Who can change that, and how.
fn next_step<'a>(id: &DeploymentId, one: &'a Deployment) -> Option<Cow<'a, str>> {
    let waiting = one.waiting.as_ref();
    let waiting = waiting.map(|waiting| Cow::from(waiting.who.as_str()));
    waiting.or_else(|| match one.status {
        Status::Suspended if one.license_order.is_some() => {
            Some(format!("the operator: `dotmac licenses reinstate {id}`").into())
        }
        Status::Suspended => {
            let who = if one.suspended_by_operator {
                "the operator"
            } else {
                "whoever may update it"
            };
            Some(format!("{who}: `dotmac deployments resume {id}`").into())
        }
        Status::Destroyed => Some("nobody: it is final; create it anew".into()),
        _ => None,
    })
}

fn wait(waiting: &Waiting) -> ShownWaiting<'_> {
    ShownWaiting {
        reason: &waiting.reason,
        since: time(waiting.since),
        who: &waiting.who,
    }
}

fn hop(hop: &Hop) -> ShownHop<'_> {
    ShownHop {
        station: &hop.station,
        at_ms: hop.at.0,
    }
}

/// The contract knows four words.
pub(in crate::api) fn health(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Healthy => "healthy",
        HealthStatus::Degraded => "degraded",
        HealthStatus::Failed => "unhealthy",
        HealthStatus::Unknown | HealthStatus::Starting | HealthStatus::Stopped => "unknown",
    }
}

fn limits(limits: &Limits) -> String {
    match limits {
        Limits::Enforced { by } => format!("enforced by {by}"),
        Limits::NotEnforced { reason } => format!("not enforced: {reason}"),
    }
}
