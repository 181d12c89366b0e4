//! Deployments: made, looked at, deleted, taken back. What may happen to one is decided by the State; here a request
//! becomes a command, and an entity becomes JSON.

use std::ops::Bound;

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    Accepted, Command, State,
    access::Permission,
    tenancy::{Deployment, Status},
};
use dotmac_protocol::ids::{DeploymentId, TenantId};

use super::{
    DEPLOYMENTS,
    answer::page_of,
    change::{Change, Entity},
    fields::Fields,
    problem::Problem,
    reading::{Named, Reading},
};

mod changes;
mod credentials;
mod logs;
mod operations;
mod order;
mod quantity;
mod shapes;
mod update;
mod view;

pub(super) use operations::operations;
pub(super) use order::word;
pub(super) use shapes::{choice, schemas};
pub(super) use view::{deployment as item, health};

async fn create(change: Change) -> Result<Response, Problem> {
    change.who.has(Permission::DeploymentCreate)?;
    let order = order::Order::read(change.fields()?, &change.state)?;
    order.check_right(&change.who, &change.state)?;
    let create = order.seal(&change.state, &change.node.entropy)?;
    let command = Command::CreateDeployment(Box::new(create));
    change
        .carry_out(command, StatusCode::CREATED, |state, accepted| {
            let Some(Accepted::Deployment { deployment: id, .. }) = accepted else {
                return None;
            };
            let location = Some(format!("{DEPLOYMENTS}/{id}"));
            shown(state, id).map(|entity| Entity { location, ..entity })
        })
        .await
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    let Reading {
        who, state, query, ..
    } = reading;
    let (id, _) = who.deployment(&state, &id)?;
    query.finish()?;
    let entity = shown(&state, &id).expect("it was found just now");
    Ok(entity.answer(StatusCode::OK))
}

async fn update(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (id, _) = change.who.deployment(&change.state, &id)?;
    let update = update::read(&id, change.fields()?)?;
    let command = Command::UpdateDeployment(Box::new(update));
    about(&change, &id, StatusCode::OK, command).await
}

async fn scale(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (deployment, _) = change.who.deployment(&change.state, &id)?;
    let (replicas, reason) = update::read_scale(change.fields()?)?;
    let id = deployment.clone();
    let command = Command::ScaleDeployment {
        deployment,
        replicas,
        reason,
    };
    about(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn suspend(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (deployment, _) = change.who.deployment(&change.state, &id)?;
    let reason = update::read_reason(change.fields_or_none()?)?;
    let id = deployment.clone();
    let command = Command::SuspendDeployment { deployment, reason };
    about(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn restart(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let command = |deployment| Command::RestartDeployment { deployment };
    plain(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn resume(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let command = |deployment| Command::ResumeDeployment { deployment };
    plain(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn rollback(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let command = |deployment| Command::RollbackDeployment { deployment };
    plain(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn delete(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let command = |deployment| Command::DeleteDeployment { deployment };
    plain(&change, &id, StatusCode::ACCEPTED, command).await
}

async fn undelete(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let command = |deployment| Command::UndeleteDeployment { deployment };
    plain(&change, &id, StatusCode::OK, command).await
}

/// A change that needs nothing besides the path.
async fn plain(
    change: &Change,
    id: &str,
    status: StatusCode,
    command: impl FnOnce(DeploymentId) -> Command,
) -> Result<Response, Problem> {
    let (id, _) = change.who.deployment(&change.state, id)?;
    change.expect_no_fields()?;
    about(change, &id, status, command(id.clone())).await
}

/// Carries a command out and answers with the deployment that it is about.
async fn about(
    change: &Change,
    id: &DeploymentId,
    status: StatusCode,
    command: Command,
) -> Result<Response, Problem> {
    change
        .carry_out(command, status, |state, _| shown(state, id))
        .await
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading.who.has(Permission::DeploymentRead)?;
    let (limit, after) = reading.page::<DeploymentId>();
    let Reading {
        who,
        state,
        mut query,
        ..
    } = reading;
    let filter = Filter::read(&mut query);
    query.finish()?;
    let actor = who.actor();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .deployments
        .range((from, Bound::Unbounded))
        .filter(|(_, one)| filter.takes(one))
        .filter(|(_, one)| state.may(&actor, Permission::DeploymentRead, Some(&one.tenant)))
        .map(|(id, one)| (id, view::shown(&state, id, one)));
    Ok(page_of(items, limit))
}

/// Which deployments a list shows.
struct Filter {
    status: Option<Status>,
    tenant: Option<TenantId>,
    has_destroyed: bool,
}

impl Filter {
    fn read(query: &mut Fields) -> Self {
        let status = query.text("status_filter").and_then(|text| {
            let status = Status::ALL
                .into_iter()
                .find(|status| status.as_str() == text);
            if status.is_none() {
                query.refuse(
                    "status_filter",
                    &text,
                    Status::ALL.map(Status::as_str).join(", "),
                );
            }
            status
        });
        let tenant = query.parsed("tenant_id", "the id of a tenant");
        let include = query.text("include");
        if let Some(other) = include.as_deref().filter(|text| *text != "destroyed") {
            query.refuse("include", other, "destroyed");
        }
        let has_destroyed = include.is_some() || status == Some(Status::Destroyed);
        Self {
            status,
            tenant,
            has_destroyed,
        }
    }

    fn takes(&self, one: &Deployment) -> bool {
        self.status.is_none_or(|status| one.status == status)
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| one.tenant == *tenant)
            && (self.has_destroyed || one.status != Status::Destroyed)
    }
}

/// The deployment as its reads and changes answer it.
fn shown(state: &State, id: &DeploymentId) -> Option<Entity> {
    let deployment = state.deployments.get(id)?;
    Some(Entity {
        body: view::deployment(state, id, deployment),
        revision: Some(deployment.revision),
        location: None,
    })
}
