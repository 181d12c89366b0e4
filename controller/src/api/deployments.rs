//! Deployments: made, looked at, deleted, taken back. What may happen to one is decided by the State; here a request
//! becomes a command, and an entity becomes JSON.

use std::{ops::Bound, sync::Arc};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use dotmac_domain::{
    Accepted, Command, State,
    access::Permission,
    tenancy::{Deployment, Status},
};
use dotmac_protocol::ids::{DeploymentId, TenantId};

use super::{
    DEPLOYMENTS,
    answer::{answer, created, page_of},
    change::Change,
    fields::Fields,
    problem::{Problem, TIMED_OUT},
    reading::{Named, Reading},
};
use crate::node::Node;

mod credentials;
mod logs;
mod order;
mod quantity;
mod view;

/// All states of a deployment.
const STATUSES: [Status; 10] = [
    Status::Pending,
    Status::Provisioning,
    Status::Active,
    Status::Degraded,
    Status::Upgrading,
    Status::RollingBack,
    Status::Suspended,
    Status::Failed,
    Status::Destroying,
    Status::Destroyed,
];

/// The paths.
pub(super) fn routes() -> Router<Arc<Node>> {
    let one = format!("{DEPLOYMENTS}/{{id}}");
    Router::new()
        .route(DEPLOYMENTS, get(list).post(create))
        .route(&one, get(show).delete(delete))
        .route(&format!("{one}/undelete"), post(undelete))
        .route(&format!("{one}/logs"), get(logs::logs))
}

async fn create(change: Change) -> Result<Response, Problem> {
    change.who.has(Permission::DeploymentCreate)?;
    let order = order::Order::read(change.fields()?, &change.state)?;
    order.check_right(&change.who, &change.state)?;
    let command = order.seal(&change.state, &change.node.entropy)?;
    let accepted = change
        .ask(Command::CreateDeployment(Box::new(command)))
        .await?;
    let Accepted::Deployment { deployment: id, .. } = accepted else {
        return Err(late("the deployment"));
    };
    let mut response = after(&change, &id, StatusCode::CREATED).await?;
    let at = created(&format!("{DEPLOYMENTS}/{id}"), serde_json::Value::Null);
    if let Some(location) = at.headers().get(header::LOCATION) {
        response
            .headers_mut()
            .insert(header::LOCATION, location.clone());
    }
    Ok(response)
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    let Reading {
        who, state, query, ..
    } = reading;
    let (id, deployment) = who.deployment(&state, &id)?;
    query.finish()?;
    Ok(entity(StatusCode::OK, &state, &id, deployment))
}

async fn delete(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (id, deployment) = change.who.deployment(&change.state, &id)?;
    change.expect_no_fields()?;
    change.expect_version(&version(deployment))?;
    change
        .ask(Command::DeleteDeployment {
            deployment: id.clone(),
        })
        .await?;
    after(&change, &id, StatusCode::ACCEPTED).await
}

async fn undelete(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let (id, deployment) = change.who.deployment(&change.state, &id)?;
    change.expect_no_fields()?;
    change.expect_version(&version(deployment))?;
    change
        .ask(Command::UndeleteDeployment {
            deployment: id.clone(),
        })
        .await?;
    after(&change, &id, StatusCode::OK).await
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading.who.has(Permission::DeploymentRead)?;
    let (limit, cursor) = reading.page();
    let Reading {
        who,
        state,
        mut query,
        ..
    } = reading;
    let filter = Filter::read(&mut query);
    let after = cursor.and_then(|text| {
        let after = text.parse::<DeploymentId>().ok();
        if after.is_none() {
            query.refuse("cursor", &text, "the next_cursor of a page");
        }
        after
    });
    query.finish()?;
    let actor = who.actor();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .deployments
        .range((from, Bound::Unbounded))
        .filter(|(_, one)| filter.takes(one))
        .filter(|(_, one)| state.may(&actor, Permission::DeploymentRead, Some(&one.tenant)))
        .map(|(id, one)| (id.to_string(), view::deployment(&state, id, one)));
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
            let status = STATUSES.into_iter().find(|status| status.as_str() == text);
            if status.is_none() {
                query.refuse(
                    "status_filter",
                    &text,
                    STATUSES.map(Status::as_str).join(", "),
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

/// The deployment as it is after a change.
async fn after(
    change: &Change,
    id: &DeploymentId,
    status: StatusCode,
) -> Result<Response, Problem> {
    let state = change.state_after().await;
    let deployment = state.deployments.get(id).ok_or_else(|| late(id.as_str()))?;
    Ok(entity(status, &state, id, deployment))
}

fn late(id: &str) -> Problem {
    Problem::new(
        &TIMED_OUT,
        format!("the change of {id} is accepted and not seen here yet"),
    )
}

fn entity(
    status: StatusCode,
    state: &State,
    id: &DeploymentId,
    deployment: &Deployment,
) -> Response {
    let mut response = answer(status, view::deployment(state, id, deployment));
    let version = HeaderValue::try_from(version(deployment)).expect("digits are a header value");
    response.headers_mut().insert(header::ETAG, version);
    response
}

/// The entity tag: changes whenever the deployment does.
fn version(deployment: &Deployment) -> String {
    format!("\"{}-{}\"", deployment.generation, deployment.updated_at.0)
}
