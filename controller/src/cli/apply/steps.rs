//! What has to be done so that a deployment is as a file wants it, one step at a time: each is decided from how the
//! deployment is then, so that a run that was interrupted is simply repeated. Nothing here asks anybody.

use serde_json::{Map, Value, json};

use super::{
    document::Fault,
    fields::{Change, FIELDS},
    item::{self, Item, Who},
    present::{changed, config_differs, presented},
    world::Target,
};
use crate::cli::plan::{Difference, between};

/// One thing to ask for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A new deployment, with this body.
    Create(Value),
    /// To run again.
    Resume,
    /// Other fields, with this body.
    Update(Value),
    /// So many copies.
    Scale(u64),
    /// To be stopped.
    Suspend,
}

/// The first step that is still to be done.
pub(super) fn next(item: &Item, target: &Target) -> Option<Step> {
    let shown = match target {
        Target::New { tenant } => return Some(Step::Create(creation(item, tenant.as_deref()))),
        Target::Existing(shown) => shown,
    };
    let is_suspended = shown["status"] == "suspended";
    let suspends = item.is_suspended();
    if is_suspended && suspends == Some(false) {
        return Some(Step::Resume);
    }
    let update = update(item, shown);
    if !update.is_empty() {
        return Some(Step::Update(Value::Object(update)));
    }
    if let Some(replicas) = item.number("replicas")
        && shown["replicas"].as_u64() != Some(replicas)
    {
        return Some(Step::Scale(replicas));
    }
    (!is_suspended && suspends == Some(true)).then_some(Step::Suspend)
}

/// Everything that is to be different.
pub(super) fn differences(item: &Item, target: &Target) -> Vec<Difference> {
    let Target::Existing(shown) = target else {
        let mut whole = item::order(item);
        let further = FIELDS.iter().filter(|field| !field.at_creation);
        for field in further.filter(|field| field.change != Change::Never) {
            whole.extend(
                item.fields
                    .get(field.name)
                    .map(|value| (field.name.into(), value.clone())),
            );
        }
        hide_secrets(&mut whole);
        return between(&json!({}), &Value::Object(whole));
    };
    let mut found = Vec::new();
    for (name, value) in update(item, shown) {
        let from = presented(&name, shown);
        match name.as_str() {
            "features" => {
                let names = value.as_object().into_iter().flatten();
                found.extend(names.map(|(inner, to)| Difference {
                    field: format!("features.{inner}"),
                    from: from[inner.as_str()].clone(),
                    to: to.clone(),
                }));
            }
            _ => found.push(Difference {
                field: name,
                from,
                to: value,
            }),
        }
    }
    for name in ["replicas", "state"] {
        let (from, to) = (presented(name, shown), item.fields.get(name));
        found.extend(to.filter(|to| **to != from).map(|to| Difference {
            field: name.into(),
            from,
            to: to.clone(),
        }));
    }
    found
}

/// Fields that differ and can only be settled at creation.
pub(super) fn fixed(item: &Item, shown: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |name: &str, what: String| {
        faults.push(Fault::new(item.line_of(name), format!("{name}: {what}")));
    };
    let settled = FIELDS.iter().filter(|field| {
        matches!(field.change, Change::AtCreation | Change::Never)
            && !matches!(field.name, "database_url" | "redis_url" | "custom_config")
    });
    for field in settled {
        let Some(wanted) = item.fields.get(field.name) else {
            continue;
        };
        let shown = presented(field.name, shown);
        if *wanted != shown {
            let hint = match field.name {
                "tenant_name" => "; `dotmac tenants update` renames a tenant",
                _ => "",
            };
            fault(
                field.name,
                format!("{shown} cannot become {wanted}: it is settled at creation{hint}"),
            );
        }
    }
    let names: Vec<&str> = list(shown, "credentials");
    for (name, credential) in [("database_url", "database.url"), ("redis_url", "redis.url")] {
        if item.fields.contains_key(name) && !names.contains(&credential) {
            fault(
                name,
                "it was not given at creation and cannot be added".into(),
            );
        }
    }
    if let Some(wanted) = item.fields.get("custom_config")
        && let Some(path) = config_differs("config", wanted, &shown["custom_config"], &names)
    {
        fault(
            "custom_config",
            format!("{path} differs, and it is settled at creation"),
        );
    }
    faults
}

/// Fields whose present value nobody can see, so that they are not compared.
pub(super) fn uncompared(item: &Item) -> Vec<&'static str> {
    let secret = ["database_url", "redis_url"];
    secret
        .into_iter()
        .filter(|name| item.fields.contains_key(name))
        .collect()
}

fn creation(item: &Item, tenant: Option<&str>) -> Value {
    let mut body: Map<String, Value> = item::order(item);
    let environment = match &item.who {
        Who::Id(_) => None,
        Who::Tenant { environment, .. } => Some(environment),
        Who::Name { name, environment } => {
            if tenant.is_none() {
                body.insert("tenant_name".into(), name.as_str().into());
            }
            Some(environment)
        }
    };
    body.extend(tenant.map(|id| ("tenant_id".to_owned(), id.into())));
    body.extend(environment.map(|name| ("environment".to_owned(), name.as_str().into())));
    if let Some(Value::Object(features)) = body.get_mut("features") {
        features.retain(|_, value| !value.is_null());
    }
    Value::Object(body)
}

