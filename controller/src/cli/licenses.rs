//! `dotmac licenses`: what each deployment's instance may do and until when, and an operator's orders against it. What
//! the values may be is decided by the API alone.

mod fields;
mod page;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, encode},
    deployments::{self, Goal, Patience, wait_for},
    failure::Failure,
    find::Context,
    list::Paging,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};

use fields::{Fields, in_words_of_the_option};
pub(crate) use page::{short, usage, used};

/// Where licences live in the API.
pub(crate) const PATH: &str = "/api/v1/licenses";

#[derive(Subcommand)]
pub(crate) enum Licenses {
    /// All licences
    List(List),
    /// One licence, and how much of it is used
    Show {
        /// Deployment or tenant
        id: String,
    },
    /// Change what it grants and until when; its instance goes on running
    Update(Update),
    /// Stop its instance until the licence is reinstated; the data stays
    Suspend(Withdrawal),
    /// End it: its instance is stopped, its data stays
    Revoke(Withdrawal),
    /// Make a suspended or revoked licence count again
    Reinstate(Named),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only those in this phase
    #[arg(long, value_parser = ["valid", "grace", "restricted", "suspended", "revoked"])]
    status: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Args)]
pub(crate) struct Named {
    /// Deployment or tenant
    id: String,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct Withdrawal {
    #[command(flatten)]
    named: Named,
    /// Why, for the audit and for whoever asks
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
#[command(after_help = "At least one of the fields has to be given; the others stay as they are.")]
pub(crate) struct Update {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    fields: Fields,
}

impl Licenses {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let at = At {
            context,
            client: &client,
        };
        match self {
            Self::List(list) => list.run(context, &client).await,
            Self::Show { id } => page::print(context, &client.thing(&path_of(&id)).await?),
            Self::Update(Update { named, fields }) => {
                let (id, seen) = (&named.id, named.seen(&client).await?);
                let path = seen.path.clone();
                let (body, end) = (fields.body(), fields.end());
                let title = format!("change the license of {id}{end}");
                let plan = Plan::change(title, Method::PATCH, path, seen);
                let changed = at.change(&plan.with_body(body), &named, known).await;
                changed.map_err(in_words_of_the_option)
            }
            Self::Suspend(Withdrawal { named, reason }) => {
                let plan = named.order(&client, "suspend").await?;
                let plan = plan.with_body(json!({ "reason": reason }));
                at.change(&plan, &named, |_, _| Goal::Suspended).await
            }
            Self::Revoke(Withdrawal { named, reason }) => {
                let plan = Plan {
                    typed: Some(named.id.clone()),
                    ..named.order(&client, "revoke").await?
                };
                let plan = plan.with_body(json!({ "reason": reason }));
                at.change(&plan, &named, |_, _| Goal::Suspended).await
            }
            Self::Reinstate(named) => {
                let plan = named.order(&client, "reinstate").await?;
                at.change(&plan, &named, started).await
            }
        }
    }
}

impl Named {
    async fn seen(&self, client: &Client) -> Result<Seen, Failure> {
        Seen::read(client, path_of(&self.id)).await
    }

    /// `POST …/{id}/{verb}`.
    async fn order(&self, client: &Client, verb: &str) -> Result<Plan, Failure> {
        let seen = self.seen(client).await?;
        let path = format!("{}/{verb}", path_of(&self.id));
        let title = format!("{verb} the license of {}", self.id);
        Ok(Plan::change(title, Method::POST, path, seen))
    }
}

/// Where a licence is changed, and where it is told.
struct At<'a> {
    context: &'a Context,
    client: &'a Client,
}

impl At<'_> {
    /// Makes a change and shows the licence, after waiting for the goal if that was asked for.
    async fn change(
        &self,
        plan: &Plan,
        named: &Named,
        goal: fn(&Value, &Value) -> Goal,
    ) -> Result<(), Failure> {
        let Self { context, client } = self;
        let (Outcome::Done(license) | Outcome::Same(license)) =
            plan.run(context, client, named.consent).await?
        else {
            return Ok(());
        };
        if !named.patience.wait {
            return page::print(context, &license);
        }
        let id = view::text(&license, "id");
        let deployment = deployments::fetch(client, &id).await?;
        let goal = goal(&license, &deployment);
        wait_for(context, client, &id, &goal, named.patience.timeout).await?;
        page::print(context, &client.thing(&path_of(&id)).await?)
    }
}

/// Its agent, and with it the instance, has the licence as it was answered.
fn known(license: &Value, _: &Value) -> Goal {
    Goal::Known(license["revision"].as_u64().unwrap_or_default())
}

/// What the licence had stopped runs; what stood still by another order goes on standing still.
fn started(license: &Value, deployment: &Value) -> Goal {
    let stays =
        deployment["status"] == "suspended" && deployment["revision"] == license["revision"];
    match stays {
        true => known(license, deployment),
        false => Goal::Active,
    }
}

impl List {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let filters = [
            ("status", self.status.as_deref()),
            ("tenant_id", self.tenant.as_deref()),
        ];
        let header = [
            "id",
            "status",
            "tier",
            "used",
            "subscribers",
            "expires",
            "reason",
            "tenant",
        ];
        let empty =
            "no licenses: dotmac deployments create --name NAME makes one with its deployment";
        self.paging
            .show(context, client, (PATH, &filters), (&header, &row), empty)
            .await
    }
}

fn row(license: &Value) -> Vec<String> {
    let text = |name: &str| view::text(license, name);
    let used = match text("limit_used_percent") {
        unknown if unknown.is_empty() => String::new(),
        percent => format!("{percent} %"),
    };
    let expires = match view::time(license, "expires_at") {
        none if none.is_empty() => "never".to_owned(),
        time => time,
    };
    vec![
        text("id"),
        text("status"),
        text("license_tier"),
        used,
        page::limit(license),
        expires,
        text("reason"),
        text("tenant_name"),
    ]
}

/// Address of one licence.
fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::{Goal, Licenses, path_of, row, started};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        licenses: Licenses,
    }

    fn parse(line: &str) -> Option<Licenses> {
        let words = ["licenses"].into_iter().chain(line.split(' '));
        Some(Line::try_parse_from(words).ok()?.licenses)
    }

    #[test]
    fn a_change_of_nothing_and_an_order_without_a_reason_are_wrong_usage() {
        for line in [
            "update demo",
            "suspend demo",
            "revoke demo",
            "list --status late",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_reinstated_license_starts_what_it_had_stopped_and_nothing_else() {
        let license = json!({"revision": 4});
        let is = |status: &str, revision: u64| {
            started(&license, &json!({"status": status, "revision": revision}))
        };
        assert_eq!(is("provisioning", 4), Goal::Active);
        assert_eq!(is("suspended", 4), Goal::Known(4));
        assert_eq!(is("suspended", 3), Goal::Active, "seen before the change");
    }

    #[test]
    fn a_row_shows_phase_and_use() {
        let license = json!({"id": "demo", "status": "valid", "license_tier": "basic", "max_subscribers": 1000,
            "limit_used_percent": 85, "expires_at": null, "reason": null, "tenant_name": "Demo ISP"});
        assert_eq!(
            row(&license).join("|"),
            "demo|valid|basic|85 %|1000|never||Demo ISP"
        );
        let restricted = json!({"max_subscribers": 2000, "effective_max_subscribers": 951});
        assert_eq!(row(&restricted)[4], "951 of 2000 (restricted)");
        assert!(path_of("../tokens").ends_with("/licenses/..%2Ftokens"));
    }
}
