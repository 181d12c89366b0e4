//! `dotmac audit`: who did what, as one story, and the proof that nobody changed it afterwards.

mod chain;
pub(crate) mod stream;
mod verify;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    view,
};

/// Where the audit lives in the API.
pub(crate) const PATH: &str = "/api/v1/audit";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    /// Only the story of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// The newest records to show
    #[arg(long, default_value_t = 200)]
    limit: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prove every chain of every controller, and of the agents of the local fleet; name the first bad record
    Verify,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Some(Command::Verify) => verify::run(context).await,
            None => {
                let records = records(&context.client()?, self.tenant.as_deref()).await?;
                let newest = &records[records.len().saturating_sub(self.limit)..];
                if context.output.is_names() {
                    let items: Vec<Value> = newest.iter().map(name).collect();
                    return context.output.data(&json!({ "items": items }));
                }
                if context.output.is_data() {
                    return context.output.data(&json!({ "items": newest }));
                }
                let header = ["at", "actor", "action", "tenant", "request", "detail"];
                context.output.table(
                    &header,
                    newest.iter().map(row).collect(),
                    "nothing happened yet",
                )
            }
        }
    }
}

/// Records shown at most.
const ITEMS_MAX: usize = 100_000;

/// The story so far, oldest first.
pub(crate) async fn records(client: &Client, tenant: Option<&str>) -> Result<Vec<Value>, Failure> {
    let path = match tenant {
        Some(tenant) => format!("{PATH}?tenant={}&limit=500", encode(tenant)),
        None => format!("{PATH}?limit=500"),
    };
    let mut records = client.list_after(&path, "after", ITEMS_MAX).await?;
    records.sort_by_key(|record| view::millis(&record["at"]));
    Ok(records)
}

/// A record's name: which chain it is in, and its place there.
fn name(record: &Value) -> Value {
    let text = |name: &str| view::text(record, name);
    format!("{}#{}", text("stream"), text("sequence")).into()
}

fn row(record: &Value) -> Vec<String> {
    let text = |name: &str| view::text(record, name);
    let request = text("request").chars().take(12).collect();
    vec![
        view::time(record, "at"),
        text("actor"),
        text("action"),
        text("tenant"),
        request,
        text("detail"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::row;

    #[test]
    fn a_record_shows_who_did_what_because_of_which_request() {
        let record = json!({"at": 0, "actor": "admin", "action": "deployment.created", "tenant": "x-00000000",
            "request": "0123456789abcdef0123456789abcdef", "detail": "small"});
        let cells = "admin|deployment.created|x-00000000|0123456789ab|small";
        assert_eq!(row(&record)[1..].join("|"), cells);
        let told = json!({"detail": "it ended; its last lines:\ndemo-isp: licensed for Alpha ISP\ndemo-isp: serving"});
        let cell =
            "it ended; its last lines: | demo-isp: licensed for Alpha ISP | demo-isp: serving";
        assert_eq!(row(&told)[5], cell);
    }
}
