//! Reads what is to be different about a deployment. What the values mean is checked by the State.

use std::collections::BTreeMap;

use dotmac_domain::{
    command::UpdateDeployment,
    tenancy::{REASON_CHARS_MAX, REPLICAS_BOUND_MAX, REPLICAS_MAX},
    tier::{LICENSE_TIERS, RESOURCE_TIERS},
};
use dotmac_protocol::ids::DeploymentId;
use serde_json::Value;

use super::order;
use crate::api::{fields::Fields, problem::Problem};

/// The contract's members of a PATCH. Absent ones, and null, leave things as they are; a feature that is null goes.
pub(super) fn read(id: &DeploymentId, mut fields: Fields) -> Result<UpdateDeployment, Problem> {
    let update = UpdateDeployment {
        deployment: id.clone(),
        resource_tier: order::word(&mut fields, "resource_tier", RESOURCE_TIERS),
        resources: order::resources(&mut fields),
        license_tier: order::word(&mut fields, "license_tier", LICENSE_TIERS),
        image_tag: fields.text("image_tag"),
        min_replicas: fields.number("min_replicas", 1..=u64::from(REPLICAS_MAX)),
        max_replicas: fields.number("max_replicas", 1..=u64::from(REPLICAS_BOUND_MAX)),
        domain_name: fields.text("domain_name"),
        features: features(&mut fields),
    };
    fields.finish()?;
    Ok(update)
}

/// How many copies, and why.
pub(super) fn read_scale(mut fields: Fields) -> Result<(u16, String), Problem> {
    let range = 1..=u64::from(REPLICAS_MAX);
    let replicas = fields.required_number("replicas", range);
    let reason = reason(&mut fields);
    fields.finish()?;
    Ok((replicas.unwrap_or_default(), reason))
}

/// Why, for the audit; may be absent.
pub(super) fn read_reason(mut fields: Fields) -> Result<String, Problem> {
    let reason = reason(&mut fields);
    fields.finish()?;
    Ok(reason)
}

fn reason(fields: &mut Fields) -> String {
    let reason = fields.text("reason").unwrap_or_default();
    if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        let allowed = format!("at most {REASON_CHARS_MAX} characters, no control characters");
        fields.refuse("reason", &reason, allowed);
    }
    reason
}

fn features(fields: &mut Fields) -> Option<BTreeMap<String, Option<bool>>> {
    let members = fields.object("features")?;
    let mut switches = BTreeMap::new();
    for (name, value) in members {
        match value {
            Value::Bool(value) => {
                switches.insert(name, Some(value));
            }
            Value::Null => {
                switches.insert(name, None);
            }
            other => {
                let value = if other.is_number() {
                    other.to_string()
                } else {
                    String::new()
                };
                fields.refuse(&format!("features.{name}"), &value, "true, false or null");
            }
        }
    }
    Some(switches)
}
