//! What can be asked of licences: paths, rights, bodies and answers.

use std::sync::Arc;

use axum::{
    handler::Handler,
    http::{Method, StatusCode},
};
use dotmac_domain::access::Permission;
use dotmac_protocol::license::Phase;
use serde_json::json;

use super::{list, reinstate, revoke, show, suspend, update};
use crate::{
    api::{
        operation::{Operation, Scope},
        problem::WRONG_STATE,
        schema,
    },
    node::Node,
};

/// Where licences are.
const LICENSES: &str = "/api/v1/licenses";
/// Where an answer has the id of its deployment.
const ID: &[(&str, &str)] = &[("id", "$response.body#/id")];
/// The permission to read.
const READ: &[Permission] = &[Permission::LicenseRead];
/// The permission to change.
const UPDATE: &[Permission] = &[Permission::LicenseUpdate];

/// What can be asked.
pub(in crate::api) fn operations() -> Vec<Operation> {
    vec![
        list_them(),
        one(Operation::read("licenses.show", path(""), show))
            .says(
                "Show a license",
                "What a deployment's instance may do, until when, and how much of it it uses.",
            )
            .needs(READ, Scope::Tenant)
            .answers(StatusCode::OK, "The license", schema::of("License"))
            .with("ETag", "its version, for If-Match"),
        update_one(),
        ordered("licenses.suspend", "/suspend", suspend)
            .says(
                "Suspend a license",
                "Its instance is stopped and told so, until the license is reinstated; its data stays.",
            )
            .body(schema::of("LicenseOrder"))
            .example(json!({"reason": "three invoices unpaid"}))
            .link("licenses.reinstate", ID),
        ordered("licenses.revoke", "/revoke", revoke)
            .says(
                "Revoke a license",
                "Its instance is stopped and told so; its data stays. It can be reinstated.",
            )
            .body(schema::of("LicenseOrder"))
            .example(json!({"reason": "the contract has ended"}))
            .link("licenses.reinstate", ID),
        ordered("licenses.reinstate", "/reinstate", reinstate)
            .says(
                "Reinstate a license",
                "A suspended or revoked one counts again. What that had stopped is started.",
            )
            .optional_body(schema::nothing()),
    ]
}

fn list_them() -> Operation {
    let phases = schema::one_of(&Phase::ALL.map(Phase::as_str));
    Operation::read("licenses.list", LICENSES, list)
        .says(
            "List licenses",
            "Those the caller may see, by the id of their deployment.",
        )
        .needs(READ, Scope::Filtered)
        .query("status", phases, "only those in this phase")
        .query(
            "tenant_id",
            schema::tenant_id(),
            "only those of this tenant",
        )
        .paged(schema::deployment_id())
        .answers(
            StatusCode::OK,
            "One page",
            schema::page_of(schema::of("License")),
        )
}

fn update_one() -> Operation {
    let about = "Members that are absent stay as they are. The instance is told and not restarted.";
    changed(Operation::change(
        Method::PATCH,
        "licenses.update",
        path(""),
        update,
    ))
    .says("Change a license", about)
    .body(schema::of("LicenseUpdate"))
    .example(json!({"max_subscribers": 5000, "expires_at": "2030-01-01T00:00:00Z"}))
    .answers(
        StatusCode::OK,
        "The license as it will be",
        schema::of("License"),
    )
    .with("ETag", "its version, for If-Match")
}

fn path(rest: &str) -> String {
    format!("{LICENSES}/{{id}}{rest}")
}

fn one(operation: Operation) -> Operation {
    operation.named("id", schema::deployment_id(), "the deployment's id")
}

fn changed(operation: Operation) -> Operation {
    one(operation)
        .versioned()
        .needs(UPDATE, Scope::Tenant)
        .problems(&[&WRONG_STATE])
}

/// A change that its agent carries out after the answer.
fn ordered<H, T>(id: &'static str, rest: &str, handler: H) -> Operation
where
    H: Handler<T, Arc<Node>>,
    T: 'static,
{
    changed(Operation::change(Method::POST, id, path(rest), handler))
        .answers(StatusCode::ACCEPTED, "It is ordered", schema::of("License"))
        .with("ETag", "its version, for If-Match")
}
