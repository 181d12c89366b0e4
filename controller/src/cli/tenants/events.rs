//! `dotmac tenants events`: what happened in a tenant's instance, as it told, newest first. It is the instance's word;
//! what the platform did is in the audit.

use clap::Args;
use serde_json::Value;

use crate::cli::{
    client::encode,
    failure::Failure,
    find::Context,
    list::{Newest, Paging},
    view,
};

#[derive(Args)]
pub(crate) struct TenantEvents {
    /// The tenant's id
    id: String,
    /// Which of its deployments; its only one, or production, if not given
    #[arg(long, value_parser = ["development", "staging", "production"])]
    environment: Option<String>,
    /// Only those of this type, such as subscriber.created
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    #[command(flatten)]
    newest: Newest,
}

impl TenantEvents {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let path = format!("{}/{}/events", super::PATH, encode(&self.id));
        let filters = [
            ("environment", self.environment.as_deref()),
            ("event_type", self.event_type.as_deref()),
        ];
        let header = ["received", "occurred", "type", "event", "payload"];
        Paging::from(self.newest)
            .show(
                context,
                &client,
                (&path, &filters),
                (&header, &row),
                "no events: its instance told none",
            )
            .await
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

    use super::row;

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
