//! A deployment as JSON, with the contract's names. It shows what the State knows and computes nothing anew.

use dotmac_domain::{
    State,
    tenancy::{Deployment, Status},
};
use dotmac_protocol::{
    ids::DeploymentId,
    record::{HealthStatus, Limits},
};
use serde_json::{Value, json};

use crate::api::answer::{time, time_or_null};

/// The contract's `Deployment`.
pub(super) fn deployment(state: &State, id: &DeploymentId, one: &Deployment) -> Value {
    let release = state.releases.get(&one.release);
    let ready: u32 = one
        .components
        .iter()
        .map(|part| u32::from(part.ready))
        .sum();
    let desired: u32 = one
        .components
        .iter()
        .map(|part| u32::from(part.desired))
        .sum();
    let waiting = one
        .waiting
        .as_ref()
        .filter(|_| one.status != Status::Active);
    let mut shown = json!({
        "id": id,
        "tenant_id": one.tenant,
        "tenant_name": one.tenant_name,
        "deployment_name": format!("isp-{id}"),
        "namespace": format!("dotmac-tenant-{}", one.tenant),
        "environment": one.environment,
        "region": one.region,
        "agent": one.agent,
        "status": one.status.as_str(),
        "resource_tier": one.resource_tier,
        "license_tier": one.license_tier,
        "domain_name": one.domain_name,
        "cluster_name": one.cluster_name,
        "reseller_id": one.reseller,
        "replicas": one.replicas,
        "max_replicas": one.max_replicas,
        "pod_count": desired,
        "ready_pods": ready,
        "health_status": health(one.health),
        "health_reason": one.health_reason,
        "generation": one.generation,
        "created_at": time(one.created_at),
        "deployed_at": time_or_null(one.deployed_at),
        "last_updated": time(one.updated_at),
        "delete_after": time_or_null(one.delete_after),
        "features": one.features,
        "max_customers": one.license.max_subscribers,
        "max_services": one.license.max_services,
        "api_rate_limit": one.license.api_rate_limit,
    });
    shown["release"] = json!({
        "name": one.release.name, "version": one.release.version,
        "digest": release.map(|release| release.digest.to_string()),
    });
    shown["limits"] = one.limits.as_ref().map(limits).into();
    shown["custom_config"] = serde_json::from_str(&one.custom_config).unwrap_or_default();
    // The names only: what they hold is for the agent's eyes.
    let credentials: Vec<&str> = one
        .credentials
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    shown["credentials"] = credentials.into();
    shown["waiting"] = waiting.map_or(Value::Null, |waiting| {
        json!({"reason": waiting.reason, "since": time(waiting.since), "who": waiting.who})
    });
    shown["reason"] = waiting.map(|waiting| waiting.reason.as_str()).into();
    shown["next_step"] = waiting.map(|waiting| waiting.who.as_str()).into();
    shown["components"] = one
        .components
        .iter()
        .map(|part| {
            json!({
                "name": part.name, "desired": part.desired, "ready": part.ready,
                "restarts": part.restarts, "pids": part.pids, "address": part.address,
            })
        })
        .collect();
    shown["journey"] = one
        .journey
        .iter()
        .map(|hop| json!({"station": hop.station, "at_ms": hop.at.0}))
        .collect();
    shown
}

/// The contract knows four words.
fn health(status: HealthStatus) -> &'static str {
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
