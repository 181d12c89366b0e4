//! `dotmac agents`: who runs instances, and single-use tokens for new ones. The token's secret is made here; the
//! controllers only ever see its digest.

mod join_tokens;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::join_tokens::{Token, Tokens};
use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};

pub(crate) use self::join_tokens::make_token;

/// Where agents live in the API.
const PATH: &str = "/api/v1/agents";
/// Agents shown at most.
const ITEMS_MAX: usize = 20_000;

#[derive(Subcommand)]
pub(crate) enum Agents {
    /// All agents
    List(List),
    /// One agent
    Show {
        /// Id of the agent
        id: String,
    },
    /// Shut an agent out for good; only one that keeps nothing any more
    Delete {
        /// Id of the agent
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make a token with which one agent may join
    Token(Token),
    /// The tokens with which agents may join: list, delete
    #[command(subcommand)]
    Tokens(Tokens),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only those of this region
    #[arg(long)]
    region: Option<String>,
    /// Only those in this state: connected, disconnected, unknown or revoked
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

impl Agents {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::List(list) => list.run(context, &client).await,
            Self::Show { id } => {
                let agent = client.thing(&path_of(&id)).await?;
                print(context, &agent)
            }
            Self::Delete { id, consent } => {
                let seen = Seen::read(&client, path_of(&id)).await?;
                let plan = Plan::delete(format!("shut out agent {id}"), &id, seen);
                match plan.run(context, &client, consent).await? {
                    Outcome::Done(agent) | Outcome::Same(agent) => print(context, &agent),
                    Outcome::Shown => Ok(()),
                }
            }
            Self::Token(token) => token.run(context, &client).await,
            Self::Tokens(tokens) => tokens.run(context, &client).await,
        }
    }
}

impl List {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let now = context.clock.now().0;
        let header = [
            "agent",
            "region",
            "status",
            "for",
            "controller",
            "units",
            "software",
        ];
        let filters = [
            ("region", self.region.as_deref()),
            ("status", self.status.as_deref()),
        ];
        let empty = "no agents: dotmac agents token --region REGION";
        let row = |agent: &Value| row(agent, now);
        self.paging
            .show(context, client, (PATH, &filters), (&header, &row), empty)
            .await
    }
}

/// All agents, as the API shows them.
pub(crate) async fn list(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list(PATH, ITEMS_MAX).await
}

fn row(agent: &Value, now_ms: u64) -> Vec<String> {
    let since = view::age(agent, "since", now_ms);
    let text = |name: &str| view::text(agent, name);
    vec![
        text("id"),
        text("region"),
        text("status"),
        since,
        text("node"),
        text("units"),
        text("software"),
    ]
}

fn print(context: &Context, agent: &Value) -> Result<(), Failure> {
    if context.output.is_data() {
        return context.output.data(agent);
    }
    let members = [
        ("id", "agent"),
        ("region", "region"),
        ("status", "status"),
        ("node", "controller"),
        ("units", "units"),
        ("software", "software"),
        ("incarnation", "incarnation"),
        ("enrolled_at", "enrolled"),
        ("revoked_at", "shut out"),
    ];
    context.output.line(&view::page(agent, &members))?;
    for unit in view::items(agent, "quarantined") {
        let text = |name: &str| view::text(unit, name);
        let known = match text("deployment") {
            none if none.is_empty() => "unknown to the restored backup".to_owned(),
            _ => "newer than the restored backup".to_owned(),
        };
        context.output.line(&format!(
            "{:<12} {} generation {} ({}), {known}: it is kept as it is",
            "quarantined",
            text("unit"),
            text("generation"),
            text("health")
        ))?;
    }
    let until = view::time(agent, "certificate_not_after");
    context
        .output
        .line(&format!("{:<12} until {until}", "certificate"))
}

/// Address of one agent.
fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::row;

    #[test]
    fn an_agent_that_is_not_connected_has_no_controller() {
        let agent = json!({"id": "do-fra1-1", "region": "do-fra1", "status": "disconnected", "since": 1_000,
            "node": null, "units": 2});
        assert_eq!(
            row(&agent, 4_000),
            [
                "do-fra1-1",
                "do-fra1",
                "disconnected",
                "3000 ms",
                "",
                "2",
                ""
            ]
        );
    }
}
