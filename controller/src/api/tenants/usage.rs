//! What a tenant's instance uses, by its own count: the last one against its licence, the highest of each month, and
//! each count as it came.

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    State,
    audit::Stream,
    reported::{Received, Reported},
    tenancy::Deployment,
};
use dotmac_protocol::{
    ids::DeploymentId,
    record::reports::{PluginUsage, Report, Usage},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::series;
use crate::api::{
    answer::{answer, time},
    licenses::{EFFECTIVE, percent},
    operation::Operation,
    problem::Problem,
    reading::{Named, Reading},
    schema,
};

/// What may be counted.
const KINDS: [&str; 2] = ["instance", "plugin"];

/// What can be asked.
pub(super) fn operation(path: String) -> Operation {
    let about = "By its own count, once each, newest first; `current` is the last count and the license's limit beside \
                 it, `peaks` the most active subscribers of each of the last months (UTC).";
    series::operation(Operation::read("tenants.usage", path, show))
        .says("Read what a tenant's instance uses", about)
        .query(
            "kind",
            schema::one_of(&KINDS),
            "only the counts of the instance itself, or of its plugins",
        )
        .answers(StatusCode::OK, "One page", schema::of("TenantUsage"))
}

/// What it answers.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let count = || ("count", schema::count());
    let current = [
        &[("received_at", schema::time())][..],
        &counts(),
        &[
            ("max_subscribers", schema::count()),
            effective(),
            ("limit_used_percent", schema::count()),
        ],
    ]
    .concat();
    let peak = schema::object(
        &[
            ("month", schema::pattern("^[0-9]{4,}-[0-9]{2}$")),
            ("active_subscribers", schema::count()),
        ],
        &[],
    );
    let tally = |about| {
        let last_at = ("last_at", schema::or_null(schema::time()));
        schema::about(about, schema::object(&[count(), last_at], &[]))
    };
    let plugin = schema::object(
        &[
            ("plugin_id", schema::any_text()),
            ("metric_name", schema::any_text()),
            ("usage_count", schema::count()),
            ("timestamp", schema::time()),
        ],
        &[],
    );
    let item = [
        ("kind", schema::one_of(&KINDS)),
        ("usage", schema::or_null(schema::of("Usage"))),
        ("plugin", schema::or_null(plugin)),
    ];
    let own = [
        ("current", schema::or_null(schema::object(&current, &[]))),
        ("peaks", schema::list(peak)),
        ("counts", tally("counts of the instance so far")),
        ("plugin_counts", tally("counts of its plugins so far")),
        (
            "ignored",
            schema::about(
                "reports that exceeded their bounds and did not count",
                schema::count(),
            ),
        ),
    ];
    vec![
        ("TenantUsage", series::schema_of(&item, &own)),
        ("Usage", schema::object(&counts(), &[])),
    ]
}

fn effective() -> (&'static str, Value) {
    let member = schema::about(EFFECTIVE, schema::count());
    ("effective_max_subscribers", member)
}

fn counts() -> Vec<(&'static str, Value)> {
    let numbers = [
        "active_subscribers",
        "total_subscribers",
        "new_subscribers_today",
        "churned_subscribers_today",
        "active_sessions",
        "sessions_today",
        "active_nas_devices",
        "active_olts",
        "active_onts",
    ];
    let mut members: Vec<_> = numbers
        .into_iter()
        .map(|name| (name, schema::count()))
        .collect();
    members.extend([
        (
            "reported_at",
            schema::about("by the instance's clock", schema::time()),
        ),
        (
            "total_data_usage_mb",
            json!({"type": "number", "minimum": 0}),
        ),
        ("revenue_today", schema::text_or_null()),
        ("outstanding_invoices", schema::text_or_null()),
    ]);
    members
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    let (asked, kind) = series::read(reading, &id, |query| query.choice("kind", &KINDS))?;
    let own = summary(&asked.state, &asked.deployment, asked.one());
    let stream = Stream::Usage(asked.deployment.clone());
    let mut page = asked
        .page(stream, move |record| item(&record.report, kind))
        .await?;
    page.extend(own);
    Ok(answer(StatusCode::OK, page))
}

