//! How a tenant's instance is: what its agent's probes found, which decides, and beside it what the instance claims of
//! itself, which decides nothing.

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    audit::Stream,
    reported::{Availability, Received, Reported, Transition},
};
use dotmac_protocol::record::{
    HealthStatus,
    reports::{Claim, ProbeMinute, Report},
};
use serde_json::{Map, Value, json};

use super::series;
use crate::api::{
    answer::{answer, time},
    deployments,
    operation::Operation,
    problem::Problem,
    reading::{Named, Reading},
    schema,
};

/// What can be asked.
pub(super) fn operation(path: String) -> Operation {
    let about = "`observed` is what its agent's probes found, over the last 60 minutes; `claimed` is what the instance \
                 says of itself and decides nothing. The items are the probes' minutes, newest first, one a component.";
    series::operation(Operation::read("tenants.health", path, show))
        .says("Read how a tenant's instance is", about)
        .answers(StatusCode::OK, "One page", schema::of("TenantHealth"))
}

/// What it answers.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let percent = || json!({"type": "number", "minimum": 0});
    let probes = || {
        vec![
            ("probes", schema::count()),
            ("failed", schema::count()),
            ("latency_mean_ms", schema::count_or_null()),
            ("latency_max_ms", schema::count()),
        ]
    };
    let hour = [
        &[
            ("minutes", schema::count()),
            ("availability_percent", percent()),
        ][..],
        &probes(),
    ]
    .concat();
    let hour = schema::about(
        "the last 60 minutes; null if there was no probe",
        schema::or_null(schema::object(&hour, &[])),
    );
    let words = ["healthy", "degraded", "unhealthy", "unknown"];
    let observed = schema::object(
        &[
            ("status", schema::one_of(&words)),
            ("reason", schema::any_text()),
            ("pod_count", schema::count()),
            ("ready_pods", schema::count()),
            ("last_hour", hour),
        ],
        &[],
    );
    let mut claimed = vec![
        ("received_at", schema::time()),
        ("reported_at", schema::time()),
    ];
    claimed.extend(WORDS.map(|name| (name, schema::any_text())));
    claimed.extend(SHARES.map(|name| (name, percent())));
    let item = [
        &[
            ("minute", schema::time()),
            ("component", schema::part_name()),
        ][..],
        &probes(),
    ]
    .concat();
    let transition = schema::object(
        &[
            ("at", schema::time()),
            (
                "status",
                schema::one_of(&HealthStatus::ALL.map(HealthStatus::as_str)),
            ),
            ("reason", schema::any_text()),
            ("generation", schema::count()),
        ],
        &[],
    );
    let own = [
        ("observed", observed),
        ("claimed", schema::or_null(schema::object(&claimed, &[]))),
        (
            "transitions",
            schema::about(
                "how the probes' verdict changed, newest first, the last 20",
                schema::list(transition),
            ),
        ),
    ];
    vec![("TenantHealth", series::schema_of(&item, &own))]
}

/// What an instance claims in words.
const WORDS: [&str; 7] = [
    "status",
    "api_status",
    "radius_status",
    "database_status",
    "redis_status",
    "app_version",
    "config_version",
];
/// What it claims in percent.
const SHARES: [&str; 3] = [
    "cpu_usage_percent",
    "memory_usage_percent",
    "disk_usage_percent",
];

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    let now = reading.now();
    let (asked, ()) = series::read(reading, &id, |_| ())?;
    let seen = asked.state.observed(asked.one());
    let none = Reported::default();
    let reported = asked.state.reported.get(&asked.deployment);
    let reported = reported.unwrap_or(&none);
    let sum = |count: fn(&dotmac_protocol::record::ComponentHealth) -> u16| {
        let counts = seen.components.iter().map(|part| u32::from(count(part)));
        counts.sum::<u32>()
    };
    let observed = json!({
        "status": deployments::health(seen.health), "reason": seen.reason,
        "pod_count": sum(|part| part.desired), "ready_pods": sum(|part| part.ready),
        "last_hour": reported.availability(now).map(hour),
    });
    let claimed = reported.claim.as_ref().map(claim);
    let transitions: Value = reported.transitions.iter().rev().map(transition).collect();
    let stream = Stream::Minutes(asked.deployment.clone());
    let mut page = asked
        .page(stream, |record| match &record.report {
            Report::Minute(minute) => Some(item(minute)),
            _ => None,
        })
        .await?;
    page.insert("observed".to_owned(), observed);
    page.insert("claimed".to_owned(), json!(claimed));
    page.insert("transitions".to_owned(), transitions);
    Ok(answer(StatusCode::OK, page))
}

fn hour(found: Availability) -> Value {
    json!({
        "minutes": found.minutes, "probes": found.probes, "failed": found.failed,
        "availability_percent": percent(found.basis_points.into()),
        "latency_mean_ms": found.latency_mean_ms, "latency_max_ms": found.latency_max_ms,
    })
}

fn transition(one: &Transition) -> Value {
    json!({
        "at": time(one.at), "status": one.status.as_str(), "reason": one.reason,
        "generation": one.generation,
    })
}

fn claim(claim: &Received<Claim>) -> Value {
    let one = &claim.report;
    json!({
        "received_at": time(claim.at), "reported_at": time(one.reported_at), "status": one.status,
        "api_status": one.api_status, "radius_status": one.radius_status,
        "database_status": one.database_status, "redis_status": one.redis_status,
        "app_version": one.app_version, "config_version": one.config_version,
        "cpu_usage_percent": percent(one.cpu_usage_basis_points),
        "memory_usage_percent": percent(one.memory_usage_basis_points),
        "disk_usage_percent": percent(one.disk_usage_basis_points),
    })
}

fn item(minute: &ProbeMinute) -> Map<String, Value> {
    let mean = minute.latency_sum_ms.checked_div(minute.probes.into());
    Map::from_iter([
        ("minute".to_owned(), json!(time(minute.minute))),
        ("component".to_owned(), json!(minute.component)),
        ("probes".to_owned(), json!(minute.probes)),
        ("failed".to_owned(), json!(minute.failed)),
        ("latency_mean_ms".to_owned(), json!(mean)),
        ("latency_max_ms".to_owned(), json!(minute.latency_max_ms)),
    ])
}

/// Hundredths of a percent as percent.
fn percent(basis_points: u32) -> f64 {
    f64::from(basis_points) / 100.0
}
