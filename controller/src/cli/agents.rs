//! `dotmac agents`: who runs instances, and single-use tokens for new ones. The token's secret is made here; the
//! controllers only ever see its digest.

use clap::Subcommand;
use dotmac_protocol::{frame::JoinToken, ids::RegionId};
use dotmac_runtime::entropy::Entropy;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{client::Client, failure::Failure, find::Context, view};

/// Agents shown at most.
const ITEMS_MAX: usize = 20_000;

#[derive(Subcommand)]
pub(crate) enum Agents {
    /// All agents
    List,
    /// Make a token with which one agent may join
    Token {
        /// The region that the agent is configured for
        #[arg(long)]
        region: RegionId,
        /// Minutes until it is worth nothing
        #[arg(long, default_value_t = 60, value_name = "MINUTES")]
        ttl: u64,
    },
}

#[derive(Deserialize)]
struct Made {
    trust_root: String,
    controllers: Vec<String>,
    expires_at: Value,
}

impl Agents {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        match self {
            Self::List => {
                let items = list(&client).await?;
                if output.is_json() {
                    return output.json(&json!({ "items": items }));
                }
                let now = context.clock.now().0;
                let rows = items.iter().map(|agent| row(agent, now)).collect();
                let header = [
                    "agent",
                    "region",
                    "status",
                    "for",
                    "controller",
                    "units",
                    "software",
                ];
                output.table(
                    &header,
                    rows,
                    "no agents: dotmac agents token --region REGION",
                )
            }
            Self::Token { region, ttl } => {
                let ttl_ms = ttl.saturating_mul(60_000);
                let (token, expires_at) =
                    make_token(&client, &context.entropy, region, ttl_ms).await?;
                if output.is_json() {
                    let (id, region) = (token.id.as_str(), token.region.as_str());
                    return output.json(&json!({
                        "id": id, "region": region, "expires_at": expires_at, "token": token.to_text(),
                    }));
                }
                output.note(&format!(
                    "for one agent in {}, within {ttl} minutes:",
                    token.region
                ));
                output.line(&token.to_text())
            }
        }
    }
}

/// All agents, as the API shows them.
pub(crate) async fn list(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list("/api/v1/agents", ITEMS_MAX).await
}

/// Makes a join token; also gives when it expires, as the API wrote it.
pub(crate) async fn make_token(
    client: &Client,
    entropy: &Entropy,
    region: RegionId,
    ttl_ms: u64,
) -> Result<(JoinToken, Value), Failure> {
    let secret = entropy.bytes::<32>();
    let id = entropy.hex(8);
    let body = json!({
        "id": id, "secret_digest": JoinToken::secret_digest(&secret).to_string(), "region": region.as_str(), "ttl_ms": ttl_ms,
    });
    let answer = client.post("/api/v1/agents/tokens", Some(&body)).await?;
    let made: Made = serde_json::from_value(answer).map_err(Failure::answer)?;
    let token = JoinToken {
        id: id.parse().map_err(Failure::answer)?,
        secret,
        region,
        trust_root: made.trust_root.parse().map_err(Failure::answer)?,
        controllers: made.controllers,
    };
    Ok((token, made.expires_at))
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
