//! What happened in a tenant's instance, as it told: its own events, not the platform's story of it (the audit).

use axum::{http::StatusCode, response::Response};
use dotmac_domain::audit::Stream;
use dotmac_protocol::record::reports::{EVENT_TYPES, InstanceEvent, Report};
use serde_json::{Map, Value, json};

use super::series;
use crate::api::{
    answer::{answer, time},
    operation::Operation,
    problem::Problem,
    reading::{Named, Reading},
    schema,
};

/// What can be asked.
pub(super) fn operation(path: String) -> Operation {
    let about = "As it told them, once each, newest first. A page of a rare kind may be short and still have a cursor.";
    series::operation(Operation::read("tenants.events", path, show))
        .says("Read what happened in a tenant's instance", about)
        .query(
            "event_type",
            schema::one_of(&EVENT_TYPES),
            "only those of this type",
        )
        .answers(StatusCode::OK, "One page", schema::of("TenantEvents"))
}

/// What it answers.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let payload = schema::about(
        "as it told it, secret-looking members masked; null if it was too large to keep",
        schema::anything(),
    );
    let item = [
        ("event_id", schema::any_text()),
        ("event_type", schema::any_text()),
        (
            "occurred_at",
            schema::about("by the instance's clock", schema::time()),
        ),
        ("payload", payload),
    ];
    let own = [
        (
            "count",
            schema::about("events so far, of every type", schema::count()),
        ),
        ("last_at", schema::or_null(schema::time())),
    ];
    vec![("TenantEvents", series::schema_of(&item, &own))]
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    let (asked, event_type) = series::read(reading, &id, |query| {
        query.choice("event_type", &EVENT_TYPES)
    })?;
    let tally = asked.state.reported.get(&asked.deployment);
    let tally = tally.map(|reported| reported.events).unwrap_or_default();
    let stream = Stream::Events(asked.deployment.clone());
    let mut page = asked
        .page(stream, move |record| match &record.report {
            Report::Event(event) if is_of(event, event_type) => Some(item(event)),
            _ => None,
        })
        .await?;
    page.insert("count".to_owned(), json!(tally.count));
    page.insert("last_at".to_owned(), json!(tally.last_at.map(time)));
    Ok(answer(StatusCode::OK, page))
}

fn is_of(event: &InstanceEvent, event_type: Option<&str>) -> bool {
    event_type.is_none_or(|wanted| event.event_type == wanted)
}

fn item(event: &InstanceEvent) -> Map<String, Value> {
    let payload: Value = serde_json::from_str(&event.payload).unwrap_or_default();
    Map::from_iter([
        ("event_id".to_owned(), json!(event.event_id)),
        ("event_type".to_owned(), json!(event.event_type)),
        ("occurred_at".to_owned(), json!(time(event.occurred_at))),
        ("payload".to_owned(), payload),
    ])
}
