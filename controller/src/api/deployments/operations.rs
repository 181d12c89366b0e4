//! What can be asked of deployments: paths, rights, parameters, bodies and answers.

use axum::http::{Method, StatusCode};
use dotmac_domain::{access::Permission, tenancy::Status};

use super::{changes, create, delete, list, logs, show, undelete};
use crate::api::{
    DEPLOYMENTS,
    operation::{Operation, Scope},
    problem::{
        AGENT_DISCONNECTED, ALREADY_EXISTS, DOMAIN_IN_USE, NO_AGENT, NOT_FOUND, UNKNOWN_RELEASE,
        WRONG_STATE,
    },
    schema,
};

/// The permission to read.
const READ: &[Permission] = &[Permission::DeploymentRead];
/// The permission to delete, and to take that back.
const DELETE: &[Permission] = &[Permission::DeploymentDelete];

/// Where an answer has the id of its deployment's tenant.
const TENANT: &[(&str, &str)] = &[("id", "$response.body#/tenant_id")];
/// Where an answer has the id of its deployment.
pub(super) const ID: &[(&str, &str)] = &[("id", "$response.body#/id")];

/// What can be asked.
pub(in crate::api) fn operations() -> Vec<Operation> {
    vec![
        list_them(),
        create_one(),
        one(Operation::read("deployments.show", path(""), show))
            .says(
                "Show a deployment",
                "With what it waits for, since when, and who can change that.",
            )
            .needs(READ, Scope::Tenant)
            .answers(StatusCode::OK, "The deployment", schema::of("Deployment"))
            .with("ETag", "its version, for If-Match"),
        changed(Operation::change(
            Method::DELETE,
            "deployments.delete",
            path(""),
            delete,
        ))
        .says(
            "Delete a deployment",
            "It is `destroying` for the grace time, and can be undeleted meanwhile.",
        )
        .needs(DELETE, Scope::Tenant)
        .answers(
            StatusCode::ACCEPTED,
            "It will be destroyed",
            schema::of("Deployment"),
        )
        .with("ETag", "its version, for If-Match")
        .link("deployments.undelete", ID),
        changed(Operation::change(
            Method::POST,
            "deployments.undelete",
            path("/undelete"),
            undelete,
        ))
        .says("Take a deletion back", "Within the grace time.")
        .needs(DELETE, Scope::Tenant)
        .answers(StatusCode::OK, "It stays", schema::of("Deployment"))
        .with("ETag", "its version, for If-Match"),
        read_logs(),
    ]
    .into_iter()
    .chain(changes::operations())
    .collect()
}

fn list_them() -> Operation {
    let statuses = schema::one_of(&Status::ALL.map(Status::as_str));
    let include = schema::one_of(&["destroyed"]);
    Operation::read("deployments.list", DEPLOYMENTS, list)
        .says("List deployments", "Those the caller may see, by id.")
        .needs(READ, Scope::Filtered)
        .query("status_filter", statuses, "only those in this state")
        .query(
            "tenant_id",
            schema::tenant_id(),
            "only those of this tenant",
        )
        .query("include", include, "destroyed ones, too")
        .paged(schema::deployment_id())
        .answers(
            StatusCode::OK,
            "One page",
            schema::page_of(schema::of("Deployment")),
        )
}

fn create_one() -> Operation {
    let about = "Makes a tenant and its first deployment; with `tenant_id`, a further environment of that tenant.";
    Operation::change(Method::POST, "deployments.create", DEPLOYMENTS, create)
        .says("Create a deployment", about)
        .needs(&[Permission::DeploymentCreate], Scope::Tenant)
        .body(schema::of("DeploymentCreate"))
        .example(super::shapes::example())
        .problems(&[
            &ALREADY_EXISTS,
            &DOMAIN_IN_USE,
            &NO_AGENT,
            &NOT_FOUND,
            &UNKNOWN_RELEASE,
            &WRONG_STATE,
        ])
        .answers(
            StatusCode::CREATED,
            "It will be there",
            schema::of("Deployment"),
        )
        .with("ETag", "its version, for If-Match")
        .with("Location", "where the deployment is")
        .link("deployments.show", ID)
        .link("deployments.update", ID)
        .link("deployments.scale", ID)
        .link("deployments.suspend", ID)
        .link("deployments.resume", ID)
        .link("deployments.delete", ID)
        .link("licenses.show", ID)
        .link("licenses.update", ID)
        .link("licenses.suspend", ID)
        .link("licenses.revoke", ID)
        .link("tenants.usage", TENANT)
        .link("tenants.events", TENANT)
        .link("tenants.health", TENANT)
}

fn read_logs() -> Operation {
    let about = "A live question to its agent. Each line holds one piece, sealed to `seal_to`.";
    let component = schema::part_name();
    let key = schema::pattern("^[0-9a-fA-F]{64}$");
    one(Operation::read(
        "deployments.logs",
        path("/logs"),
        logs::logs,
    ))
    .says("Read an instance's output", about)
    .needs(&[Permission::DeploymentLogs], Scope::Tenant)
    .noted("deployment.logs-read")
    .required(
        "seal_to",
        key,
        "an X25519 public key of the asker, hexadecimal",
    )
    .query(
        "lines",
        schema::whole(0, 10_000),
        "lines of the past; 100 if not given",
    )
    .query("follow", schema::flag(), "and those that follow")
    .query("component", component, "of this component only")
    .problems(&[&WRONG_STATE, &AGENT_DISCONNECTED])
    .answers_as(
        StatusCode::OK,
        "Sealed pieces, one a line",
        "application/x-ndjson",
        schema::any_text(),
    )
    .answers_empty(
        StatusCode::TEMPORARY_REDIRECT,
        "Another controller has the agent's session",
    )
    .with("Location", "where to ask")
}

pub(super) fn path(rest: &str) -> String {
    format!("{DEPLOYMENTS}/{{id}}{rest}")
}

/// Something that is asked of one deployment.
pub(super) fn one(operation: Operation) -> Operation {
    operation.named("id", schema::deployment_id(), "the deployment's id")
}

/// A change of one deployment of which the path says everything.
pub(super) fn changed(operation: Operation) -> Operation {
    one(operation)
        .versioned()
        .optional_body(schema::nothing())
        .problems(&[&WRONG_STATE])
}