/// The fields of an update that are not yet as they should be.
fn update(item: &Item, shown: &Value) -> Map<String, Value> {
    let fields = FIELDS
        .iter()
        .filter(|field| field.change == Change::ByUpdate);
    let mut body = Map::new();
    for field in fields {
        if let Some(wanted) = item.fields.get(field.name)
            && let Some(value) = changed(field, wanted, shown)
        {
            body.insert(field.name.into(), value);
        }
    }
    // The numbers of tier custom are taken only together with its name.
    if body.contains_key("resources")
        && let Some(tier) = item.fields.get("resource_tier")
    {
        body.insert("resource_tier".into(), tier.clone());
    }
    let is_custom = body
        .get("resource_tier")
        .is_some_and(|tier| tier == "custom");
    if is_custom && let Some(resources) = item.fields.get("resources") {
        body.insert("resources".into(), resources.clone());
    }
    body
}

/// What may not be shown is shown as given.
fn hide_secrets(whole: &mut Map<String, Value>) {
    for name in ["database_url", "redis_url", "custom_config"] {
        if let Some(value) = whole.get_mut(name) {
            *value = "(given)".into();
        }
    }
}

fn list<'a>(value: &'a Value, name: &str) -> Vec<&'a str> {
    let items = value[name].as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Step, differences, fixed, next};
    use crate::cli::apply::{
        document,
        item::{self, Item},
        world::Target,
    };

    fn item(text: &str) -> Item {
        let documents = document::read(text).unwrap();
        item::read(&documents).unwrap().remove(0)
    }

    fn shown() -> Value {
        json!({"id": "a-1", "tenant_name": "A", "environment": "production", "status": "active", "replicas": 1,
            "resource_tier": "small", "license_tier": "premium", "domain_name": "a.example", "region": "do-fra1",
            "release": {"name": "demo-isp", "version": "1.0.0"}, "features": {"billing": true},
            "credentials": ["database.url", "config.smtp.password"], "custom_config": {"smtp": {"host": "m"}}})
    }

    fn step(text: &str, shown: Value) -> Option<Step> {
        next(&item(text), &Target::Existing(Box::new(shown)))
    }

    #[test]
    fn what_is_as_it_should_be_needs_no_step() {
        let text = "tenant_name: A\nstate: active\nreplicas: 1\nresource_tier: small\nlicense_tier: professional\n\
                    domain_name: A.example\nimage_tag: 1.0.0\nfeatures: {billing: true, old: null}\nregion: do-fra1\n\
                    custom_config: {smtp: {host: m, password: {from_env: PATH}}}\ndatabase_url: {from_env: PATH}\n";
        assert_eq!(step(text, shown()), None);
        let item = item(text);
        assert!(fixed(&item, &shown()).is_empty());
        assert!(differences(&item, &Target::Existing(Box::new(shown()))).is_empty());
    }

    #[test]
    fn steps_come_in_the_order_in_which_they_are_possible() {
        let text = "tenant_name: A\nstate: active\nresource_tier: medium\nreplicas: 2\nfeatures: {billing: false}\n";
        let mut now = shown();
        now["status"] = "suspended".into();
        assert_eq!(step(text, now.clone()), Some(Step::Resume));
        now["status"] = "active".into();
        let body = json!({"resource_tier": "medium", "features": {"billing": false}});
        assert_eq!(step(text, now.clone()), Some(Step::Update(body)));
        now["resource_tier"] = "medium".into();
        now["features"] = json!({"billing": false});
        assert_eq!(step(text, now.clone()), Some(Step::Scale(2)));
        now["replicas"] = 2.into();
        assert_eq!(step(text, now.clone()), None);
        assert_eq!(
            step("tenant_name: A\nstate: suspended\n", now),
            Some(Step::Suspend)
        );
    }

    #[test]
    fn a_new_one_is_made_with_what_a_creation_may_name() {
        let item = item(
            "tenant_name: A\nregion: do-fra1\nreplicas: 2\nmin_replicas: 1\nfeatures: {x: true, y: null}\n",
        );
        let expected = json!({"tenant_name": "A", "environment": "production", "region": "do-fra1",
            "features": {"x": true}});
        assert_eq!(
            next(&item, &Target::New { tenant: None }),
            Some(Step::Create(expected))
        );
        let tenant = Some("a-1".to_owned());
        let Some(Step::Create(body)) = next(&item, &Target::New { tenant }) else {
            panic!("a creation")
        };
        assert_eq!(
            (&body["tenant_id"], &body["tenant_name"]),
            (&json!("a-1"), &Value::Null)
        );
    }

    #[test]
    fn what_is_settled_at_creation_is_told_with_its_line() {
        let item = item(
            "tenant_name: A\nregion: byov-lagos\nredis_url: {from_env: PATH}\ncustom_config: {smtp: {host: other}}\n",
        );
        let said: Vec<_> = fixed(&item, &shown())
            .into_iter()
            .map(|one| (one.line, one.what))
            .collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said[0].0 == 2
                && said[0]
                    .1
                    .contains("\"do-fra1\" cannot become \"byov-lagos\""),
            "{said:?}"
        );
        assert!(
            said[1].0 == 3 && said[1].1.contains("cannot be added"),
            "{said:?}"
        );
        assert!(
            said[2].0 == 4 && said[2].1.contains("config.smtp.host differs"),
            "{said:?}"
        );
    }

    #[test]
    fn no_secret_is_in_a_difference() {
        let item = item(
            "tenant_name: A\ndatabase_url: {from_env: PATH}\ncustom_config: {password: {from_env: PATH}}\n",
        );
        let told = format!("{:?}", differences(&item, &Target::New { tenant: None }));
        assert!(!told.contains(&std::env::var("PATH").unwrap()), "{told}");
    }
}
