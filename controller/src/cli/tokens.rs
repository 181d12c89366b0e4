//! `dotmac tokens`: access tokens. The token is made here, shown once or written to a file of its own; the controllers
//! only ever see its digest, and nobody can show it again.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, Subcommand};
use dotmac_runtime::disk;
use serde_json::{Value, json};

use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    output::clean,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};
use crate::access_token::AccessToken;

/// Where tokens live in the API.
const PATH: &str = "/api/v1/tokens";
/// Roles that a token may have.
const ROLES: [&str; 6] = [
    "platform_admin",
    "tenant_admin",
    "tenant_user",
    "reseller",
    "support",
    "auditor",
];

#[derive(Subcommand)]
pub(crate) enum Tokens {
    /// Make a token; it is shown once
    Create(Create),
    /// All tokens, without what is secret
    List(List),
    /// One token, without what is secret
    Show {
        /// Id of the token
        id: String,
    },
    /// Revoke a token: it counts nowhere any more within a second
    #[command(visible_alias = "revoke")]
    Delete {
        /// Id of the token
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args)]
pub(crate) struct Create {
    /// For people: who or what uses it
    #[arg(long)]
    name: String,
    /// What it may do
    #[arg(long, value_parser = ROLES)]
    role: String,
    /// The only tenant it may touch
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// How long it counts: 90d, 12h, 30m or 45s [default: until it is revoked]
    #[arg(long, value_name = "TIME")]
    ttl: Option<Ttl>,
    /// Write it to this new file, which only its owner can read, and show it nowhere
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct List {
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only those in this state: active, expired or revoked
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

/// A time as people write it: a number and d, h, m or s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ttl {
    millis: u64,
}

impl FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "a number and d, h, m or s is wanted, such as 90d";
        let digits = text.trim_end_matches(char::is_alphabetic);
        let unit_ms: u64 = match &text[digits.len()..] {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            _ => return Err(wanted.into()),
        };
        let count: u64 = digits.parse().map_err(|_| wanted)?;
        match count.checked_mul(unit_ms) {
            Some(millis) if millis > 0 => Ok(Self { millis }),
            _ => Err(wanted.into()),
        }
    }
}

impl Tokens {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(create) => create.run(context, &client).await,
            Self::List(list) => list.run(context, &client).await,
            Self::Show { id } => {
                let token = client.thing(&path_of(&id)).await?;
                print(context, &token)
            }
            Self::Delete { id, consent } => {
                let seen = Seen::read(&client, path_of(&id)).await?;
                let plan = Plan::delete(format!("revoke token {id}"), &id, seen);
                match plan.run(context, &client, consent).await? {
                    Outcome::Done(token) | Outcome::Same(token) => print(context, &token),
                    Outcome::Shown => Ok(()),
                }
            }
        }
    }
}

impl Create {
    async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        if let Some(out) = self.out.as_ref().filter(|out| out.exists()) {
            let out = out.display();
            return Err(Failure::Usage(format!(
                "{out} exists already: a token gets a new file"
            )));
        }
        let token = AccessToken::generate(&context.entropy);
        let mut body = json!({
            "id": token.id().as_str(), "secret_digest": token.digest().to_string(),
            "name": self.name, "role": self.role,
        });
        if let Some(tenant) = self.tenant {
            body["tenant_id"] = tenant.into();
        }
        if let Some(ttl) = self.ttl {
            body["ttl_ms"] = ttl.millis.into();
        }
        let plan = Plan::create(format!("create token {}", self.name), PATH, body);
        if let (Some(out), false) = (&self.out, self.consent.dry_run) {
            let made = write_and_make(context, client, &plan, (&token, out), self.consent).await?;
            return show_once(context, made, &token, Some(out));
        }
        match plan.run(context, client, self.consent).await? {
            Outcome::Done(made) | Outcome::Same(made) => show_once(context, made, &token, None),
            Outcome::Shown => Ok(()),
        }
    }
}

