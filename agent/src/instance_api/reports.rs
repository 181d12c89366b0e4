//! What instances report: metrics, health, events. Counted, with the last subscriber count kept, per unit; that a
//! started instance reports is recorded once. An instance's word decides nothing: health is what the agent probes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::{Json, extract::State};
use dotmac_protocol::{ids::UnitId, record::Event};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    access::{Body, Caller},
    license,
    problem::Problem,
    tenant_config,
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

/// Counts of all units since the agent started.
#[derive(Debug, Default)]
pub(super) struct Reports {
    units: Mutex<BTreeMap<UnitId, UnitReports>>,
}

#[derive(Debug, Default)]
struct UnitReports {
    metrics: u64,
    health: u64,
    events: u64,
    subscribers: Option<u64>,
    /// The instance was started and did not report yet. An agent that restarts sees no start: nothing is due.
    due: bool,
}

#[derive(Deserialize)]
pub(super) struct MetricsRequest {
    metrics: Metrics,
}

#[derive(Deserialize)]
struct Metrics {
    tenant_id: String,
    #[serde(rename = "reported_at")]
    _reported_at: String,
    active_subscribers: u64,
    #[serde(rename = "total_subscribers")]
    _total_subscribers: u64,
}

#[derive(Deserialize)]
pub(super) struct HealthRequest {
    #[serde(rename = "reported_at")]
    _reported_at: String,
    #[serde(rename = "status")]
    _status: String,
    config_version: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct EventRequest {
    event_id: String,
    event_type: String,
    #[serde(rename = "occurred_at")]
    _occurred_at: String,
}

#[derive(Deserialize)]
pub(super) struct BatchRequest {
    events: Vec<Value>,
}

impl Reports {
    /// An instance was started: its next report is recorded again.
    pub(super) fn started(&self, unit: &UnitId) {
        self.lock().entry(unit.clone()).or_default().due = true;
    }

    /// The subscriber count reported last.
    pub(super) fn subscribers(&self, unit: &UnitId) -> Option<u64> {
        self.lock().get(unit)?.subscribers
    }

    /// Counts, and says whether this is the first report since the start.
    fn count(&self, unit: &UnitId, change: impl FnOnce(&mut UnitReports)) -> bool {
        let mut units = self.lock();
        let reports = units.entry(unit.clone()).or_default();
        change(reports);
        std::mem::take(&mut reports.due)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UnitId, UnitReports>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// POST `/metrics/report`.
pub(super) async fn metrics(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<MetricsRequest>,
) -> Json<Value> {
    let metrics = request.metrics;
    let active = metrics.active_subscribers;
    let first = api.reports.count(&caller.wanted.unit, |reports| {
        reports.metrics += 1;
        reports.subscribers = Some(active);
    });
    record_first(&api, &caller, first, "metrics").await;
    let max = u64::from(caller.instance.license.max_subscribers);
    let (action, message) = enforcement(active, max);
    let mut warnings = Vec::new();
    if metrics.tenant_id != caller.wanted.tenant.as_str() {
        warnings.push("tenant_id is not the caller's; the caller's is used");
    }
    Json(json!({
        "received": true,
        "message": message,
        "warnings": warnings,
        "errors": [],
        "enforcement_action": action,
    }))
}

/// POST `/metrics/health`.
pub(super) async fn health(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<HealthRequest>,
) -> Result<Json<Value>, Problem> {
    let first = api
        .reports
        .count(&caller.wanted.unit, |reports| reports.health += 1);
    record_first(&api, &caller, first, "health").await;
    let latest = tenant_config::build(&api, &caller)?.version;
    Ok(Json(json!({
        "status": "received",
        "message": "",
        "license_valid": license::is_valid(&caller),
        "config_update_available": request.config_version.as_ref() != Some(&latest),
        "latest_config_version": latest,
    })))
}

/// POST `/events/webhook`.
pub(super) async fn event(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<EventRequest>,
) -> Result<Json<Value>, Problem> {
    check_event(&request).map_err(Problem::Body)?;
    let first = api
        .reports
        .count(&caller.wanted.unit, |reports| reports.events += 1);
    record_first(&api, &caller, first, "events").await;
    let event_id = request.event_id;
    Ok(Json(
        json!({"status": "received", "event_id": event_id, "message": ""}),
    ))
}

/// POST `/events/webhook/batch`.
pub(super) async fn events(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<BatchRequest>,
) -> Result<Json<Value>, Problem> {
    let received = request.events.len();
    if received > EVENTS_MAX {
        let detail = format!("{received} events; at most {EVENTS_MAX} are allowed");
        return Err(Problem::Body(detail));
    }
    let mut errors = Vec::new();
    for (index, event) in request.events.into_iter().enumerate() {
        let event_id = event.get("event_id").cloned().unwrap_or(Value::Null);
        let checked = serde_json::from_value::<EventRequest>(event)
            .map_err(|error| error.to_string())
            .and_then(|event| check_event(&event));
        if let Err(error) = checked {
            errors.push(json!({"index": index, "event_id": event_id, "error": error}));
        }
    }
    let processed = received - errors.len();
    let counted = u64::try_from(processed).expect("a batch is small");
    let first = api
        .reports
        .count(&caller.wanted.unit, |reports| reports.events += counted);
    record_first(&api, &caller, first, "events").await;
    Ok(Json(json!({
        "received": received,
        "processed": processed,
        "failed": errors.len(),
        "errors": errors,
    })))
}

async fn record_first(api: &Api, caller: &Caller, first: bool, what: &str) {
    if first {
        let event = Event::Audit {
            action: "instance.reported".to_owned(),
            detail: format!("{what} arrive from the started instance"),
        };
        api.record(caller, event).await;
    }
}

/// What the subscriber limit asks for: (action, message).
fn enforcement(active: u64, max: u64) -> (&'static str, String) {
    let reaches = |percent: u128| u128::from(active) * 100 >= u128::from(max) * percent;
    let text = format!("{active} of {max} subscribers");
    if active > max {
        ("hard_limit", format!("{text}: the limit is exceeded"))
    } else if reaches(95) {
        ("soft_limit", format!("{text}: the limit is nearly reached"))
    } else if reaches(90) {
        ("warning", format!("{text}: the limit is near"))
    } else if reaches(80) {
        ("none", format!("{text}: more than 80 percent of the limit"))
    } else {
        ("none", String::new())
    }
}

fn check_event(event: &EventRequest) -> Result<(), String> {
    if event.event_id.is_empty() || event.event_id.len() > 128 {
        return Err("event_id has 1 to 128 characters".to_owned());
    }
    if EVENT_TYPES.contains(&event.event_type.as_str()) {
        Ok(())
    } else {
        Err(format!("event_type is one of {}", EVENT_TYPES.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::enforcement;

    #[test]
    fn enforcement_steps_are_those_of_the_contract() {
        let cases = [
            (799, "none", false),
            (800, "none", true),
            (899, "none", true),
            (900, "warning", true),
            (950, "soft_limit", true),
            (1000, "soft_limit", true),
            (1001, "hard_limit", true),
        ];
        for (active, action, has_message) in cases {
            let (found, message) = enforcement(active, 1000);
            assert_eq!(
                (found, !message.is_empty()),
                (action, has_message),
                "{active}"
            );
        }
    }
}
