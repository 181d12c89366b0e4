//! `dotmac deployments`: ISPs' instances. A change is shown before it is made; `--wait` then shows what it waits for,
//! since when and who can change it, until it is done.

mod change;
mod create;
mod export;
mod show;
mod wait;
mod watch;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::{
    change::{Named, Reasoned, Scale, Update},
    create::Create,
    export::Export,
    watch::Watch,
};
use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    logs::Logs,
    plan::{Consent, Outcome, Plan},
    view,
};

pub(crate) use self::wait::{Goal, wait_for};

/// Where deployments live in the API.
pub(crate) const PATH: &str = "/api/v1/tenant-orchestration/deployments";
/// Deployments shown at most.
const ITEMS_MAX: usize = 20_000;

#[derive(Subcommand)]
pub(crate) enum Deployments {
    /// Deploy an ISP
    Create(Box<Create>),
    /// All deployments
    List(List),
    /// One deployment, the way of its order, and what it waits for
    Show {
        /// Deployment or tenant
        id: String,
    },
    /// Change tier, licence, release, domain, features or the bounds of its copies
    Update(Update),
    /// Change how many copies run
    Scale(Scale),
    /// Replace its processes, one copy at a time
    Restart(Named),
    /// Stop it and keep its data
    Suspend(Reasoned),
    /// Start a suspended one again
    Resume(Named),
    /// Bring the last confirmed version back
    Rollback(Named),
    /// Remove a deployment after its grace time
    Delete(Named),
    /// Take a deletion back within the grace time
    Undelete(Named),
    /// Rows that follow what happens, or wait for a state
    Watch(Watch),
    /// Deployments as a file for `dotmac apply`
    Export(Export),
    /// What its instance writes
    Logs(Logs),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only those in this state; `destroyed` shows the removed ones
    #[arg(long)]
    status: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Those that were removed in the last 30 days, too
    #[arg(long)]
    destroyed: bool,
    #[command(flatten)]
    paging: Paging,
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
        if let Self::Logs(logs) = self {
            return logs.run(context).await;
        }
        let client = context.client()?;
        let at = At {
            context,
            client: &client,
        };
        match self {
            Self::Create(create) => {
                let title = format!("create {}", create.title());
                let plan = Plan::create(title, PATH, create.body()?);
                at.change(&plan, create.patience, create.consent, Goal::Active)
                    .await
            }
            Self::List(list) => list.run(context, &client).await,
            Self::Show { id } => show::print(context, &fetch(&client, &id).await?),
            Self::Update(update) => {
                let plan = update.plan(&client).await?;
                at.named(&plan, &update.named, Goal::Active).await
            }
            Self::Scale(scale) => {
                let plan = scale.plan(&client).await?;
                at.named(&plan, &scale.reasoned.named, Goal::Active).await
            }
            Self::Restart(named) => {
                let plan = named.plan(&client, "restart").await?;
                let goal = Goal::Replaced(wait::processes(plan.before()));
                at.named(&plan, &named, goal).await
            }
            Self::Suspend(reasoned) => {
                let plan = reasoned.plan(&client, "suspend").await?;
                at.named(&plan, &reasoned.named, Goal::Suspended).await
            }
            Self::Resume(named) => {
                let plan = named.plan(&client, "resume").await?;
                at.named(&plan, &named, Goal::Active).await
            }
            Self::Rollback(named) => {
                let plan = named.plan(&client, "rollback").await?;
                at.named(&plan, &named, Goal::Active).await
            }
            Self::Delete(named) => {
                let plan = named.deletion(&client).await?;
                at.named(&plan, &named, Goal::Destroyed).await
            }
            Self::Undelete(named) => {
                let plan = named.plan(&client, "undelete").await?;
                at.named(&plan, &named, Goal::Kept).await
            }
            Self::Export(export) => export.run(context, &client).await,
            Self::Watch(watch) => watch.run(context, &client).await,
            Self::Logs(_) => Ok(()),
        }
    }
}

/// Where a change is made, and where it is told.
struct At<'a> {
    context: &'a Context,
    client: &'a Client,
}

impl At<'_> {
    async fn named(&self, plan: &Plan, named: &Named, goal: Goal) -> Result<(), Failure> {
        self.change(plan, named.patience, named.consent, goal).await
    }

    /// Makes a change and shows the deployment, after waiting for the goal if that was asked for.
    async fn change(
        &self,
        plan: &Plan,
        patience: Patience,
        consent: Consent,
        goal: Goal,
    ) -> Result<(), Failure> {
        let Self { context, client } = self;
        let (Outcome::Done(deployment) | Outcome::Same(deployment)) =
            plan.run(context, client, consent).await?
        else {
            return Ok(());
        };
        let id = view::text(&deployment, "id");
        if patience.wait {
            let deployment = wait_for(context, client, &id, &goal, patience.timeout).await?;
            return show::print(context, &deployment);
        }
        show::print(context, &deployment)?;
        if !context.output.is_data() && goal != Goal::Destroyed {
            let next = format!("next: dotmac deployments show {id}");
            context.output.note(&next);
        }
        Ok(())
    }
}

impl List {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let now = context.clock.now().0;
        let filters = [
            ("status_filter", self.status.as_deref()),
            ("tenant_id", self.tenant.as_deref()),
            ("include", self.destroyed.then_some("destroyed")),
        ];
        let header = [
            "id", "status", "region", "tenant", "health", "pods", "tier", "domain", "age", "name",
        ];
        let empty = "no deployments: dotmac deployments create --name NAME --wait";
        self.paging
            .show(
                context,
                client,
                (PATH, &filters),
                (&header, &|one| row(one, now)),
                empty,
            )
            .await
    }
}

/// One deployment as the API shows it.
pub(crate) async fn fetch(client: &Client, id: &str) -> Result<Value, Failure> {
    client.thing(&path_of(id)).await
}

/// Deployments as the API shows them, without destroyed ones.
pub(crate) async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list(PATH, ITEMS_MAX).await
}

/// Address of one deployment.
pub(crate) fn path_of(id: &str) -> String {
    format!("{PATH}/{}", encode(id))
}

fn row(deployment: &Value, now_ms: u64) -> Vec<String> {
    let text = |name: &str| view::text(deployment, name);
    let pods = format!("{}/{}", text("ready_pods"), text("pod_count"));
    let name = text("deployment_name");
    let age = view::age(deployment, "created_at", now_ms);
    let (status, health) = (text("status"), text("health_status"));
    vec![
        text("id"),
        status,
        text("region"),
        text("tenant_id"),
        health,
        pods,
        text("resource_tier"),
        text("domain_name"),
        age,
        name,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{path_of, row};

    #[test]
    fn a_row_shows_state_health_and_pods() {
        let deployment = json!({"id": "demo-isp-0190a1b2", "deployment_name": "Demo ISP", "region": "do-fra1",
            "status": "active", "health_status": "healthy", "ready_pods": 1, "pod_count": 1,
            "resource_tier": "small", "domain_name": null, "created_at": 1_000, "tenant_id": "demo-0190a1b2"});
        let row = row(&deployment, 3_500).join("|");
        assert_eq!(
            row,
            "demo-isp-0190a1b2|active|do-fra1|demo-0190a1b2|healthy|1/1|small||2500 ms|Demo ISP"
        );
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_the_address() {
        assert!(path_of("../releases").ends_with("/deployments/..%2Freleases"));
    }
}
