//! What happens in an instance, told one by one or in batches. Answered once it is durable; an event that was told
//! before is answered like the first time. What looks secret in a payload does not leave this agent.

use axum::{Json, extract::State};
use dotmac_protocol::{
    license::Phase,
    record::reports::{EVENT_TYPES, InstanceEvent, PAYLOAD_BYTES_MAX, Report, WORD_BYTES_MAX},
    secrecy,
};
use serde_json::{Map, Value, json};

use super::{
    Api,
    access::{Body, Caller},
    fields::Fields,
    problem::Problem,
    standing::joined,
};

/// Events in one batch at most.
const EVENTS_MAX: usize = 500;

/// POST `/events/webhook`.
pub(super) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let (event, is_whole) = read(&body)?;
    let event_id = event.event_id.clone();
    take(&api, &caller, vec![Report::Event(event)]).await?;
    let said = if is_whole {
        String::new()
    } else {
        left_out("")
    };
    let message = joined(&said, &api.standing(&caller).notice());
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
    let (mut reports, mut errors, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        let read = match event {
            Value::Object(members) => read(members),
            _ => Err(Problem::Body("the event is not a JSON object".to_owned())),
        };
        match read {
            Ok((event, is_whole)) => {
                reports.push(Report::Event(event));
                cut.extend((!is_whole).then(|| index.to_string()));
            }
            Err(problem) => errors.push(json!({
                "index": index,
                "event_id": event.get("event_id").and_then(Value::as_str),
                "error": problem.detail(),
            })),
        }
    }
    let processed = reports.len();
    take(&api, &caller, reports).await?;
    let said = match &cut[..] {
        [] => String::new(),
        cut => left_out(&format!(" of the events at {}", cut.join(", "))),
    };
    Ok(Json(json!({
        "received": events.len(),
        "processed": processed,
        "failed": errors.len(),
        "errors": errors,
        "message": joined(&said, &api.standing(&caller).notice()),
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

/// An event, and whether its payload is kept.
fn read(members: &Map<String, Value>) -> Result<(InstanceEvent, bool), Problem> {
    let mut fields = Fields::new("", members);
    fields.line("tenant_id", WORD_BYTES_MAX);
    let kept = fields.object("payload").and_then(masked);
    let event = InstanceEvent {
        event_id: fields.text("event_id", WORD_BYTES_MAX),
        event_type: fields.word("event_type", &EVENT_TYPES),
        occurred_at: fields.time("occurred_at"),
        payload: kept.clone().unwrap_or_default(),
    };
    fields.finish().map(|()| (event, kept.is_some()))
}

/// A payload without what looks secret; `None` when it is too large.
fn masked(payload: &Map<String, Value>) -> Option<String> {
    let mut payload = payload.clone();
    secrecy::mask(&mut payload);
    let text = Value::Object(payload).to_string();
    (text.len() <= PAYLOAD_BYTES_MAX).then_some(text)
}

/// What is said where a payload is too large. At most 500 places are named: a batch has no more.
fn left_out(of: &str) -> String {
    format!("the payload{of} is left out: it may have at most {PAYLOAD_BYTES_MAX} bytes")
}
