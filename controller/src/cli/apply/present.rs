//! A deployment's members as a file would have them: for comparing with what a file wants, and for making a file. The
//! same thing in other words is the same.

use dotmac_protocol::license::Tier;
use serde_json::{Map, Value};

use super::fields::{FIELDS, Field};

/// A deployment's member as a file would have it.
pub(super) fn presented(name: &str, shown: &Value) -> Value {
    match name {
        "image_tag" => match (
            shown["release"]["name"].as_str(),
            shown["release"]["version"].as_str(),
        ) {
            (Some(name), Some(version)) => format!("{name}:{version}").into(),
            _ => Value::Null,
        },
        "state" if shown["status"] == "suspended" => "suspended".into(),
        "state" => "active".into(),
        "resources" if shown[name].is_object() => {
            let mut numbers = shown[name].clone();
            numbers["max_replicas"] = shown["tier_max_replicas"].clone();
            numbers
        }
        name => shown[name].clone(),
    }
}

/// A deployment as a file would have it, with every field that it shows.
pub(crate) fn exported(deployment: &Value) -> Value {
    let mut whole = Map::new();
    let is_custom = deployment["resource_tier"] == "custom";
    for field in &FIELDS {
        let value = presented(field.name, deployment);
        let is_empty = match &value {
            Value::Null => true,
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        let is_wanted = match field.name {
            // The tenant's id and the environment say it without doubt.
            "id" | "tenant_name" => false,
            "resources" => is_custom,
            _ => true,
        };
        if is_wanted && !is_empty {
            whole.insert(field.name.into(), value);
        }
    }
    Value::Object(whole)
}

/// What to ask for a field, if it is not yet as it should be.
pub(super) fn changed(field: &Field, wanted: &Value, shown: &Value) -> Option<Value> {
    let present = presented(field.name, shown);
    let is_same = match (field.name, wanted) {
        ("features", Value::Object(names)) => {
            let differ = names
                .iter()
                .filter(|(name, value)| present[name.as_str()] != **value);
            let differ: Map<_, _> = differ
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            return (!differ.is_empty()).then_some(Value::Object(differ));
        }
        ("image_tag", Value::String(tag)) if !tag.contains(':') => {
            shown["release"]["version"].as_str() == Some(tag)
        }
        ("domain_name", Value::String(domain)) => present
            .as_str()
            .is_some_and(|present| present.eq_ignore_ascii_case(domain)),
        ("license_tier", Value::String(tier)) => is_same_license(&present, tier),
        ("resources", Value::Object(numbers)) => numbers
            .iter()
            .all(|(name, value)| same_quantity(value, &present[name.as_str()])),
        (_, wanted) => present == *wanted,
    };
    (!is_same).then(|| wanted.clone())
}

/// `professional` is premium's older name.
fn is_same_license(present: &Value, wanted: &str) -> bool {
    let present = present.as_str().unwrap_or_default();
    present == wanted
        || (Tier::from_name(present).is_some()
            && Tier::from_name(present) == Tier::from_name(wanted))
}

/// Numbers and texts of one quantity in the same words.
fn same_quantity(wanted: &Value, present: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text(wanted) == text(present)
}

/// The first member of a configuration that is not as it should be; what is sealed cannot be compared.
pub(super) fn config_differs(
    path: &str,
    wanted: &Value,
    shown: &Value,
    sealed: &[&str],
) -> Option<String> {
    if sealed.contains(&path) {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (shown, wanted) else {
        return (wanted != shown).then(|| path.to_owned());
    };
    let missing = before.keys().find(|name| !after.contains_key(*name));
    if let Some(name) = missing {
        return Some(format!("{path}.{name}"));
    }
    after.iter().find_map(|(name, inner)| {
        config_differs(
            &format!("{path}.{name}"),
            inner,
            &shown[name.as_str()],
            sealed,
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::exported;

    #[test]
    fn an_export_holds_what_can_be_asked_for_and_nothing_else() {
        let deployment = json!({"id": "a-1", "tenant_id": "a-1", "tenant_name": "A", "environment": "production",
            "status": "suspended", "replicas": 2, "resource_tier": "small", "region": "do-fra1", "generation": 7,
            "release": {"name": "demo-isp", "version": "1.0.0", "digest": "sha256:0"}, "features": {},
            "credentials": ["database.url"], "waiting": null, "resources": {"storage": "10Gi"}});
        let expected = json!({"tenant_id": "a-1", "environment": "production", "state": "suspended", "replicas": 2,
            "resource_tier": "small", "region": "do-fra1", "image_tag": "demo-isp:1.0.0"});
        assert_eq!(exported(&deployment), expected);
    }
}
