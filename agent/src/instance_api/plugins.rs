//! The calls of older instances, which show their licence key instead of a token. A plugin is what a licence grants as a
//! feature: there is nothing else yet that could be licensed, and nothing else is claimed to be.

use axum::{Json, extract::State, http::StatusCode};
use dotmac_protocol::{
    license::Phase,
    record::reports::{PluginUsage, Report, WORD_BYTES_MAX},
    time::Timestamp,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    access::{Body, Caller, KeyCaller},
    extract::{Path, Query},
    fields::{Fields, Wrong, time},
    problem::Problem,
    standing::{Standing, joined, time_text},
    tenant_config,
};
use crate::stations::CONFIGURED;

/// Measurements in one report at most.
const METRICS_MAX: usize = 500;
/// The longest version text, in bytes.
const VERSION_BYTES_MAX: usize = 256;

/// Which plugin is asked about.
#[derive(Debug, Deserialize)]
pub(super) struct ValidateQuery {
    plugin_id: Option<String>,
    feature: Option<String>,
}

/// Whether only what is granted is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct SubscriptionsQuery {
    active_only: Option<String>,
}

/// From which day to which.
#[derive(Debug, Deserialize)]
pub(super) struct SummaryQuery {
    start_date: Option<String>,
    end_date: Option<String>,
}

/// GET `/plugin-licensing/validate/{tenant}`.
pub(super) async fn validate(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Path(tenant): Path<String>,
    Query(query): Query<ValidateQuery>,
) -> Result<Json<Value>, Problem> {
    caller.check_tenant(&tenant)?;
    let plugin = query
        .plugin_id
        .filter(|plugin| !plugin.is_empty() && plugin.len() <= WORD_BYTES_MAX)
        .ok_or_else(|| {
            let allowed = format!("the name of a plugin, of 1 to {WORD_BYTES_MAX} bytes");
            wrong("plugin_id", "none", &allowed)
        })?;
    let standing = api.standing(&caller);
    let granted = granted(&caller, &standing);
    let asked = [Some(plugin.as_str()), query.feature.as_deref()];
    let mut missing = asked
        .into_iter()
        .flatten()
        .filter(|name| !granted.contains(&feature_name(name)));
    let missing = missing.next().map(ToOwned::to_owned);
    let is_valid = standing.is_valid() && missing.is_none();
    let notice = standing.notice();
    let reason = match missing {
        Some(name) if standing.is_valid() => {
            let name: String = name.chars().take(WORD_BYTES_MAX).collect();
            joined(&format!("the license does not grant {name}"), &notice)
        }
        _ => notice,
    };
    let license = &caller.instance.license;
    Ok(Json(json!({
        "plugin_id": plugin,
        "tenant_id": tenant,
        "is_valid": is_valid,
        "license_status": status(standing.phase),
        "tier": license.tier,
        "features": granted,
        "usage_limits": {
            "max_subscribers": standing.max_subscribers,
            "max_services": license.max_services,
            "api_rate_limit": license.api_rate_limit,
        },
        "expires_at": license.expires_at.and_then(time_text),
        "trial_ends_at": null,
        "reason": (!reason.is_empty()).then_some(reason),
    })))
}

/// POST `/plugin-licensing/usage`.
pub(super) async fn usage(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Body(body): Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut fields = Fields::new("", &body);
    let plugin = fields.optional_text("plugin_id", WORD_BYTES_MAX);
    let mut reports = Vec::new();
    for (index, metric) in fields.list("metrics", METRICS_MAX).iter().enumerate() {
        let Value::Object(members) = metric else {
            let allowed = "an object";
            return Err(wrong(&format!("metrics.{index}"), "no object", allowed));
        };
        let mut inner = Fields::new(&format!("metrics.{index}."), members);
        let own = match &plugin {
            Some(plugin) => inner
                .optional_text("plugin_id", WORD_BYTES_MAX)
                .unwrap_or_else(|| plugin.clone()),
            None => inner.text("plugin_id", WORD_BYTES_MAX),
        };
        reports.push(Report::Plugin(PluginUsage {
            plugin_id: own,
            metric_name: inner.text("metric_name", WORD_BYTES_MAX),
            usage_count: inner.count_up("usage_count"),
            timestamp: inner.time("timestamp"),
        }));
        fields.adopt(inner);
    }
    fields.finish()?;
    let count = reports.len();
    let standing = api.standing(&caller);
    let (is_frozen, message) = (standing.phase == Phase::Restricted, standing.notice());
    let (of, into) = (caller.of(), &api.sources.reports);
    into.submit(&of, is_frozen, reports).await?;
    let answer = json!({"status": "recorded", "recorded": count, "message": message});
    Ok((StatusCode::CREATED, Json(answer)))
}

/// POST `/plugin-licensing/health-status`: acknowledged; health is what the agent probes.
pub(super) async fn health_status(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Body(_body): Body,
) -> Json<Value> {
    let standing = api.standing(&caller);
    Json(json!({
        "status": "acknowledged",
        "message": standing.notice(),
        "license_status": status(standing.phase),
        "license_valid": standing.is_valid(),
    }))
}

