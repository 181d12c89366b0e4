//! Whether this controller lives and can serve; asked without a token, so that it tells nothing else.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{answer::answer, operation::Operation, schema};
use crate::node::Node;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let readiness = || schema::of("Readiness");
    vec![
        Operation::look("health.live", "/health/live", live)
            .public()
            .says(
                "Whether it lives",
                "Answers as long as the process serves at all.",
            )
            .answers(StatusCode::OK, "It lives", schema::of("Liveness")),
        Operation::look("health.ready", "/health/ready", ready)
            .public()
            .says(
                "Whether it can serve",
                "Ready is a controller that knows a leader and how the cluster began, and is not about to stop.",
            )
            .answers(StatusCode::OK, "It can serve", readiness())
            .answers(
                StatusCode::SERVICE_UNAVAILABLE,
                "It cannot serve yet",
                readiness(),
            )
            .with("Retry-After", "seconds until it is worth another look"),
    ]
}

/// What its answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let liveness = schema::object(
        &[
            ("status", schema::one_of(&["alive"])),
            ("service", schema::one_of(&["controller"])),
            ("version", schema::any_text()),
        ],
        &[],
    );
    let readiness = schema::object(
        &[
            ("status", schema::one_of(&["ready", "not ready"])),
            ("reason", schema::text_or_null()),
            ("node", schema::count()),
        ],
        &[],
    );
    vec![("Liveness", liveness), ("Readiness", readiness)]
}

async fn live() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    answer(
        StatusCode::OK,
        json!({"status": "alive", "service": "controller", "version": version}),
    )
}

/// Ready is whoever knows a leader and how the cluster began, and is not about to stop.
async fn ready(State(node): State<Arc<Node>>) -> Response {
    let has_leader = node.log.leadership().borrow().leader.is_some();
    let is_founded = node.state().genesis.is_some();
    let reason = match (node.is_stopping(), has_leader, is_founded) {
        (false, true, true) => None,
        (true, _, _) => Some("it is about to stop"),
        (false, false, _) => Some("no leader is known"),
        (false, true, false) => Some("the genesis is not applied yet"),
    };
    let status = if reason.is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = if reason.is_none() {
        "ready"
    } else {
        "not ready"
    };
    let body = json!({"status": word, "reason": reason, "node": node.card.node});
    let mut response = answer(status, body);
    if reason.is_some() {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    response
}
