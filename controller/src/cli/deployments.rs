//! `dotmac deployments`: ISPs' instances. A change is asked for once; `--wait` then shows what it waits for, since
//! when and who can change it, until it is done.

mod create;
mod show;
mod wait;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use self::{
    create::Create,
    wait::{Goal, wait_for},
};
use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    view,
};

/// Where deployments live in the API.
pub(crate) const PATH: &str = "/api/v1/tenant-orchestration/deployments";
/// Deployments shown at most.
const ITEMS_MAX: usize = 20_000;

#[derive(Subcommand)]
pub(crate) enum Deployments {
    /// Deploy an ISP
    Create(Box<Create>),
    /// All deployments
    List {
        /// Only those in this state; `destroyed` shows the removed ones
        #[arg(long)]
        status: Option<String>,
        /// Only those of this tenant
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
    },
    /// One deployment, the way of its order, and what it waits for
    Show {
        /// Deployment or tenant
        id: String,
    },
    /// Remove a deployment after its grace time
    Delete(Named),
    /// Take a deletion back within the grace time
    Undelete(Named),
}

#[derive(Args)]
pub(crate) struct Named {
    /// Deployment or tenant
    id: String,
    #[command(flatten)]
    patience: Patience,
}

/// Whether and how long to wait for the end of it.
#[derive(Args, Clone, Copy)]
pub(crate) struct Patience {
    /// Wait until it is done, and show why it is not
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

impl Deployments {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Create(create) => {
                let patience = create.patience;
                let created = client.post(PATH, Some(&create.body()?)).await?;
                finish(context, &client, created, patience, Goal::Active).await
            }
            Self::List { status, tenant } => list(context, &client, status, tenant).await,
            Self::Show { id } => {
                let deployment = fetch(&client, &id).await?;
                show::print(context, &deployment)
            }
            Self::Delete(named) => {
                let path = path_of(&named.id);
                let deleted = client.change(Method::DELETE, &path, None).await?;
                let deployment = whole(&client, deleted, &named.id).await?;
                finish(
                    context,
                    &client,
                    deployment,
                    named.patience,
                    Goal::Destroyed,
                )
                .await
            }
            Self::Undelete(named) => {
                let path = format!("{}/undelete", path_of(&named.id));
                let kept = client.change(Method::POST, &path, None).await?;
                let deployment = whole(&client, kept, &named.id).await?;
                finish(context, &client, deployment, named.patience, Goal::Active).await
            }
        }
    }
}

/// One deployment as the API shows it.
pub(crate) async fn fetch(client: &Client, id: &str) -> Result<Value, Failure> {
    client.get(&path_of(id)).await
}

/// Deployments as the API shows them, without destroyed ones.
pub(crate) async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list(PATH, ITEMS_MAX).await
}

/// Address of one deployment.
pub(crate) fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}

async fn list(
    context: &Context,
    client: &Client,
    status: Option<String>,
    tenant: Option<String>,
) -> Result<(), Failure> {
    let mut path = PATH.to_owned();
    for (name, value) in [("status_filter", status), ("tenant_id", tenant)] {
        if let Some(value) = value {
            let separator = if path.contains('?') { '&' } else { '?' };
            path.push_str(&format!("{separator}{name}={}", encode(&value)));
        }
    }
    let items = client.list(&path, ITEMS_MAX).await?;
    if context.output.is_json() {
        return context.output.json(&json!({ "items": items }));
    }
    let now = context.clock.now().0;
    let header = [
        "id", "name", "region", "status", "health", "pods", "tier", "domain", "age",
    ];
    let rows = items
        .iter()
        .map(|deployment| row(deployment, now))
        .collect();
    context.output.table(
        &header,
        rows,
        "no deployments: dotmac deployments create --name NAME --wait",
    )
}

fn row(deployment: &Value, now_ms: u64) -> Vec<String> {
    let text = |name: &str| view::text(deployment, name);
    let pods = format!("{}/{}", text("ready_pods"), text("pod_count"));
    let name = text("deployment_name");
    let age = view::age(deployment, "created_at", now_ms);
    let (status, health) = (text("status"), text("health_status"));
    vec![
        text("id"),
        name,
        text("region"),
        status,
        health,
        pods,
        text("resource_tier"),
        text("domain_name"),
        age,
    ]
}

/// Some changes answer with the deployment, others with a part of it or nothing.
async fn whole(client: &Client, answer: Value, id: &str) -> Result<Value, Failure> {
    if answer["status"].is_string() && answer["id"].is_string() {
        return Ok(answer);
    }
    fetch(client, id).await
}

/// Shows the deployment, after waiting for the goal if that was asked for.
async fn finish(
    context: &Context,
    client: &Client,
    deployment: Value,
    patience: Patience,
    goal: Goal,
) -> Result<(), Failure> {
    if !patience.wait {
        show::print(context, &deployment)?;
        if !context.output.is_json() && goal == Goal::Active {
            let id = view::text(&deployment, "id");
            context
                .output
                .note(&format!("next: dotmac deployments show {id}"));
        }
        return Ok(());
    }
    let id = view::text(&deployment, "id");
    let deployment = wait_for(context, client, &id, goal, patience.timeout).await?;
    show::print(context, &deployment)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{path_of, row};

    #[test]
    fn a_row_shows_state_health_and_pods() {
        let deployment = json!({"id": "demo-isp-0190a1b2", "deployment_name": "Demo ISP", "region": "do-fra1",
            "status": "active", "health_status": "healthy", "ready_pods": 1, "pod_count": 1,
            "resource_tier": "small", "domain_name": null, "created_at": 1_000});
        let row = row(&deployment, 3_500).join("|");
        assert_eq!(
            row,
            "demo-isp-0190a1b2|Demo ISP|do-fra1|active|healthy|1/1|small||2500 ms"
        );
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_the_address() {
        assert!(path_of("../releases").ends_with("/deployments/..%2Freleases"));
    }
}