fn summary(state: &State, id: &DeploymentId, one: &Deployment) -> Map<String, Value> {
    let none = Reported::default();
    let reported = state.reported.get(id).unwrap_or(&none);
    let most = state.subscribers_of(id, one);
    let last = reported.usage.as_ref();
    let current = last.map(|last| current(last, one.license.max_subscribers, most));
    let peaks: Vec<Value> = reported
        .peaks
        .iter()
        .rev()
        .map(|(month, peak)| json!({"month": month.to_string(), "active_subscribers": peak}))
        .collect();
    let tally = |tally: &dotmac_domain::reported::Tally| json!({"count": tally.count, "last_at": tally.last_at.map(time)});
    Map::from_iter([
        ("current".to_owned(), json!(current)),
        ("peaks".to_owned(), json!(peaks)),
        ("counts".to_owned(), tally(&reported.usages)),
        ("plugin_counts".to_owned(), tally(&reported.plugins)),
        ("ignored".to_owned(), json!(reported.ignored)),
    ])
}

fn current(last: &Received<Usage>, granted: u32, most: u64) -> Map<String, Value> {
    let mut members = usage(&last.report);
    let used = percent(last.report.active_subscribers, most);
    members.insert("received_at".to_owned(), json!(time(last.at)));
    members.insert("max_subscribers".to_owned(), json!(granted));
    members.insert("effective_max_subscribers".to_owned(), json!(most));
    members.insert("limit_used_percent".to_owned(), json!(used));
    members
}

fn item(report: &Report, kind: Option<&'static str>) -> Option<Map<String, Value>> {
    let (of, usage, plugin) = match report {
        Report::Usage(one) => ("instance", json!(usage(one)), Value::Null),
        Report::Plugin(one) => ("plugin", Value::Null, plugin(one)),
        Report::Event(_) | Report::Claim(_) | Report::Minute(_) => return None,
    };
    if kind.is_some_and(|kind| kind != of) {
        return None;
    }
    Some(Map::from_iter([
        ("kind".to_owned(), json!(of)),
        ("usage".to_owned(), usage),
        ("plugin".to_owned(), plugin),
    ]))
}

fn usage(one: &Usage) -> Map<String, Value> {
    let Value::Object(members) = json!({
        "reported_at": time(one.reported_at), "active_subscribers": one.active_subscribers,
        "total_subscribers": one.total_subscribers, "new_subscribers_today": one.new_subscribers_today,
        "churned_subscribers_today": one.churned_subscribers_today, "active_sessions": one.active_sessions,
        "sessions_today": one.sessions_today, "total_data_usage_mb": megabytes(one.data_usage_kb),
        "active_nas_devices": one.active_nas_devices, "active_olts": one.active_olts,
        "active_onts": one.active_onts, "revenue_today": one.revenue_today,
        "outstanding_invoices": one.outstanding_invoices,
    }) else {
        return Map::new();
    };
    members
}

/// Kilobytes as the contract counts them.
fn megabytes(kilobytes: u64) -> Value {
    let (whole, rest) = (kilobytes / 1_000, kilobytes % 1_000);
    let number = format!("{whole}.{rest:03}").parse::<f64>();
    json!(number.unwrap_or_default())
}

fn plugin(one: &PluginUsage) -> Value {
    json!({
        "plugin_id": one.plugin_id, "metric_name": one.metric_name, "usage_count": one.usage_count,
        "timestamp": time(one.timestamp),
    })
}

/// What an instance uses in short, as its deployment and its tenant show it.
#[derive(Serialize)]
pub(in crate::api) struct Brief {
    active_subscribers: u64,
    max_subscribers: u32,
    effective_max_subscribers: u64,
    limit_used_percent: u64,
    received_at: String,
}

/// What an instance uses in short; `None` before its first count.
pub(in crate::api) fn brief(state: &State, id: &DeploymentId, one: &Deployment) -> Option<Brief> {
    let last = state.reported.get(id)?.usage.as_ref()?;
    let (used, most) = (
        last.report.active_subscribers,
        state.subscribers_of(id, one),
    );
    Some(Brief {
        active_subscribers: used,
        max_subscribers: one.license.max_subscribers,
        effective_max_subscribers: most,
        limit_used_percent: percent(used, most),
        received_at: time(last.at),
    })
}

/// What [`brief`] gives.
pub(in crate::api) fn brief_schema() -> Value {
    let members = schema::object(
        &[
            ("active_subscribers", schema::count()),
            ("max_subscribers", schema::count()),
            effective(),
            ("limit_used_percent", schema::count()),
            ("received_at", schema::time()),
        ],
        &[],
    );
    schema::about("by its own last count", schema::or_null(members))
}
