//! Licences: what each deployment's instance may do and until when, and an operator's orders against it. Time leads a
//! licence into grace and restriction; only an operator suspends, revokes and reinstates one.

use std::ops::Bound;

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    Command, State,
    access::Permission,
    command::UpdateLicense,
    tenancy::{Deployment, REASON_CHARS_MAX, Status},
    tier::LICENSE_TIERS,
};
use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    license::Phase,
};

use super::{
    answer::page_of,
    change::{Change, Entity},
    problem::Problem,
    reading::{Named, Reading},
};

mod operations;
mod shapes;
mod view;

pub(super) use operations::operations;
pub(super) use shapes::{EFFECTIVE, schemas};
pub(super) use view::{Brief, brief, brief_schema, percent};

/// One day in milliseconds.
const DAY_MS: u64 = 24 * 3_600_000;
/// Days of grace at most.
const GRACE_DAYS_MAX: u64 = dotmac_protocol::license::GRACE_MAX_MS / DAY_MS;

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading.who.has(Permission::LicenseRead)?;
    let (limit, after) = reading.page::<DeploymentId>();
    let Reading {
        who,
        state,
        mut query,
        ..
    } = reading;
    let phase = query.choice("status", &Phase::ALL.map(Phase::as_str));
    let tenant = query.parsed::<TenantId>("tenant_id", "the id of a tenant");
    query.finish()?;
    let actor = who.actor();
    let takes = |one: &Deployment| {
        one.status != Status::Destroyed
            && tenant.as_ref().is_none_or(|tenant| one.tenant == *tenant)
            && phase.is_none_or(|phase| one.license.phase(state.now).as_str() == phase)
            && state.may(&actor, Permission::LicenseRead, Some(&one.tenant))
    };
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .deployments
        .range((from, Bound::Unbounded))
        .filter(|(_, one)| takes(one))
        .map(|(id, one)| (id, view::license(&state, id, one)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading.who.has(Permission::LicenseRead)?;
    let Reading {
        who, state, query, ..
    } = reading;
    let (id, _) = who.deployment(&state, &id)?;
    query.finish()?;
    let entity = shown(&state, &id).expect("it was found just now");
    Ok(entity.answer(StatusCode::OK))
}

async fn update(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let deployment = theirs(&change, &id)?;
    let mut fields = change.fields()?;
    let grace_days: Option<u64> = fields.number("grace_days", 0..=GRACE_DAYS_MAX);
    let update = UpdateLicense {
        deployment,
        license_tier: super::deployments::word(&mut fields, "license_tier", LICENSE_TIERS),
        max_subscribers: fields.number("max_subscribers", 1..=1_000_000),
        max_services: fields.number("max_services", 1..=100_000),
        api_rate_limit: fields.number("api_rate_limit", 100..=1_000_000),
        expires_at: fields.time_or_null("expires_at"),
        grace_ms: grace_days.map(|days| days * DAY_MS),
    };
    fields.finish()?;
    let id = update.deployment.clone();
    let command = Command::UpdateLicense(Box::new(update));
    about(&change, &id, StatusCode::OK, command).await
}

async fn suspend(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (deployment, reason) = order(&change, &id)?;
    let id = deployment.clone();
    let command = Command::SuspendLicense { deployment, reason };
    about(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn revoke(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (deployment, reason) = order(&change, &id)?;
    let id = deployment.clone();
    let command = Command::RevokeLicense { deployment, reason };
    about(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn reinstate(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let deployment = theirs(&change, &id)?;
    change.expect_no_fields()?;
    let id = deployment.clone();
    let command = Command::ReinstateLicense { deployment };
    about(&change, &id, StatusCode::ACCEPTED, command).await
}

/// The deployment whose licence is to be changed.
fn theirs(change: &Change, id: &str) -> Result<DeploymentId, Problem> {
    change.who.has(Permission::LicenseUpdate)?;
    let (id, _) = change.who.deployment(&change.state, id)?;
    Ok(id)
}

/// Whose licence is withdrawn, and why.
fn order(change: &Change, id: &str) -> Result<(DeploymentId, String), Problem> {
    let deployment = theirs(change, id)?;
    let mut fields = change.fields()?;
    let reason = fields.required_line("reason", REASON_CHARS_MAX);
    let reason = fields.finish_with(reason)?;
    Ok((deployment, reason))
}

async fn about(
    change: &Change,
    id: &DeploymentId,
    status: StatusCode,
    command: Command,
) -> Result<Response, Problem> {
    change
        .carry_out(command, status, |state, _| shown(state, id))
        .await
}

/// The licence as its reads and changes answer it.
fn shown(state: &State, id: &DeploymentId) -> Option<Entity> {
    let deployment = state.deployments.get(id)?;
    let body = serde_json::to_value(view::license(state, id, deployment));
    Some(Entity {
        body: body.expect("every name is a string"),
        revision: Some(deployment.revision),
        location: None,
    })
}
