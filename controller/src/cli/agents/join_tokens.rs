//! Single-use tokens with which agents join. The secret is made here and shown once; the controllers only ever see its
//! digest.

use clap::{Args, Subcommand};
use dotmac_protocol::{frame::JoinToken, ids::RegionId};
use dotmac_runtime::entropy::Entropy;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};

/// Where join tokens live in the API.
const PATH: &str = "/api/v1/agents/tokens";

#[derive(Args)]
pub(crate) struct Token {
    /// The region that the agent is configured for
    #[arg(long)]
    region: RegionId,
    /// Minutes until it is worth nothing
    #[arg(long, default_value_t = 60, value_name = "MINUTES")]
    ttl: u64,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Subcommand)]
pub(crate) enum Tokens {
    /// All tokens, with who used them
    List(List),
    /// Take one back that nobody has used
    Delete {
        /// Id of the token
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args)]
pub(crate) struct List {
    /// Only those in this state: waiting, used, expired or revoked
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

/// A token that is not admitted yet.
struct Order {
    id: String,
    secret: [u8; 32],
    region: RegionId,
    body: Value,
}

#[derive(Deserialize)]
struct Made {
    trust_root: String,
    controllers: Vec<String>,
    expires_at: Value,
}

impl Token {
    pub(super) async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        let Self {
            region,
            ttl,
            consent,
        } = self;
        let order = Order::new(&context.entropy, region, ttl.saturating_mul(60_000));
        let title = format!("admit one agent in {} within {ttl} minutes", order.region);
        let plan = Plan::create(title, PATH, order.body.clone());
        let (Outcome::Done(answer) | Outcome::Same(answer)) =
            plan.run(context, client, consent).await?
        else {
            return Ok(());
        };
        let (token, expires_at) = order.admitted(answer)?;
        if context.output.is_data() {
            return context.output.data(&json!({
                "id": token.id.as_str(), "region": token.region.as_str(), "expires_at": expires_at,
                "token": token.to_text(),
            }));
        }
        context.output.line(&token.to_text())
    }
}

impl Tokens {
    pub(super) async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        match self {
            Self::List(List { status, paging }) => {
                let header = ["id", "region", "status", "expires", "agent"];
                let filters = [("status", status.as_deref())];
                let empty = "no join tokens: dotmac agents token --region REGION";
                paging
                    .show(context, client, (PATH, &filters), (&header, &row), empty)
                    .await
            }
            Self::Delete { id, consent } => {
                let path = format!("{PATH}/{}", encode(&id));
                let seen = Seen::read(client, path).await?;
                let plan = Plan::delete(format!("take join token {id} back"), &id, seen);
                match plan.run(context, client, consent).await? {
                    Outcome::Shown => Ok(()),
                    Outcome::Done(token) | Outcome::Same(token) if context.output.is_data() => {
                        context.output.data(&token)
                    }
                    Outcome::Done(_) | Outcome::Same(_) => context
                        .output
                        .line(&format!("join token {id} is worth nothing any more")),
                }
            }
        }
    }
}

fn row(token: &Value) -> Vec<String> {
    let text = |name: &str| view::text(token, name);
    let expires = view::time(token, "expires_at");
    vec![
        text("id"),
        text("region"),
        text("status"),
        expires,
        text("used_by"),
    ]
}

/// Makes a join token; also gives when it expires, as the API wrote it.
pub(crate) async fn make_token(
    client: &Client,
    entropy: &Entropy,
    region: RegionId,
    ttl_ms: u64,
) -> Result<(JoinToken, Value), Failure> {
    let order = Order::new(entropy, region, ttl_ms);
    let answer = client.post(PATH, Some(&order.body)).await?;
    order.admitted(answer)
}

impl Order {
    fn new(entropy: &Entropy, region: RegionId, ttl_ms: u64) -> Self {
        let (id, secret) = (entropy.hex(8), entropy.bytes::<32>());
        let digest = JoinToken::secret_digest(&secret).to_string();
        let body = json!({
            "id": id, "secret_digest": digest, "region": region.as_str(), "ttl_ms": ttl_ms,
        });
        Self {
            id,
            secret,
            region,
            body,
        }
    }

    /// The token, now that it is admitted.
    fn admitted(self, answer: Value) -> Result<(JoinToken, Value), Failure> {
        let made: Made = serde_json::from_value(answer).map_err(Failure::answer)?;
        let token = JoinToken {
            id: self.id.parse().map_err(Failure::answer)?,
            secret: self.secret,
            region: self.region,
            trust_root: made.trust_root.parse().map_err(Failure::answer)?,
            controllers: made.controllers,
        };
        Ok((token, made.expires_at))
    }
}
