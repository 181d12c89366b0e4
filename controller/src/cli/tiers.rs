//! `dotmac tiers`: what can be ordered, with the exact numbers.

use clap::Args;
use serde_json::{Value, json};

use super::{failure::Failure, find::Context, output::bytes, view};

/// Where tiers are told in the API.
const PATH: &str = "/api/v1/tiers";

/// What a deployment may be: sizes and licences, with their numbers.
#[derive(Args)]
pub(crate) struct Tiers {}

impl Tiers {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let tiers: Value = context.client()?.get(PATH).await?;
        if !tiers["resource_tiers"].is_array() {
            return Err(Failure::foreign(PATH, "it names no tiers"));
        }
        let output = context.output;
        if output.is_names() {
            return output.data(&names(&tiers));
        }
        if output.is_data() {
            return output.data(&tiers);
        }
        let header = [
            "resource tier",
            "cpu",
            "memory",
            "storage",
            "copies",
            "usd/month",
        ];
        let rows = view::items(&tiers, "resource_tiers")
            .iter()
            .map(row)
            .collect();
        output.table(&header, rows, "no tiers")?;
        output.line("")?;
        let header = [
            "license tier",
            "stands for",
            "available",
            "answers within",
            "errors",
        ];
        let rows = view::items(&tiers, "license_tiers")
            .iter()
            .map(license)
            .collect();
        output.table(&header, rows, "no tiers")
    }
}

/// What the names of all tiers are read from; resource tiers come first.
fn names(tiers: &Value) -> Value {
    let lists = ["resource_tiers", "license_tiers"];
    let all = lists.iter().flat_map(|list| view::items(tiers, list));
    let items: Vec<Value> = all.map(|tier| tier["name"].clone()).collect();
    json!({ "items": items })
}

fn row(tier: &Value) -> Vec<String> {
    let text = |name: &str| view::text(tier, name);
    vec![
        text("name"),
        range(tier, "cpu"),
        range(tier, "memory"),
        quantity(&tier["storage"]),
        text("max_replicas"),
        price(tier),
    ]
}

/// A month's price; what has none is quoted for each request.
fn price(tier: &Value) -> String {
    match view::text(tier, "price_usd") {
        none if none.is_empty() => "quoted".to_owned(),
        price => price,
    }
}

/// What is granted and what is the limit.
fn range(tier: &Value, name: &str) -> String {
    let of = |kind: &str| quantity(&tier[format!("{name}_{kind}")]);
    match (of("request"), of("limit")) {
        (request, _) if request.is_empty() => "as asked for".to_owned(),
        (request, limit) if request == limit => request,
        (request, limit) => format!("{request} to {limit}"),
    }
}

fn quantity(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), bytes),
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

fn license(tier: &Value) -> Vec<String> {
    let level = |name: &str, unit: &str| match view::text(&tier["service_level"], name) {
        none if none.is_empty() => none,
        value => format!("{value} {unit}"),
    };
    vec![
        view::text(tier, "name"),
        view::text(tier, "alias_of"),
        level("availability_percent", "%"),
        level("response_ms", "ms"),
        level("error_percent", "%"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{names, row};

    #[test]
    fn names_are_those_of_both_kinds_of_tier() {
        let tiers =
            json!({"resource_tiers": [{"name": "small"}], "license_tiers": [{"name": "basic"}]});
        assert_eq!(names(&tiers), json!({"items": ["small", "basic"]}));
    }

    #[test]
    fn a_row_shows_what_is_granted_and_the_limit() {
        let tier = json!({"name": "small", "cpu_request": "250m", "cpu_limit": "1000m", "memory_request": "512Mi",
            "memory_limit": "2Gi", "storage": "10Gi", "max_replicas": 3, "price_usd": 79});
        assert_eq!(
            row(&tier),
            ["small", "250m to 1000m", "512Mi to 2Gi", "10Gi", "3", "79"]
        );
    }
}
