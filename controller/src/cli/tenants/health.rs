//! `dotmac tenants health`: how a tenant's instance is. What its agent's probes found comes first and decides; what the
//! instance claims of itself stands beside it, named as its claim.

use clap::Args;
use serde_json::{Map, Value};

use super::Whose;
use crate::cli::{
    failure::Failure,
    find::Context,
    list::{Newest, Paging},
    view,
};

/// Parts of which an instance claims something.
const PARTS: [&str; 4] = ["api", "radius", "database", "redis"];
/// Shares of which it claims something.
const SHARES: [&str; 3] = ["cpu", "memory", "disk"];

/// Headings of what the probes' verdict was over time.
const CHANGES: [&str; 4] = ["since", "status", "generation", "reason"];

#[derive(Args)]
pub(crate) struct TenantHealth {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    newest: Newest,
}

impl TenantHealth {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let found = self.whose.find(&client).await?;
        let filters = [("environment", found.environment.as_deref())];
        let paging = Paging::from(self.newest);
        let listed = paging
            .read(&client, &found.path("health"), &filters)
            .await?;
        let output = context.output;
        if output.is_data() {
            return output.data(&listed.data());
        }
        let members = [("deployment", "deployment"), ("environment", "environment")];
        let whole = Value::Object(listed.beside.clone());
        output.line(&view::page(&whole, &members))?;
        output.line(&lines(&listed.beside, context.clock.now().0).join("\n"))?;
        let transitions = view::items(&whole, "transitions");
        if !transitions.is_empty() {
            output.line("")?;
            output.table(&CHANGES, transitions.iter().map(change).collect(), "")?;
        }
        if listed.items.is_empty() {
            return Ok(());
        }
        output.line("")?;
        let header = [
            "minute",
            "component",
            "probes",
            "failed",
            "mean ms",
            "slowest ms",
        ];
        output.table(&header, listed.items.iter().map(row).collect(), "")?;
        if listed.next.is_some() {
            output.note("older minutes: --limit N or --all shows them");
        }
        Ok(())
    }
}

/// What the probes found and what the instance claims.
pub(super) fn lines(health: &Map<String, Value>, now_ms: u64) -> Vec<String> {
    let none = Value::Null;
    let observed = health.get("observed").unwrap_or(&none);
    let claimed = health.get("claimed").unwrap_or(&none);
    let text = |name: &str| view::text(observed, name);
    let (status, reason) = (
        text("status"),
        view::lines(observed, "reason", view::HEADING_WIDTH),
    );
    let copies = format!(
        "{} of {} copies are ready",
        text("ready_pods"),
        text("pod_count")
    );
    let probes = match reason {
        none if none.is_empty() => format!("{status}; {copies}"),
        reason if reason.contains('\n') => format!("{status}; {copies}: {reason}"),
        reason => format!("{status}: {reason}; {copies}"),
    };
    let mut lines = vec![format!("probes       {probes}")];
    let hour = &observed["last_hour"];
    if hour.is_object() {
        let text = |name: &str| view::text(hour, name);
        let mean = match text("latency_mean_ms") {
            none if none.is_empty() => String::new(),
            mean => format!(", mean {mean} ms, slowest {} ms", text("latency_max_ms")),
        };
        lines.push(format!(
            "last hour    {} % available: {} of {} probes failed in {} minutes{mean}",
            text("availability_percent"),
            text("failed"),
            text("probes"),
            text("minutes"),
        ));
    }
    lines.push(claim(claimed, now_ms));
    lines
}

fn claim(claimed: &Value, now_ms: u64) -> String {
    if !claimed.is_object() {
        return "its claim    none: the instance said nothing of its own health".to_owned();
    }
    let text = |name: &str| view::text(claimed, name);
    let parts = PARTS.map(|part| format!("{part} {}", text(&format!("{part}_status"))));
    let shares =
        SHARES.map(|share| format!("{share} {} %", text(&format!("{share}_usage_percent"))));
    format!(
        "its claim    {}, by the instance itself {} ago: {}; {}; version {}",
        text("status"),
        view::age(claimed, "received_at", now_ms),
        parts.join(", "),
        shares.join(", "),
        text("app_version"),
    )
}

fn row(minute: &Value) -> Vec<String> {
    let text = |name: &str| view::text(minute, name);
    vec![
        view::time(minute, "minute"),
        text("component"),
        text("probes"),
        text("failed"),
        text("latency_mean_ms"),
        text("latency_max_ms"),
    ]
}

/// A row of what the probes' verdict was, and since when.
fn change(transition: &Value) -> Vec<String> {
    let text = |name: &str| view::text(transition, name);
    vec![
        view::time(transition, "at"),
        text("status"),
        text("generation"),
        text("reason"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{change, lines};

    fn told(health: &Value) -> String {
        lines(health.as_object().unwrap(), 5_000).join("\n")
    }

    #[test]
    fn probes_come_first_and_a_claim_is_named_as_one() {
        let health = json!({
            "observed": {"status": "degraded", "reason": "web failed its probe", "ready_pods": 0, "pod_count": 1,
                "last_hour": {"minutes": 60, "probes": 300, "failed": 3, "availability_percent": 99.0,
                    "latency_mean_ms": 4, "latency_max_ms": 90}},
            "claimed": {"status": "healthy", "received_at": 4_000, "api_status": "healthy", "radius_status": "healthy",
                "database_status": "healthy", "redis_status": "healthy", "cpu_usage_percent": 0.0,
                "memory_usage_percent": 0.0, "disk_usage_percent": 0.0, "app_version": "1.0.0"}});
        let expected = "probes       degraded: web failed its probe; 0 of 1 copies are ready\n\
            last hour    99.0 % available: 3 of 300 probes failed in 60 minutes, mean 4 ms, slowest 90 ms\n\
            its claim    healthy, by the instance itself 1000 ms ago: api healthy, radius healthy, database healthy, \
            redis healthy; cpu 0.0 %, memory 0.0 %, disk 0.0 %; version 1.0.0";
        assert_eq!(told(&health), expected);
    }

    #[test]
    fn a_reason_of_several_lines_keeps_them_on_the_page_and_is_one_cell_of_a_table() {
        let reason =
            "web.0 ended; its last lines:\ndemo-isp: licensed for Alpha ISP\ndemo-isp: serving\n";
        let health = json!({"observed": {"status": "unhealthy", "reason": reason, "ready_pods": 0, "pod_count": 1}});
        let expected = "probes       unhealthy; 0 of 1 copies are ready: web.0 ended; its last lines:\n             \
            demo-isp: licensed for Alpha ISP\n             demo-isp: serving\nits claim    ";
        let told = told(&health);
        assert!(told.starts_with(expected), "{told}");
        let transition =
            json!({"at": "soon", "status": "failed", "generation": 3, "reason": reason});
        let cell =
            "web.0 ended; its last lines: | demo-isp: licensed for Alpha ISP | demo-isp: serving";
        assert_eq!(change(&transition), ["soon", "failed", "3", cell]);
        let at = json!({"at": "2026-01-02T03:04:05Z"});
        assert_eq!(change(&at)[0].len(), "2026-01-02 03:04:05.000 +00:00".len());
    }

    #[test]
    fn an_instance_that_claims_nothing_is_said_to() {
        let health = json!({"observed": {"status": "healthy", "ready_pods": 1, "pod_count": 1, "last_hour": null},
            "claimed": null});
        let expected = "probes       healthy; 1 of 1 copies are ready\n\
            its claim    none: the instance said nothing of its own health";
        assert_eq!(told(&health), expected);
    }
}
