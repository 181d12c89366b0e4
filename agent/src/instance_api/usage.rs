//! What instances report of their use and of their own health. Answered once it is durable; an instance's word about its
//! health decides nothing: health is what the agent probes.

use axum::{Json, extract::State};
use dotmac_protocol::record::reports::{Claim, Report, Usage, WORD_BYTES_MAX};
use serde_json::{Map, Value, json};

use super::{
    Api,
    access::{Body, Caller},
    fields::Fields,
    problem::Problem,
    standing::joined,
    tenant_config,
};
use dotmac_protocol::license::Phase;

/// Digits behind the point of what is reported in megabytes and kept in kilobytes.
const KILO: u32 = 3;

/// POST `/metrics/report`.
pub(super) async fn report(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::new("", &body);
    let metrics = fields.object("metrics");
    let mut claimed = String::new();
    let usage = metrics.map(|metrics| {
        let mut inner = Fields::new("metrics.", metrics);
        claimed = inner.line("tenant_id", WORD_BYTES_MAX);
        let usage = usage(&mut inner);
        fields.adopt(inner);
        usage
    });
    fields.finish()?;
    let usage = usage.expect("without metrics it is refused above");
    let active = usage.active_subscribers;
    let standing = api.standing(&caller);
    let (max, phase, notice) = (standing.max_subscribers, standing.phase, standing.notice());
    let report = Report::Usage(Box::new(usage));
    let is_frozen = phase == Phase::Restricted;
    let reports = &api.sources.reports;
    reports
        .submit(&caller.of(), is_frozen, vec![report])
        .await?;
    api.record_first(&caller, "metrics").await;
    let (action, said) = enforcement(active, max);
    let mut warnings = Vec::new();
    if !notice.is_empty() {
        warnings.push(notice.clone());
    }
    if claimed != caller.wanted.tenant.as_str() {
        warnings.push("tenant_id is not the caller's; the caller's is used".to_owned());
    }
    Ok(Json(json!({
        "received": true,
        "message": joined(&said, &notice),
        "warnings": warnings,
        "errors": [],
        "enforcement_action": action,
    })))
}

/// POST `/metrics/health`.
pub(super) async fn health(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let claim = claim(&body)?;
    let config_version = claim.config_version.clone();
    api.sources.reports.claim(&caller.of(), claim).await?;
    api.record_first(&caller, "health").await;
    let latest = tenant_config::build(&api, &caller)?.version;
    let standing = api.standing(&caller);
    Ok(Json(json!({
        "status": "received",
        "message": standing.notice(),
        "license_valid": standing.is_valid(),
        "config_update_available": config_version != latest,
        "latest_config_version": latest,
    })))
}

fn usage(fields: &mut Fields<'_>) -> Usage {
    Usage {
        reported_at: fields.time("reported_at"),
        active_subscribers: fields.count("active_subscribers"),
        total_subscribers: fields.count("total_subscribers"),
        new_subscribers_today: fields.count("new_subscribers_today"),
        churned_subscribers_today: fields.count("churned_subscribers_today"),
        active_sessions: fields.count("active_sessions"),
        sessions_today: fields.count("sessions_today"),
        data_usage_kb: fields.amount("total_data_usage_mb", KILO),
        active_nas_devices: fields.count("active_nas_devices"),
        active_olts: fields.count("active_olts"),
        active_onts: fields.count("active_onts"),
        revenue_today: fields.optional_decimal("revenue_today"),
        outstanding_invoices: fields.optional_decimal("outstanding_invoices"),
    }
}

fn claim(body: &Map<String, Value>) -> Result<Claim, Problem> {
    let mut fields = Fields::new("", body);
    fields.line("tenant_id", WORD_BYTES_MAX);
    let claim = Claim {
        reported_at: fields.time("reported_at"),
        status: fields.line("status", WORD_BYTES_MAX),
        api_status: fields.line("api_status", WORD_BYTES_MAX),
        radius_status: fields.line("radius_status", WORD_BYTES_MAX),
        database_status: fields.line("database_status", WORD_BYTES_MAX),
        redis_status: fields.line("redis_status", WORD_BYTES_MAX),
        cpu_usage_basis_points: fields.percent("cpu_usage_percent"),
        memory_usage_basis_points: fields.percent("memory_usage_percent"),
        disk_usage_basis_points: fields.percent("disk_usage_percent"),
        app_version: fields.line("app_version", WORD_BYTES_MAX),
        // Before its first configuration an instance has none to name.
        config_version: fields
            .optional_text("config_version", WORD_BYTES_MAX)
            .unwrap_or_default(),
    };
    fields.finish().map(|()| claim)
}

/// What the subscriber limit asks for: (action, message). Nobody of at most nobody is no news.
fn enforcement(active: u64, max: u64) -> (&'static str, String) {
    let reaches =
        |percent: u128| active > 0 && u128::from(active) * 100 >= u128::from(max) * percent;
    let text = format!("{active} of {max} subscribers");
    if active > max {
        ("hard_limit", format!("{text}: the limit is exceeded"))
    } else if reaches(95) {
        ("soft_limit", format!("{text}: the limit is nearly reached"))
    } else if reaches(90) {
        ("warning", format!("{text}: the limit is near"))
    } else if reaches(80) {
        (
            "none",
            format!("{text}: 80 percent of the limit are reached"),
        )
    } else {
        ("none", String::new())
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
            (949, "warning", true),
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
        assert_eq!(enforcement(0, 0), ("none", String::new()));
        assert_eq!(enforcement(1, 0).0, "hard_limit");
        assert_eq!(enforcement(u64::MAX, u64::MAX).0, "soft_limit");
    }
}
