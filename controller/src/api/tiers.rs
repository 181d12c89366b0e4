//! What can be ordered: the tiers with the contract's exact numbers.

use axum::{http::StatusCode, response::Response};
use dotmac_domain::tier::{LICENSE_LIST, LicenseTier, PRICE_LIST, ResourceTier, ServiceLevel};
use serde_json::{Value, json};

use super::{answer::answer, operation::Operation, problem::Problem, reading::Reading, schema};

/// One mebibyte in bytes.
const MIB: u64 = 1024 * 1024;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let about = "Resource tiers with what they grant and cost a month, and license tiers with what is promised. Tier \
                 `custom` has the numbers that its request names.";
    vec![
        Operation::read("tiers.list", "/api/v1/tiers", list)
            .says("List tiers", about)
            .answers(StatusCode::OK, "All of them", schema::of("Tiers")),
    ]
}

/// What their answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let resource = schema::object(
        &[
            ("name", schema::any_text()),
            ("cpu_request", schema::text_or_null()),
            ("memory_request", schema::text_or_null()),
            ("cpu_limit", schema::text_or_null()),
            ("memory_limit", schema::text_or_null()),
            ("storage", schema::text_or_null()),
            ("max_replicas", schema::count()),
            (
                "production_replicas",
                schema::about("Copies at the start in production", schema::count()),
            ),
            (
                "price_usd",
                schema::about("List price a month; null: quoted", schema::count_or_null()),
            ),
        ],
        &[],
    );
    let number = || json!({"type": "number", "minimum": 0});
    let level = schema::object(
        &[
            ("availability_percent", number()),
            ("response_ms", schema::count()),
            ("error_percent", number()),
        ],
        &[],
    );
    let license = schema::object(
        &[
            ("name", schema::any_text()),
            (
                "alias_of",
                schema::about("Of which tier it is an older name", schema::text_or_null()),
            ),
            (
                "service_level",
                schema::about("What is promised; null: nothing", schema::or_null(level)),
            ),
        ],
        &[],
    );
    let tiers = schema::object(
        &[
            ("resource_tiers", schema::list(schema::of("ResourceTier"))),
            ("license_tiers", schema::list(schema::of("LicenseTier"))),
        ],
        &[],
    );
    vec![
        ("ResourceTier", resource),
        ("LicenseTier", license),
        ("Tiers", tiers),
    ]
}

async fn list(reading: Reading) -> Result<Response, Problem> {
    reading.query.finish()?;
    let custom = json!({
        "name": "custom", "cpu_request": null, "memory_request": null, "cpu_limit": null, "memory_limit": null,
        "storage": null, "max_replicas": dotmac_domain::tenancy::REPLICAS_BOUND_MAX, "production_replicas": 1,
        "price_usd": null,
    });
    let resource_tiers = PRICE_LIST.iter().map(resource).chain([custom]);
    let resource_tiers: Vec<Value> = resource_tiers.collect();
    let license_tiers: Vec<Value> = LICENSE_LIST.iter().map(license).collect();
    let body = json!({"resource_tiers": resource_tiers, "license_tiers": license_tiers});
    Ok(answer(StatusCode::OK, body))
}

fn resource(tier: &ResourceTier) -> Value {
    let granted = tier.resources;
    let cpu = |millis: u32| format!("{millis}m");
    json!({
        "name": tier.name,
        "cpu_request": cpu(granted.cpu_request_millis),
        "memory_request": bytes(granted.memory_request_bytes),
        "cpu_limit": cpu(granted.cpu_limit_millis),
        "memory_limit": bytes(granted.memory_limit_bytes),
        "storage": bytes(granted.storage_bytes),
        "max_replicas": tier.max_replicas,
        "production_replicas": tier.production_replicas,
        "price_usd": tier.price_usd,
    })
}

fn license(tier: &LicenseTier) -> Value {
    let level = tier.service_level.map(|level: ServiceLevel| {
        json!({
            "availability_percent": percent(level.availability_basis_points),
            "response_ms": level.response_ms,
            "error_percent": percent(level.error_basis_points),
        })
    });
    json!({"name": tier.name, "alias_of": tier.alias_of, "service_level": level})
}

fn bytes(bytes: u64) -> String {
    match bytes / MIB {
        mebibytes if mebibytes.is_multiple_of(1024) => format!("{}Gi", mebibytes / 1024),
        mebibytes => format!("{mebibytes}Mi"),
    }
}

fn percent(basis_points: u16) -> f64 {
    f64::from(basis_points) / 100.0
}