/// GET `/plugin-licensing/tenant/{tenant}/subscriptions`.
pub(super) async fn subscriptions(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Path(tenant): Path<String>,
    Query(query): Query<SubscriptionsQuery>,
) -> Result<Json<Value>, Problem> {
    caller.check_tenant(&tenant)?;
    let active_only = match query.active_only.as_deref() {
        None => true,
        Some(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(wrong("active_only", text, "true or false")),
        },
    };
    let standing = api.standing(&caller);
    let license = &caller.instance.license;
    let features = license.features(&caller.instance.features, standing.phase);
    let entries: Vec<Value> = features
        .into_iter()
        .filter(|(_, is_on)| *is_on || !active_only)
        .map(|(name, is_on)| {
            json!({
                "plugin_id": name,
                "tenant_id": tenant,
                "tier": license.tier,
                "status": if is_on { status(standing.phase) } else { "inactive" },
                "is_active": is_on,
                "expires_at": license.expires_at.and_then(time_text),
                "trial_ends_at": null,
            })
        })
        .collect();
    Ok(Json(json!({
        "tenant_id": tenant,
        "subscriptions": entries,
        "total": entries.len(),
        "message": standing.notice(),
    })))
}

/// GET `/plugin-licensing/usage-summary/{tenant}/{plugin}`.
pub(super) async fn usage_summary(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Path((tenant, plugin)): Path<(String, String)>,
    Query(query): Query<SummaryQuery>,
) -> Result<Json<Value>, Problem> {
    caller.check_tenant(&tenant)?;
    let day = |name: &str, text: &Option<String>, otherwise| match text.as_deref() {
        None | Some("") => Ok(otherwise),
        Some(text) => day(text).ok_or_else(|| {
            wrong(
                name,
                text,
                "a day or a time from 1970-01-01 to 9999-12-30, such as 2026-01-31",
            )
        }),
    };
    let from = day("start_date", &query.start_date, Timestamp(0))?;
    let to = day("end_date", &query.end_date, Timestamp(u64::MAX))?;
    let (reports, unit) = (&api.sources.reports, &caller.wanted.unit);
    let metrics = reports.plugin_usage(unit, &plugin, from, to);
    Ok(Json(json!({
        "tenant_id": tenant,
        "plugin_id": plugin,
        "start_date": query.start_date,
        "end_date": query.end_date,
        "metrics": metrics,
        "total_usage": metrics.values().fold(0_u64, |sum, count| sum.saturating_add(*count)),
        "message": api.standing(&caller).notice(),
    })))
}

/// POST `/config/validate`: whether what an instance has is what its platform would give it.
pub(super) async fn config_validate(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    // Some send the configuration itself, some inside of a member.
    let config = match body.get("config") {
        Some(Value::Object(config)) => config,
        _ => &body,
    };
    let latest = tenant_config::build(&api, &caller)?.version;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    match config.get("tenant_id") {
        Some(tenant) if *tenant != json!(caller.wanted.tenant) => {
            errors.push("tenant_id is not the caller's".to_owned());
        }
        _ => {}
    }
    if let Some(features) = config.get("features") {
        let are_switches = features
            .as_object()
            .is_some_and(|features| features.values().all(Value::is_boolean));
        if !are_switches {
            errors.push("features is not an object of yes and no".to_owned());
        }
    }
    match config.get("config_version") {
        Some(version) if *version != json!(latest) => {
            warnings.push("config_version is not the newest".to_owned());
        }
        _ => {}
    }
    let notice = api.standing(&caller).notice();
    warnings.extend((!notice.is_empty()).then(|| notice.clone()));
    Ok(Json(json!({
        "valid": errors.is_empty(),
        "message": notice,
        "errors": errors,
        "warnings": warnings,
        "latest_config_version": latest,
    })))
}

/// POST `/config/applied`: the configuration that an instance says it uses.
pub(super) async fn config_applied(
    State(api): State<Api>,
    KeyCaller(caller): KeyCaller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new("", &body);
    let version = fields.optional_text("config_version", VERSION_BYTES_MAX);
    fields.finish()?;
    let latest = tenant_config::build(&api, &caller)?.version;
    api.note(&caller, CONFIGURED);
    Ok(Json(json!({
        "status": "acknowledged",
        "message": api.standing(&caller).notice(),
        "config_update_available": version.as_ref() != Some(&latest),
        "latest_config_version": latest,
    })))
}

/// The features that are on, by name.
fn granted(caller: &Caller, standing: &Standing<'_>) -> Vec<String> {
    let instance = &caller.instance;
    let features = instance
        .license
        .features(&instance.features, standing.phase);
    let granted = features.into_iter().filter(|(_, is_on)| *is_on);
    granted.map(|(name, _)| name).collect()
}

/// Older instances write hyphens.
fn feature_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The word of older instances for a phase.
fn status(phase: Phase) -> &'static str {
    match phase {
        Phase::Valid => "active",
        other => other.as_str(),
    }
}

fn day(text: &str) -> Option<Timestamp> {
    time(text).or_else(|| time(&format!("{text}T00:00:00Z")))
}

fn wrong(field: &str, value: &str, allowed: &str) -> Problem {
    Problem::Fields(vec![Wrong {
        field: field.to_owned(),
        value: value.chars().take(WORD_BYTES_MAX).collect(),
        allowed: allowed.to_owned(),
    }])
}
