//! `dotmac regions`: where workloads may run. A region is never removed, only closed to new deployments.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};

/// Where regions live in the API.
pub(crate) const PATH: &str = "/api/v1/regions";

#[derive(Subcommand)]
pub(crate) enum Regions {
    /// Open a region
    Create {
        /// Its name, such as do-fra1
        id: String,
        /// For people
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// All regions
    List(Paging),
    /// One region
    Show {
        /// Name of the region
        id: String,
    },
    /// Change its description, or whether new deployments may go there
    Update {
        /// Name of the region
        id: String,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Fields {
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Whether new deployments may go there (true or false)
    #[arg(long, value_name = "BOOL")]
    accepts_deployments: Option<bool>,
}

impl Regions {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create {
                id,
                description,
                consent,
            } => {
                let mut body = json!({"id": id});
                if let Some(description) = description {
                    body["description"] = description.into();
                }
                let plan = Plan::create(format!("create region {id}"), PATH, body);
                change(context, &client, plan, consent).await
            }
            Self::List(paging) => list(context, &client, paging).await,
            Self::Show { id } => {
                let region = client.thing(&path_of(&id)).await?;
                print(context, &region)
            }
            Self::Update {
                id,
                fields,
                consent,
            } => {
                let seen = Seen::read(&client, path_of(&id)).await?;
                let title = format!("update region {id}");
                let plan = Plan::change(title, Method::PATCH, path_of(&id), seen);
                change(context, &client, plan.with_body(fields.body()), consent).await
            }
        }
    }
}

impl Fields {
    fn body(&self) -> Value {
        let description = self.description.as_deref().map(Value::from);
        let accepts = self.accepts_deployments.map(Value::from);
        let members = [
            ("description", description),
            ("accepts_deployments", accepts),
        ];
        let given = members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

async fn list(context: &Context, client: &Client, paging: Paging) -> Result<(), Failure> {
    let header = ["region", "agents", "deployments", "open", "description"];
    let empty = "no regions: dotmac regions create NAME";
    paging
        .show(context, client, (PATH, &[]), (&header, &row), empty)
        .await
}

fn row(region: &Value) -> Vec<String> {
    let text = |name: &str| view::text(region, name);
    let open = match (
        region["accepts_deployments"].as_bool(),
        region["default"].as_bool(),
    ) {
        (Some(false), _) => "no",
        (_, Some(true)) => "yes, default",
        _ => "yes",
    };
    let (id, deployments) = (text("id"), text("deployments"));
    vec![
        id,
        agents(region),
        deployments,
        open.to_owned(),
        text("description"),
    ]
}

/// How many of its agents are connected.
fn agents(region: &Value) -> String {
    let count = |name: &str| view::text(&region["agents"], name);
    format!("{}/{}", count("connected"), count("total"))
}

async fn change(
    context: &Context,
    client: &Client,
    plan: Plan,
    consent: Consent,
) -> Result<(), Failure> {
    match plan.run(context, client, consent).await? {
        Outcome::Done(region) | Outcome::Same(region) => print(context, &region),
        Outcome::Shown => Ok(()),
    }
}

fn print(context: &Context, region: &Value) -> Result<(), Failure> {
    if context.output.is_data() {
        return context.output.data(region);
    }
    let members = [
        ("id", "region"),
        ("description", "description"),
        ("default", "default"),
        ("accepts_deployments", "open"),
        ("deployments", "deployments"),
    ];
    context.output.line(&view::page(region, &members))?;
    context
        .output
        .line(&format!("{:<12} {} connected", "agents", agents(region)))
}

/// Address of one region.
fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::row;

    #[test]
    fn a_row_says_whether_new_deployments_may_go_there() {
        let mut region = json!({"id": "do-fra1", "description": "Frankfurt", "default": true,
            "accepts_deployments": true, "agents": {"connected": 1, "total": 2}, "deployments": 3});
        assert_eq!(
            row(&region),
            ["do-fra1", "1/2", "3", "yes, default", "Frankfurt"]
        );
        region["accepts_deployments"] = false.into();
        assert_eq!(row(&region)[3], "no");
    }
}
