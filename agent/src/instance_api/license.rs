//! Licence calls. Only an operator's order makes a licence invalid: never an absent controller or a passing date.

use axum::{
    Json,
    extract::{Path, State},
};
use dotmac_protocol::{time::Timestamp, unit::LicenseStanding};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    access::{Body, Caller},
    problem::Problem,
    tenant_config,
};
use crate::stations::LICENSED;

#[derive(Deserialize)]
pub(super) struct ValidateRequest {
    license_key: String,
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct HeartbeatRequest {
    activation_token: String,
}

/// POST `/license/validate`: always 200.
pub(super) async fn validate(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<ValidateRequest>,
) -> Result<Json<Value>, Problem> {
    let refused = |message: &str| {
        Json(json!({
            "valid": false,
            "message": message,
            "license_info": null,
            "config_hash": null,
            "activation_token": null,
        }))
    };
    if !caller.secrets.is_license_key(&request.license_key) {
        return Ok(refused("the license key is unknown"));
    }
    let license = &caller.instance.license;
    match license.standing {
        LicenseStanding::Suspended => return Ok(refused("the license is suspended")),
        LicenseStanding::Revoked => return Ok(refused("the license was revoked")),
        LicenseStanding::Valid => {}
    }
    let config = tenant_config::build(&api, &caller)?;
    let over = license.expires_at.is_some_and(|end| end <= api.now());
    let message = if over {
        "the license is valid; its term is over and it should be renewed"
    } else {
        "the license is valid"
    };
    api.note(&caller, LICENSED);
    api.reports.started(&caller.wanted.unit);
    let unit = caller.wanted.unit.as_str();
    tracing::info!(
        unit,
        version = request.version,
        "an instance validated its license"
    );
    Ok(Json(json!({
        "valid": true,
        "message": message,
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
    caller: Caller,
    Body(request): Body<HeartbeatRequest>,
) -> Result<Json<Value>, Problem> {
    if request.activation_token != caller.secrets.activation_token() {
        return Err(Problem::NotFound);
    }
    Ok(Json(
        json!({"status": "acknowledged", "message": "the license is active"}),
    ))
}

pub(super) fn is_valid(caller: &Caller) -> bool {
    caller.instance.license.standing == LicenseStanding::Valid
}

/// RFC 3339, UTC.
pub(super) fn time_text(time: Timestamp) -> Option<String> {
    let millis = i64::try_from(time.0).ok()?;
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(time.to_string())
}

fn info(api: &Api, caller: &Caller) -> Value {
    let license = &caller.instance.license;
    json!({
        "license_key": caller.secrets.license_key(),
        "tenant_id": caller.instance.tenant,
        "tenant_name": caller.instance.tenant_name,
        "tier": license.tier,
        "is_valid": is_valid(caller),
        "expires_at": license.expires_at.and_then(time_text),
        "features": caller.instance.features,
        "max_subscribers": license.max_subscribers,
        "max_services": license.max_services,
        "api_rate_limit": license.api_rate_limit,
        "current_subscribers": api.reports.subscribers(&caller.wanted.unit),
    })
}