/// Makes a token that is written to a file. The file comes after the question and before the token: nothing is left of
/// a refusal, and no token is admitted that is then lost, counts, and belongs to nobody.
async fn write_and_make(
    context: &Context,
    client: &Client,
    plan: &Plan,
    (token, out): (&AccessToken, &Path),
    consent: Consent,
) -> Result<Value, Failure> {
    let key = client.key();
    let foreseen = plan.foresee(client, &key).await?;
    context.output.note(&format!("{}:", clean(&plan.title)));
    for change in foreseen.changes.iter().filter(|one| one.is_told()) {
        change.say();
    }
    consent.ask(None)?;
    disk::write_atomic(out, format!("{}\n", token.reveal()).as_bytes(), 0o600)
        .map_err(|cause| Failure::io("write", out, &cause))?;
    let failure = match plan.commit(client, &key).await {
        Ok(made) => return Ok(made),
        Err(failure) => failure,
    };
    if is_refusal(&failure) {
        let _ = std::fs::remove_file(out);
        return Err(failure);
    }
    let (file, id) = (out.display(), token.id().as_str());
    context.output.note(&format!(
        "{file} is kept, because the token may have been made: `dotmac tokens show {id}` tells; if it was not, the file \
         is worth nothing"
    ));
    Err(failure)
}

/// The token's only appearance.
fn show_once(
    context: &Context,
    mut made: Value,
    token: &AccessToken,
    out: Option<&Path>,
) -> Result<(), Failure> {
    match out {
        Some(out) => made["token_file"] = out.display().to_string().into(),
        None => made["token"] = token.reveal().into(),
    }
    if context.output.is_data() {
        return context.output.data(&made);
    }
    match out {
        Some(_) => print(context, &made),
        None => {
            let remark = "shown only now; whoever has it may do what its role allows:";
            context.output.note(remark);
            context.output.line(token.reveal())
        }
    }
}

/// Whether it is certain that nothing was made. Too many requests may follow a try whose answer was lost.
fn is_refusal(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(problem) => problem.status != 429,
        Failure::NotFound(_) | Failure::Usage(_) | Failure::Changed(_) => true,
        Failure::Failed(_)
        | Failure::Unreachable { .. }
        | Failure::TimedOut(_)
        | Failure::Ended(_) => false,
    }
}

impl List {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let header = [
            "id",
            "name",
            "role",
            "tenant",
            "status",
            "expires",
            "last used",
        ];
        let filters = [
            ("tenant_id", self.tenant.as_deref()),
            ("status", self.status.as_deref()),
        ];
        let empty = "no tokens: dotmac tokens create --name NAME --role ROLE";
        self.paging
            .show(context, client, (PATH, &filters), (&header, &row), empty)
            .await
    }
}

fn row(token: &Value) -> Vec<String> {
    let text = |name: &str| view::text(token, name);
    let time = |name: &str| match view::time(token, name) {
        none if none.is_empty() => "never".to_owned(),
        time => time,
    };
    vec![
        text("id"),
        text("name"),
        text("role"),
        text("tenant_id"),
        text("status"),
        time("expires_at"),
        time("last_used_at"),
    ]
}

fn print(context: &Context, token: &Value) -> Result<(), Failure> {
    if context.output.is_data() {
        return context.output.data(token);
    }
    let members = [
        ("id", "id"),
        ("name", "name"),
        ("role", "role"),
        ("tenant_id", "tenant"),
        ("status", "status"),
        ("created_at", "created"),
        ("expires_at", "expires"),
        ("last_used_at", "last used"),
        ("revoked_at", "revoked"),
        ("token_file", "file"),
    ];
    context.output.line(&view::page(token, &members))
}

/// Address of one token.
fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ttl, is_refusal, row};
    use crate::cli::failure::{Failure, Problem};

    #[test]
    fn a_file_is_taken_away_only_when_it_is_certain_that_it_is_worth_nothing() {
        let is = |status| {
            let problem = Problem {
                status,
                ..Problem::default()
            };
            is_refusal(&Failure::of(problem))
        };
        assert_eq!([401, 403, 404, 409, 422].map(is), [true; 5]);
        assert_eq!([429, 500, 503].map(is), [false; 3]);
    }

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let millis = |text: &str| text.parse::<Ttl>().map(|ttl| ttl.millis).ok();
        assert_eq!(
            [millis("90d"), millis("12h"), millis("30m"), millis("45s")],
            [
                Some(7_776_000_000),
                Some(43_200_000),
                Some(1_800_000),
                Some(45_000)
            ]
        );
        for wrong in [
            "",
            "5",
            "d",
            "0h",
            "-1d",
            "1y",
            "1.5h",
            "99999999999999999999d",
            "1é",
        ] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_that_never_ends_says_so() {
        let token = json!({"id": "0123456789abcdef", "name": "ci", "role": "auditor", "tenant_id": null,
            "status": "active", "expires_at": null, "last_used_at": null});
        assert_eq!(
            row(&token),
            [
                "0123456789abcdef",
                "ci",
                "auditor",
                "",
                "active",
                "never",
                "never"
            ]
        );
    }
}
