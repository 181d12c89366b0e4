//! `dotmac whoami`: whose token is used, and what it may do.

use clap::Args;
use serde_json::Value;

use super::{client::Client, failure::Failure, find::Context, output::clean, view};

/// Where the API tells it.
const PATH: &str = "/api/v1/whoami";

/// Who the caller is.
///
/// # Errors
/// When the API does not say.
pub(crate) async fn who(client: &Client) -> Result<Value, Failure> {
    let who: Value = client.get(PATH).await?;
    match who["token"].is_string() {
        true => Ok(who),
        false => Err(Failure::foreign(PATH, "it names no token")),
    }
}

/// Whose token is used, what it may do, and until when.
#[derive(Args)]
pub(crate) struct WhoAmI {}

impl WhoAmI {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let who = who(&context.client()?).await?;
        if context.output.is_data() {
            return context.output.data(&who);
        }
        let members = [
            ("name", "name"),
            ("token", "token"),
            ("role", "role"),
            ("tenant_id", "tenant"),
            ("expires_at", "expires"),
        ];
        context.output.line(&view::page(&who, &members))?;
        let permissions = view::items(&who, "permissions")
            .iter()
            .filter_map(Value::as_str);
        let permissions: Vec<&str> = permissions.collect();
        context
            .output
            .line(&format!("{:<12} {}", "may", clean(&permissions.join(", "))))
    }
}
