//! `dotmac usage ID`: what a tenant's instance uses, by its own count: now against its licence, the highest of each
//! month, and each count as it came.

use clap::Args;
use serde_json::{Map, Value};

use super::{
    failure::Failure,
    find::Context,
    licenses,
    list::{Newest, Paging},
    tenants::Whose,
    view,
};

#[derive(Args)]
pub(crate) struct Usage {
    #[command(flatten)]
    whose: Whose,
    /// Only the counts of the instance itself, or of its plugins
    #[arg(long, value_parser = ["instance", "plugin"])]
    kind: Option<String>,
    #[command(flatten)]
    newest: Newest,
}

impl Usage {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let found = self.whose.find(&client).await?;
        let filters = [
            ("environment", found.environment.as_deref()),
            ("kind", self.kind.as_deref()),
        ];
        let listed = Paging::from(self.newest)
            .read(&client, &found.path("usage"), &filters)
            .await?;
        let output = context.output;
        if output.is_data() {
            return output.data(&listed.data());
        }
        output.line(&summary(&listed.beside, context.clock.now().0))?;
        if listed.items.is_empty() {
            return Ok(());
        }
        let header = [
            "received", "counted", "active", "total", "new", "sessions", "data MB", "plugin",
            "uses",
        ];
        output.table(&header, listed.items.iter().map(row).collect(), "")?;
        if listed.next.is_some() {
            output.note("older counts: --limit N or --all shows them");
        }
        Ok(())
    }
}

fn summary(beside: &Map<String, Value>, now_ms: u64) -> String {
    let beside = Value::Object(beside.clone());
    let members = [("deployment", "deployment"), ("environment", "environment")];
    let mut lines = vec![view::page(&beside, &members)];
    let current = &beside["current"];
    let text = |name: &str| view::text(current, name);
    if current.is_object() {
        let used = licenses::used(current);
        let ago = view::age(current, "received_at", now_ms);
        lines.push(format!("current      {used}, told {ago} ago"));
        lines.push(format!("sessions     {}", text("active_sessions")));
    } else {
        lines.push("current      nothing was counted yet".to_owned());
    }
    for peak in view::items(&beside, "peaks") {
        let (month, most) = (
            view::text(peak, "month"),
            view::text(peak, "active_subscribers"),
        );
        lines.push(format!("peak         {month}: {most} subscribers"));
    }
    let counts = view::text(&beside["counts"], "count");
    lines.push(format!("counts       {counts}, all by the instance itself"));
    let ignored = beside["ignored"].as_u64().unwrap_or_default();
    if ignored > 0 {
        lines.push(format!(
            "ignored      {ignored} reports that exceeded their bounds"
        ));
    }
    lines.join("\n")
}

fn row(item: &Value) -> Vec<String> {
    let (usage, plugin) = (&item["usage"], &item["plugin"]);
    let text = |name: &str| view::text(usage, name);
    let counted = match plugin.is_object() {
        true => view::time(plugin, "timestamp"),
        false => view::time(usage, "reported_at"),
    };
    let name = [
        view::text(plugin, "plugin_id"),
        view::text(plugin, "metric_name"),
    ];
    vec![
        view::time(item, "received_at"),
        counted,
        text("active_subscribers"),
        text("total_subscribers"),
        text("new_subscribers_today"),
        text("active_sessions"),
        text("total_data_usage_mb"),
        name.join(" ").trim().to_owned(),
        view::text(plugin, "usage_count"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{row, summary};

    fn told(beside: &Value) -> String {
        summary(beside.as_object().unwrap(), 5_000)
    }

    #[test]
    fn what_is_used_is_shown_against_the_license_and_by_month() {
        let beside = json!({"deployment": "demo", "environment": "production",
            "current": {"active_subscribers": 850, "max_subscribers": 1000, "limit_used_percent": 85,
                "received_at": 2_000, "active_sessions": 7},
            "peaks": [{"month": "2026-02", "active_subscribers": 900}], "counts": {"count": 12}, "ignored": 2});
        let expected = "deployment   demo\nenvironment  production\n\
            current      850 of 1000 subscribers (85 %), told 3000 ms ago\nsessions     7\n\
            peak         2026-02: 900 subscribers\ncounts       12, all by the instance itself\n\
            ignored      2 reports that exceeded their bounds";
        assert_eq!(told(&beside), expected);
        let none = told(&json!({"deployment": "demo", "current": null, "counts": {"count": 0}}));
        assert!(none.contains("nothing was counted yet"), "{none}");
    }

    #[test]
    fn a_plugins_count_names_plugin_and_metric() {
        let item = json!({"usage": null, "plugin": {"plugin_id": "sms", "metric_name": "api_calls", "usage_count": 3,
            "timestamp": "soon"}, "received_at": "now"});
        assert_eq!(row(&item).join("|"), "now|soon||||||sms api_calls|3");
    }
}
