//! `dotmac tenants`: the ISPs themselves, which keep their name and their history when deployments come and go.

mod events;
mod health;
mod instance_env;
mod show;
mod whose;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use self::{events::TenantEvents, health::TenantHealth, instance_env::InstanceEnv};
use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};

pub(crate) use self::whose::Whose;

/// Where tenants live in the API.
pub(crate) const PATH: &str = "/api/v1/tenants";

#[derive(Subcommand)]
pub(crate) enum Tenants {
    /// Make a tenant that has no deployment yet
    Create(Create),
    /// All tenants
    List(List),
    /// One tenant, and of each of its deployments the licence, what it uses and how its instance is
    Show(Whose),
    /// Change its name or who sold it
    Update(Update),
    /// Remove a tenant that has no deployment any more
    Delete {
        /// Id of the tenant
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// What a tenant's instance is started with, its secrets too; the audit keeps who asked
    InstanceEnv(InstanceEnv),
    /// What happened in a tenant's instance, as it told
    Events(TenantEvents),
    /// How a tenant's instance is: what the probes found, and what it claims
    Health(TenantHealth),
}

#[derive(Args)]
pub(crate) struct Create {
    /// Name of the ISP as people write it
    #[arg(long, visible_alias = "tenant-name")]
    name: String,
    /// Who sold it
    #[arg(long, value_name = "ID")]
    reseller_id: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct List {
    /// Only those of this reseller
    #[arg(long, value_name = "ID")]
    reseller_id: Option<String>,
    /// Only those in this state
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Args)]
pub(crate) struct Update {
    /// Id of the tenant
    id: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Fields {
    /// Name of the ISP as people write it
    #[arg(long, visible_alias = "tenant-name")]
    name: Option<String>,
    /// Who sold it
    #[arg(long, value_name = "ID")]
    reseller_id: Option<String>,
}

impl Tenants {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(create) => {
                let body = body(Some(create.name.as_str()), create.reseller_id.as_deref());
                let plan = Plan::create(format!("create tenant {}", create.name), PATH, body);
                change(context, &client, plan, create.consent).await
            }
            Self::List(list) => list.run(context, &client).await,
            Self::Show(whose) => {
                let found = whose.find(&client).await?;
                show::run(context, &client, found).await
            }
            Self::Update(update) => {
                let Update {
                    id,
                    fields,
                    consent,
                } = update;
                let seen = Seen::read(&client, path_of(&id)).await?;
                let title = format!("update tenant {id}");
                let plan = Plan::change(title, Method::PATCH, path_of(&id), seen);
                let body = body(fields.name.as_deref(), fields.reseller_id.as_deref());
                change(context, &client, plan.with_body(body), consent).await
            }
            Self::Delete { id, consent } => {
                let seen = Seen::read(&client, path_of(&id)).await?;
                let plan = Plan::delete(format!("delete tenant {id}"), &id, seen);
                change(context, &client, plan, consent).await
            }
            Self::InstanceEnv(question) => question.run(context).await,
            Self::Events(question) => question.run(context).await,
            Self::Health(question) => question.run(context).await,
        }
    }
}

impl List {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let now = context.clock.now().0;
        let filters = [
            ("reseller_id", self.reseller_id.as_deref()),
            ("status_filter", self.status.as_deref()),
        ];
        let header = ["id", "name", "status", "deployments", "reseller", "age"];
        let row = |tenant: &Value| {
            let text = |name: &str| view::text(tenant, name);
            let deployments = view::items(tenant, "deployments").len().to_string();
            let age = view::age(tenant, "created_at", now);
            let (id, name, status) = (text("id"), text("tenant_name"), text("status"));
            vec![id, name, status, deployments, text("reseller_id"), age]
        };
        let empty = "no tenants: dotmac deployments create --name NAME makes one";
        self.paging
            .show(context, client, (PATH, &filters), (&header, &row), empty)
            .await
    }
}

async fn change(
    context: &Context,
    client: &Client,
    plan: Plan,
    consent: Consent,
) -> Result<(), Failure> {
    match plan.run(context, client, consent).await? {
        Outcome::Done(tenant) | Outcome::Same(tenant) => print(context, &tenant),
        Outcome::Shown => Ok(()),
    }
}

fn print(context: &Context, tenant: &Value) -> Result<(), Failure> {
    if context.output.is_data() {
        return context.output.data(tenant);
    }
    let ids = view::items(tenant, "deployments").iter();
    let ids = ids.filter_map(Value::as_str);
    let deployments = ids.map(|id| format!("\n{:<12} {id}", "deployment"));
    context
        .output
        .line(&(page(tenant) + &deployments.collect::<String>()))
}

fn page(tenant: &Value) -> String {
    let members = [
        ("id", "id"),
        ("tenant_name", "name"),
        ("status", "status"),
        ("reseller_id", "reseller"),
        ("created_at", "created"),
        ("last_updated", "changed"),
    ];
    view::page(tenant, &members)
}

fn body(name: Option<&str>, reseller: Option<&str>) -> Value {
    let members = [("tenant_name", name), ("reseller_id", reseller)];
    let given = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    Value::Object(given.collect::<Map<_, _>>())
}

/// Address of one tenant.
fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}
