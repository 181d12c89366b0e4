//! A tenant's configuration as instances read it. Its version is a digest of its content, so that no edit goes
//! unnoticed and an agent that lost nothing serves the same version after a restart.

use axum::{Json, extract::State};
use dotmac_protocol::digest::Digest;
use serde_json::{Map, Value, json};

use super::{
    Api,
    access::{Body, Caller},
    extract::Path,
    fields::Fields,
    problem::Problem,
    standing::{Standing, time_text},
};
use crate::stations::CONFIGURED;

/// Members that custom configuration cannot replace.
const OURS: [&str; 6] = [
    "tenant_id",
    "tenant_name",
    "features",
    "license",
    "config_version",
    "updated_at",
];
/// How deep custom configuration is merged; deeper members are replaced whole.
const MERGE_DEPTH_MAX: usize = 8;

/// Bytes of a version that an instance has at most.
const VERSION_BYTES_MAX: usize = 256;

/// A configuration and the digest of its content.
pub(super) struct TenantConfig {
    pub(super) version: String,
    content: Map<String, Value>,
}

/// GET `/config/{tenant}`.
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Problem> {
    let config = of_caller(&api, &caller, &tenant)?;
    api.note(&caller, CONFIGURED);
    Ok(Json(Value::Object(config.content)))
}

/// POST `/config/{tenant}/sync`: without a current version the whole configuration.
pub(super) async fn sync(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new("", &body);
    let current = fields.optional_text("current_version", VERSION_BYTES_MAX);
    fields.finish()?;
    let config = of_caller(&api, &caller, &tenant)?;
    api.note(&caller, CONFIGURED);
    let message = api.standing(&caller).notice();
    let needs_update = current.as_ref() != Some(&config.version);
    let config = needs_update.then_some(config.content);
    Ok(Json(
        json!({"needs_update": needs_update, "config": config, "message": message}),
    ))
}

/// The caller's configuration.
pub(super) fn build(api: &Api, caller: &Caller) -> Result<TenantConfig, Problem> {
    let (unit, instance) = (&caller.wanted.unit, &caller.instance);
    let credentials = api
        .sources
        .platform
        .credentials(unit, instance)
        .map_err(|error| {
            tracing::error!(%unit, %error, "an instance's configuration cannot be put together");
            Problem::Unavailable
        })?;
    let standing = api.standing(caller);
    let mut content = defaults(caller, &standing);
    if !instance.custom_config.is_empty() {
        match serde_json::from_str::<Map<String, Value>>(&instance.custom_config) {
            Ok(custom) => merge(&mut content, custom, OURS.as_slice(), MERGE_DEPTH_MAX),
            Err(error) => tracing::error!(%unit, %error, "custom configuration is no JSON object"),
        }
    }
    for (name, clear) in credentials {
        if let Some(key) = name
            .strip_prefix("config.")
            .filter(|key| !OURS.contains(key))
        {
            content.insert(key.to_owned(), Value::String(clear));
        }
    }
    let bytes = serde_json::to_vec(&content).expect("it has text keys only");
    let version = Digest::of(&bytes).hex();
    content.insert("config_version".into(), json!(version));
    let updated_at = standing
        .since()
        .map_or(caller.wanted.at, |since| since.max(caller.wanted.at));
    content.insert("updated_at".into(), json!(time_text(updated_at)));
    Ok(TenantConfig { version, content })
}

/// Somebody else's tenant is answered like one that does not exist.
fn of_caller(api: &Api, caller: &Caller, tenant: &str) -> Result<TenantConfig, Problem> {
    caller.check_tenant(tenant)?;
    build(api, caller)
}

fn defaults(caller: &Caller, standing: &Standing<'_>) -> Map<String, Value> {
    let instance = &caller.instance;
    let content = json!({
        "tenant_id": instance.tenant,
        "tenant_name": instance.tenant_name,
        "features": instance.license.features(&instance.features, standing.phase),
        "license": standing.summary(),
        "radius": {
            "nas_identifier": instance.deployment,
            "default_session_timeout": 86_400,
            "default_idle_timeout": 1_800,
            "coa_port": 3_799,
            "accounting_interim_interval": 300,
        },
        "billing": {
            "currency": "USD",
            "tax_rate": 0,
            "invoice_due_days": 14,
            "dunning_enabled": false,
            "payment_methods": [],
        },
        "branding": {
            "company_name": instance.tenant_name,
            "primary_color": "#1f6feb",
            "logo_url": null,
            "support_email": null,
            "support_phone": null,
            "timezone": "UTC",
        },
    });
    match content {
        Value::Object(content) => content,
        _ => unreachable!("the literal above is an object"),
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>, ours: &[&str], depth: usize) {
    for (key, value) in from {
        if ours.contains(&key.as_str()) {
            continue;
        }
        match (into.get_mut(&key), value) {
            (Some(Value::Object(before)), Value::Object(after)) if depth > 0 => {
                merge(before, after, &[], depth - 1);
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
