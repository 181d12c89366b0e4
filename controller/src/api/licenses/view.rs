//! A licence as JSON: what the State holds of it, and what follows from that at the State's time.

use std::collections::BTreeMap;

use dotmac_domain::{State, tenancy::Deployment};
use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    license::Phase,
};
use serde::Serialize;
use serde_json::Value;

use super::DAY_MS;
use crate::api::{answer::time, schema};

/// What [`license`] gives.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: &'a DeploymentId,
    tenant_id: &'a TenantId,
    tenant_name: &'a str,
    environment: &'a str,
    status: &'static str,
    license_tier: &'a str,
    max_subscribers: u32,
    effective_max_subscribers: u64,
    max_services: u32,
    api_rate_limit: u32,
    expires_at: Option<String>,
    grace_days: u64,
    restricted_at: Option<String>,
    active_subscribers: Option<u64>,
    limit_used_percent: Option<u64>,
    features: BTreeMap<String, bool>,
    reason: Option<&'a str>,
    since: Option<String>,
    revision: u64,
}

/// A licence.
pub(super) fn license<'a>(state: &State, id: &'a DeploymentId, one: &'a Deployment) -> Shown<'a> {
    let license = &one.license;
    let phase = license.phase(state.now);
    let usage = state.reported.get(id).and_then(|one| one.usage.as_ref());
    let active = usage.map(|usage| usage.report.active_subscribers);
    let most = state.subscribers_of(id, one);
    let order = one.license_order.as_ref();
    let restricted_at = license
        .expires_at
        .map(|end| end.plus_millis(license.grace_ms));
    Shown {
        id,
        tenant_id: &one.tenant,
        tenant_name: &one.tenant_name,
        environment: &one.environment,
        status: phase.as_str(),
        license_tier: &one.license_tier,
        max_subscribers: license.max_subscribers,
        effective_max_subscribers: most,
        max_services: license.max_services,
        api_rate_limit: license.api_rate_limit,
        expires_at: license.expires_at.map(time),
        grace_days: license.grace_ms / DAY_MS,
        restricted_at: restricted_at.map(time),
        active_subscribers: active,
        limit_used_percent: active.map(|active| percent(active, most)),
        features: license.features(&one.features, phase),
        reason: order.map(|order| order.reason.as_str()),
        since: order.map(|order| time(order.since)),
        revision: one.revision,
    }
}

/// A licence in short, as its deployment and its tenant show it.
#[derive(Serialize)]
pub(in crate::api) struct Brief {
    status: &'static str,
    expires_at: Option<String>,
}

/// A licence in short.
pub(in crate::api) fn brief(state: &State, one: &Deployment) -> Brief {
    Brief {
        status: one.license.phase(state.now).as_str(),
        expires_at: one.license.expires_at.map(time),
    }
}

/// What [`brief`] gives.
pub(in crate::api) fn brief_schema() -> Value {
    schema::object(
        &[
            ("status", schema::one_of(&Phase::ALL.map(Phase::as_str))),
            ("expires_at", schema::or_null(schema::time())),
        ],
        &[],
    )
}

/// How much of a limit is used, in whole percent, rounded down; of a limit of 0 as of 1.
pub(in crate::api) fn percent(used: u64, limit: u64) -> u64 {
    used.saturating_mul(100) / limit.max(1)
}
