//! `dotmac tenants events`: what happened in a tenant's instance, as it told, newest first. It is the instance's word;
//! what the platform did is in the audit.

use clap::Args;
use serde_json::Value;

use super::Whose;
use crate::cli::{
    failure::Failure,
    find::Context,
    list::{Newest, Paging},
    view,
};

#[derive(Args)]
pub(crate) struct TenantEvents {
    #[command(flatten)]
    whose: Whose,
    /// Only those of this type, such as subscriber.created
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    #[command(flatten)]
    newest: Newest,
}

impl TenantEvents {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let found = self.whose.find(&client).await?;
        let path = found.path("events");
        let filters = [
            ("environment", found.environment.as_deref()),
            ("event_type", self.event_type.as_deref()),
        ];
        let header = ["received", "occurred", "type", "event", "payload"];
        Paging::from(self.newest)
            .show(
                context,
                &client,
                (&path, &filters),
                (&header, &row),
                &empty(self.event_type.as_deref()),
            )
            .await
    }
}

/// What is said when there are none.
fn empty(event_type: Option<&str>) -> String {
    match event_type {
        Some(one) => format!("no events of type {one}"),
        None => "no events: its instance told none".to_owned(),
    }
}

fn row(event: &Value) -> Vec<String> {
    let payload = match &event["payload"] {
        Value::Null => "too large to keep".to_owned(),
        _ => view::text(event, "payload"),
    };
    vec![
        view::time(event, "received_at"),
        view::time(event, "occurred_at"),
        view::text(event, "event_type"),
        view::text(event, "event_id"),
        payload,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{empty, row};

    #[test]
    fn no_events_of_a_type_are_not_none_at_all() {
        assert_eq!(empty(Some("olt.alarm")), "no events of type olt.alarm");
        assert_eq!(empty(None), "no events: its instance told none");
    }

    #[test]
    fn a_row_shows_type_id_and_payload() {
        let event = json!({"received_at": "now", "occurred_at": "then", "event_type": "payment.received",
            "event_id": "e-1", "payload": {"amount": 5}});
        assert_eq!(
            row(&event).join("|"),
            "now|then|payment.received|e-1|{\"amount\":5}"
        );
        assert_eq!(row(&json!({"payload": null}))[4], "too large to keep");
    }
}
