//! One deployment for people: what it is, the way of its order with milliseconds per hop, and what it waits for.

use serde_json::Value;

use super::wait::progress_in_lines;
use crate::cli::{failure::Failure, find::Context, licenses, output::duration, view};

/// Members shown, in order, with their headings.
const MEMBERS: [(&str, &str); 15] = [
    ("id", "id"),
    ("deployment_name", "name"),
    ("tenant_id", "tenant"),
    ("environment", "environment"),
    ("region", "region"),
    ("agent", "agent"),
    ("health_status", "health"),
    ("resource_tier", "tier"),
    ("limits", "limits"),
    ("license_tier", "license"),
    ("domain_name", "domain"),
    ("namespace", "namespace"),
    ("generation", "generation"),
    ("created_at", "created"),
    ("deployed_at", "deployed"),
];

/// Writes a deployment as a page or as JSON.
pub(crate) fn print(context: &Context, deployment: &Value) -> Result<(), Failure> {
    if context.output.is_data() {
        return context.output.data(deployment);
    }
    context
        .output
        .line(&page(deployment, context.clock.now().0))
}

fn page(deployment: &Value, now_ms: u64) -> String {
    let mut lines = Vec::new();
    for (member, heading) in MEMBERS {
        let value = match member {
            "created_at" | "deployed_at" => view::time(deployment, member),
            "license_tier" => {
                let parts = [view::text(deployment, member), licenses::short(deployment)];
                parts.join(", ").trim_end_matches(", ").to_owned()
            }
            _ => view::text(deployment, member),
        };
        if !value.is_empty() {
            lines.push(format!("{heading:<12} {value}"));
        }
        if member == "id" {
            let status = progress_in_lines(deployment, now_ms, view::HEADING_WIDTH);
            lines.push(format!("{:<12} {status}", "status"));
        }
    }
    let usage = licenses::usage(deployment, now_ms);
    if !usage.is_empty() {
        lines.push(format!("{:<12} {usage}", "usage"));
    }
    let release = &deployment["release"];
    if release.is_object() {
        let (name, version) = (view::text(release, "name"), view::text(release, "version"));
        lines.push(format!("{:<12} {name} {version}", "release"));
    }
    if let Some(due) = view::millis(&deployment["delete_after"]) {
        let left = duration(due.saturating_sub(now_ms));
        lines.push(format!(
            "{:<12} in {left}; until then: dotmac deployments undelete",
            "removal"
        ));
    }
    lines.extend(components(deployment));
    lines.extend(journey(view::items(deployment, "journey")));
    lines.join("\n")
}

fn components(deployment: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for component in view::items(deployment, "components") {
        let text = |name: &str| view::text(component, name);
        let pids: Vec<_> = view::items(component, "pids")
            .iter()
            .map(ToString::to_string)
            .collect();
        lines.push(format!(
            "{:<12} {}: {}/{} ready, {} restarts, pid {} {}",
            "component",
            text("name"),
            text("ready"),
            text("desired"),
            text("restarts"),
            if pids.is_empty() {
                "none".to_owned()
            } else {
                pids.join(", ")
            },
            text("address"),
        ));
    }
    lines
}

/// The way of the order: each station with the milliseconds since the first and since the one before.
/// Stations are clocked by different machines, so a hop may seem to take less than no time; it then shows as 0.
fn journey(stations: &[Value]) -> Vec<String> {
    let at = |station: &Value| view::millis(&station["at_ms"]).unwrap_or_default();
    let Some(first) = stations.first() else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "{:<12} {:>9} {:>9}  station",
        "way", "total ms", "hop ms"
    )];
    let mut before = at(first);
    for station in stations {
        let now = at(station);
        let (total, hop) = (now.saturating_sub(at(first)), now.saturating_sub(before));
        lines.push(format!(
            "{:<12} {total:>9} {hop:>9}  {}",
            "",
            view::text(station, "station")
        ));
        before = now;
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{journey, page};

    #[test]
    fn the_way_of_an_order_shows_the_time_of_each_hop() {
        let stations = [
            json!({"station": "api.accepted", "at_ms": 1_000}),
            json!({"station": "agent.journalled", "at_ms": 1_012}),
            json!({"station": "agent.healthy", "at_ms": 1_400}),
        ];
        let lines = journey(&stations);
        let columns: Vec<Vec<&str>> = lines[1..]
            .iter()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            columns,
            [
                ["0", "0", "api.accepted"],
                ["12", "12", "agent.journalled"],
                ["400", "388", "agent.healthy"],
            ]
        );
        assert!(journey(&[]).is_empty());
    }

    #[test]
    fn a_page_says_what_it_waits_for_and_when_it_is_removed() {
        let deployment = json!({"id": "x-00000000", "status": "destroying", "delete_after": 9_000,
            "release": {"name": "demo-isp", "version": "1.0.0"},
            "waiting": {"reason": "the grace time is not over", "since": 0, "who": "dotmac deployments undelete"},
            "components": [{"name": "web", "ready": 1, "desired": 1, "restarts": 0, "pids": [42],
                "address": "127.0.0.1:8100"}]});
        let page = page(&deployment, 1_000);
        assert!(
            page.contains("status       destroying: the grace time is not over (for 1000 ms;"),
            "{page}"
        );
        let mut failed = deployment.clone();
        failed["waiting"]["reason"] = json!("its last lines:\nlicensed\nserving");
        let told = "its last lines:\n             licensed\n             serving\n";
        assert!(super::page(&failed, 1_000).contains(told));
        assert!(page.contains("removal      in 8000 ms"), "{page}");
        assert!(
            page.contains("web: 1/1 ready, 0 restarts, pid 42 127.0.0.1:8100"),
            "{page}"
        );
    }
}
