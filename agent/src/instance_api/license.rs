//! Licence calls. Only an operator's order makes a licence invalid: never an absent controller or a passing date.

use std::sync::Arc;

use axum::{Json, extract::State};
use dotmac_protocol::license::Phase;
use serde_json::{Value, json};

use super::{
    Api,
    access::{Body, Caller},
    extract::Path,
    fields::Fields,
    problem::Problem,
    standing::{joined, time_text},
    tenant_config,
};
use crate::stations::LICENSED;

/// Bytes of a text of these calls at most.
const TEXT_BYTES_MAX: usize = 1024;

/// POST `/license/validate`: always 200, also where a member is not what it may be.
pub(super) async fn validate(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new("", &body);
    let key = fields.text("license_key", TEXT_BYTES_MAX);
    fields.line("isp_instance_id", TEXT_BYTES_MAX);
    let version = fields.line("version", TEXT_BYTES_MAX);
    fields.optional_text("device_fingerprint", TEXT_BYTES_MAX);
    let standing = api.standing(&caller);
    let refusal = match fields.finish() {
        Err(problem) => Some(problem.detail()),
        Ok(()) if !caller.secrets.is_license_key(&key) => {
            Some("the license key is unknown".to_owned())
        }
        Ok(()) => (!standing.is_valid()).then(String::new),
    };
    if let Some(refusal) = refusal {
        return Ok(Json(json!({
            "valid": false,
            "message": joined(&refusal, &standing.notice()),
            "license_info": null,
            "config_hash": null,
            "activation_token": null,
        })));
    }
    let config = tenant_config::build(&api, &caller)?;
    api.note(&caller, LICENSED);
    api.due.started(&caller.wanted.unit);
    log(&api, &caller, &version, standing.phase);
    Ok(Json(json!({
        "valid": true,
        "message": standing.notice_or("the license is valid"),
        "license_info": info(&api, &caller),
        "config_hash": config.version,
        "activation_token": caller.secrets.activation_token(),
    })))
}

/// GET `/license/{key}`.
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<Value>, Problem> {
    if caller.secrets.is_license_key(&key) {
        Ok(Json(info(&api, &caller)))
    } else {
        Err(Problem::NotFound)
    }
}

/// POST `/license/heartbeat`.
pub(super) async fn heartbeat(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new("", &body);
    let token = fields.text("activation_token", TEXT_BYTES_MAX);
    fields.finish()?;
    if !caller.secrets.is_activation_token(&token) {
        return Err(Problem::NotFound);
    }
    let message = api.standing(&caller).notice_or("the license is active");
    Ok(Json(json!({"status": "acknowledged", "message": message})))
}

fn log(api: &Api, caller: &Caller, version: &str, phase: Phase) {
    let desired = Arc::clone(&api.sources.desired.borrow());
    let unit = &caller.wanted.unit;
    let is_news = api
        .news
        .is_news(unit, (version, phase), &desired, api.now());
    let (unit, phase) = (unit.as_str(), phase.as_str());
    if is_news {
        tracing::info!(unit, version, phase, "an instance validated its license");
    } else {
        tracing::debug!(unit, version, phase, "an instance validated its license");
    }
}

fn info(api: &Api, caller: &Caller) -> Value {
    let (instance, license) = (&caller.instance, &caller.instance.license);
    let standing = api.standing(caller);
    json!({
        "license_key": caller.secrets.license_key(),
        "tenant_id": instance.tenant,
        "tenant_name": instance.tenant_name,
        "tier": license.tier,
        "is_valid": standing.is_valid(),
        "status": standing.phase,
        "message": standing.notice(),
        "expires_at": license.expires_at.and_then(time_text),
        "features": license.features(&instance.features, standing.phase),
        "max_subscribers": standing.max_subscribers,
        "max_services": license.max_services,
        "api_rate_limit": license.api_rate_limit,
        "current_subscribers": api.sources.reports.active(&caller.wanted.unit),
    })
}
