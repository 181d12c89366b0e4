//! What can be asked of a deployment while it lives: paths, rights, bodies and answers.

use axum::{
    handler::Handler,
    http::{Method, StatusCode},
};
use dotmac_domain::access::Permission;
use std::sync::Arc;

use super::{
    operations::{ID, changed, one, path},
    restart, resume, rollback, scale, suspend, update,
};
use crate::{
    api::{
        operation::{Operation, Scope},
        problem::{DOMAIN_IN_USE, UNKNOWN_RELEASE, WRONG_STATE},
        schema,
    },
    node::Node,
};

/// The permission to change.
const UPDATE: &[Permission] = &[Permission::DeploymentUpdate];

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let no_body = || schema::nothing();
    vec![
        update_one(),
        ordered("deployments.scale", "/scale", scale)
            .says(
                "Scale a deployment",
                "Between its min_replicas and its max_replicas; only the copies that come or go are touched.",
            )
            .needs(&[Permission::DeploymentScale], Scope::Tenant)
            .body(schema::of("DeploymentScale"))
            .example(serde_json::json!({"replicas": 2, "reason": "more customers"})),
        ordered("deployments.restart", "/restart", restart)
            .says(
                "Restart a deployment",
                "One copy at a time, the next one when the one before is ready.",
            )
            .needs(&[Permission::DeploymentRestart], Scope::Tenant)
            .optional_body(no_body()),
        ordered("deployments.suspend", "/suspend", suspend)
            .link("deployments.resume", ID)
            .says(
                "Suspend a deployment",
                "Its processes are stopped and stay stopped; its data stays.",
            )
            .needs(UPDATE, Scope::Tenant)
            .optional_body(schema::of("DeploymentSuspend")),
        ordered("deployments.resume", "/resume", resume)
            .says("Resume a deployment", "Starts a suspended one again.")
            .needs(UPDATE, Scope::Tenant)
            .optional_body(no_body()),
        ordered("deployments.rollback", "/rollback", rollback)
            .says(
                "Roll a deployment back",
                "Brings back release, resource tier and features of the last version that was healthy.",
            )
            .needs(UPDATE, Scope::Tenant)
            .optional_body(no_body()),
    ]
}

fn update_one() -> Operation {
    let about = "Members that are absent stay as they are. A new release or resource tier is an upgrade: its copies \
                 are replaced one by one, and a rollback brings the version before back.";
    one(Operation::change(
        Method::PATCH,
        "deployments.update",
        path(""),
        update,
    ))
    .versioned()
    .says("Update a deployment", about)
    .needs(UPDATE, Scope::Tenant)
    .body(schema::of("DeploymentUpdate"))
    .example(serde_json::json!({"resource_tier": "medium", "max_replicas": 4}))
    .problems(&[&WRONG_STATE, &DOMAIN_IN_USE, &UNKNOWN_RELEASE])
    .answers(
        StatusCode::OK,
        "The deployment as it will be",
        schema::of("Deployment"),
    )
    .with("ETag", "its version, for If-Match")
}

/// A change that its agent carries out after the answer.
fn ordered<H, T>(id: &'static str, rest: &str, handler: H) -> Operation
where
    H: Handler<T, Arc<Node>>,
    T: 'static,
{
    changed(Operation::change(Method::POST, id, path(rest), handler))
        .answers(
            StatusCode::ACCEPTED,
            "It is ordered; `waiting` says what for",
            schema::of("Deployment"),
        )
        .with("ETag", "its version, for If-Match")
}
