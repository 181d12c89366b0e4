//! `dotmac tenants show`: a tenant, and each of its deployments by name: its licence, what it uses, what the probes
//! found and what its instance claims.

use futures::future::join_all;
use serde_json::{Map, Value, json};

use super::{health, page, whose};
use crate::cli::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    licenses, view,
};

/// What a deployment is shown with, beside what the API says of its health.
const OF_DEPLOYMENT: [&str; 3] = ["status", "license", "usage"];
/// What is shown of its health; the names are the API's.
const OF_HEALTH: [&str; 3] = ["observed", "claimed", "transitions"];

/// Shows a tenant with its deployments, or with the one of the environment that was named.
pub(super) async fn run(
    context: &Context,
    client: &Client,
    found: whose::Found,
) -> Result<(), Failure> {
    let instances = instances(client, &found).await?;
    if context.output.is_data() {
        let mut tenant = found.tenant;
        tenant["instances"] = instances.into();
        return context.output.data(&tenant);
    }
    context.output.line(&page(&found.tenant))?;
    let now_ms = context.clock.now().0;
    for instance in &instances {
        context.output.line(&lines(instance, now_ms).join("\n"))?;
    }
    for id in unseen(&found, &instances) {
        context.output.line(&format!("\ndeployment   {id}"))?;
    }
    Ok(())
}

/// The deployments that are meant, each with what the API says of its health; none for who may not see them.
async fn instances(client: &Client, found: &whose::Found) -> Result<Vec<Value>, Failure> {
    let tenant = view::text(&found.tenant, "id");
    let mut all = match whose::all(client, &tenant).await {
        Err(Failure::Refused(_)) => Vec::new(),
        all => all?,
    };
    if let Some(wanted) = &found.environment {
        all.retain(|one| one["environment"] == *wanted);
    }
    let of_health = async |deployment: &Value| {
        let environment = view::text(deployment, "environment");
        let path = found.path("health");
        let path = format!("{path}?limit=1&environment={}", encode(&environment));
        match client.get::<Value>(&path).await {
            // It was removed meanwhile, or is not to be seen: the rest is shown without it.
            Err(Failure::NotFound(_) | Failure::Refused(_)) => Ok(Value::Null),
            health => health,
        }
    };
    let health = join_all(all.iter().map(of_health)).await;
    let pairs = all.iter().zip(health);
    pairs
        .map(|(deployment, health)| Ok(instance(deployment, &health?)))
        .collect()
}

/// A deployment and its health as one object.
fn instance(deployment: &Value, health: &Value) -> Value {
    let take = |one: &Value, names: &[&str]| -> Map<String, Value> {
        let members = names
            .iter()
            .map(|name| ((*name).to_owned(), one[*name].clone()));
        members.collect()
    };
    let named = json!({"deployment": deployment["id"], "environment": deployment["environment"]});
    let mut members = take(&named, &["deployment", "environment"]);
    members.extend(take(deployment, &OF_DEPLOYMENT));
    members.extend(take(health, &OF_HEALTH));
    Value::Object(members)
}

/// Ids of deployments that are not shown although all are meant: removed ones, or some that may not be seen.
fn unseen(found: &whose::Found, instances: &[Value]) -> Vec<String> {
    if found.environment.is_some() {
        return Vec::new();
    }
    let ids = view::items(&found.tenant, "deployments").iter();
    ids.filter(|id| !instances.iter().any(|one| one["deployment"] == **id))
        .filter_map(|id| Some(id.as_str()?.to_owned()))
        .collect()
}

fn lines(instance: &Value, now_ms: u64) -> Vec<String> {
    let text = |name: &str| view::text(instance, name);
    let mut lines = vec![format!(
        "\ndeployment   {}, {}: {}",
        text("deployment"),
        text("environment"),
        text("status")
    )];
    let of_license = [
        ("license", licenses::short(instance)),
        ("usage", licenses::usage(instance, now_ms)),
    ];
    for (heading, value) in of_license.iter().filter(|(_, value)| !value.is_empty()) {
        lines.push(format!("{heading:<12} {value}"));
    }
    if let Some(health) = instance
        .as_object()
        .filter(|_| instance["observed"].is_object())
    {
        lines.extend(health::lines(health, now_ms));
    }
    lines
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, extract::Query, routing::get};
    use serde_json::{Value, json};

    use super::{instances, lines, unseen};
    use crate::cli::{client::tests, deployments, tenants::whose::Found};

    /// A tenant with two deployments, of which only one claims something.
    async fn shown(environment: Option<&str>) -> (Found, Vec<Value>) {
        let of = |id: &str, environment: &str, percent: u64| {
            json!({"id": id, "environment": environment, "status": "active",
                "license": {"status": "valid", "expires_at": null},
                "usage": {"active_subscribers": percent, "max_subscribers": 100, "limit_used_percent": percent}})
        };
        let both = json!({"items": [of("a-1", "production", 5), of("a-1-staging", "staging", 7)]});
        let health = async |Query(asked): Query<Vec<(String, String)>>| {
            let is_staging = asked.contains(&("environment".into(), "staging".into()));
            let claimed = is_staging.then(|| json!({"status": "degraded", "app_version": "2.0"}));
            Json(
                json!({"observed": {"status": "healthy", "ready_pods": 1, "pod_count": 1},
                "claimed": claimed, "transitions": [], "items": []}),
            )
        };
        let router = Router::new()
            .route(deployments::PATH, get(async move || Json(both)))
            .route("/api/v1/tenants/a-1/health", get(health));
        let client = tests::client_of(router).await;
        let found = Found {
            tenant: json!({"id": "a-1", "deployments": ["a-1", "a-1-staging", "a-1-gone"]}),
            environment: environment.map(str::to_owned),
        };
        let instances = instances(&client, &found).await.unwrap();
        (found, instances)
    }

    #[tokio::test]
    async fn each_deployment_is_shown_by_name_with_its_own_license_usage_and_health() {
        let (found, instances) = shown(None).await;
        let told: Vec<String> = instances
            .iter()
            .map(|one| lines(one, 0).join("\n"))
            .collect();
        let none = "its claim    none: the instance said nothing of its own health";
        let production = "\ndeployment   a-1, production: active\nlicense      valid\n\
            usage        5 of 100 subscribers (5 %)\nprobes       healthy; 1 of 1 copies are ready\n";
        assert_eq!(told[0], format!("{production}{none}"));
        let staging = "\ndeployment   a-1-staging, staging: active\nlicense      valid\nusage        7 of 100";
        assert!(told[1].starts_with(staging), "{}", told[1]);
        assert!(told[1].contains("its claim    degraded"), "{}", told[1]);
        assert_eq!(unseen(&found, &instances), ["a-1-gone"]);
    }

    #[tokio::test]
    async fn programs_get_probes_and_claims_under_the_names_of_the_api() {
        let (found, instances) = shown(Some("staging")).await;
        let expected = json!([{"deployment": "a-1-staging", "environment": "staging", "status": "active",
            "license": {"status": "valid", "expires_at": null},
            "usage": {"active_subscribers": 7, "max_subscribers": 100, "limit_used_percent": 7},
            "observed": {"status": "healthy", "ready_pods": 1, "pod_count": 1},
            "claimed": {"status": "degraded", "app_version": "2.0"}, "transitions": []}]);
        assert_eq!(Value::from(instances.clone()), expected);
        assert!(unseen(&found, &instances).is_empty());
    }
}
