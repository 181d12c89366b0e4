//! What happens in an instance, told one by one or in batches. Answered once it is durable; an event that was told
//! before is answered like the first time. What looks secret in a payload does not leave this agent.

use axum::{Json, extract::State};
use dotmac_protocol::{
    license::Phase,
    record::reports::{InstanceEvent, PAYLOAD_BYTES_MAX, Report, WORD_BYTES_MAX},
    secrecy,
};
use serde_json::{Map, Value, json};

use super::{
    Api,
    access::{Body, Caller},
    fields::Fields,
    problem::Problem,
};

/// Events in one batch at most.
const EVENTS_MAX: usize = 500;

/// Event types of the contract.
const EVENT_TYPES: [&str; 25] = [
    "subscriber.created",
    "subscriber.activated",
    "subscriber.suspended",
    "subscriber.terminated",
    "subscriber.upgraded",
    "subscriber.downgraded",
    "subscriber.updated",
    "payment.received",
    "payment.failed",
    "invoice.created",
    "invoice.overdue",
    "invoice.paid",
    "ticket.created",
    "ticket.escalated",
    "ticket.resolved",
    "nas.online",
    "nas.offline",
    "olt.alarm",
    "ont.alarm",
    "ont.provisioned",
    "ont.deprovisioned",
    "session.started",
    "session.ended",
    "session.terminated",
    "session.coa_sent",
];

/// POST `/events/webhook`.
pub(super) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let event = read(&body)?;
    let event_id = event.event_id.clone();
    take(&api, &caller, vec![Report::Event(event)]).await?;
    let message = api.standing(&caller).notice();
    Ok(Json(
        json!({"status": "received", "event_id": event_id, "message": message}),
    ))
}

/// POST `/events/webhook/batch`.
pub(super) async fn batch(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new("", &body);
    let events = fields.list("events", EVENTS_MAX);
    fields.finish()?;
    let (mut reports, mut errors) = (Vec::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        let read = match event {
            Value::Object(members) => read(members),
            _ => Err(Problem::Body("the event is not a JSON object".to_owned())),
        };
        match read {
            Ok(event) => reports.push(Report::Event(event)),
            Err(problem) => errors.push(json!({
                "index": index,
                "event_id": event.get("event_id").and_then(Value::as_str),
                "error": problem.detail(),
            })),
        }
    }
    let processed = reports.len();
    take(&api, &caller, reports).await?;
    Ok(Json(json!({
        "received": events.len(),
        "processed": processed,
        "failed": errors.len(),
        "errors": errors,
        "message": api.standing(&caller).notice(),
    })))
}

async fn take(api: &Api, caller: &Caller, reports: Vec<Report>) -> Result<(), Problem> {
    if reports.is_empty() {
        return Ok(());
    }
    let is_frozen = api.standing(caller).phase == Phase::Restricted;
    let (of, into) = (caller.of(), &api.sources.reports);
    into.submit(&of, is_frozen, reports).await?;
    api.record_first(caller, "events").await;
    Ok(())
}

fn read(members: &Map<String, Value>) -> Result<InstanceEvent, Problem> {
    let mut fields = Fields::new("", members);
    fields.line("tenant_id", WORD_BYTES_MAX);
    let payload = fields.object("payload");
    let event = InstanceEvent {
        event_id: fields.text("event_id", WORD_BYTES_MAX),
        event_type: fields.word("event_type", &EVENT_TYPES),
        occurred_at: fields.time("occurred_at"),
        payload: payload.map(masked).unwrap_or_default(),
    };
    fields.finish().map(|()| event)
}

/// A payload without what looks secret; empty when it is too large.
fn masked(payload: &Map<String, Value>) -> String {
    let mut payload = payload.clone();
    secrecy::mask(&mut payload);
    let text = Value::Object(payload).to_string();
    if text.len() <= PAYLOAD_BYTES_MAX {
        text
    } else {
        String::new()
    }
}
