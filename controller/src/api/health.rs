//! Whether this controller lives and can serve; asked without a token, so that it tells nothing else.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{answer::answer, operation::Operation, schema};
use crate::{
    node::Node,
    readiness::{self, CHECKS},
    storage::pace,
};

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
                "Ready is a controller that knows a leader (and, if it leads, is confirmed by a majority) and how the cluster began, has \
                 applied what is committed, takes writes, and is not about to stop. `checks` says which of these hold.",
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
    let check = schema::object(
        &[("name", schema::one_of(&CHECKS)), ("ok", schema::flag())],
        &[],
    );
    let readiness = schema::object(
        &[
            ("status", schema::one_of(&["ready", "not ready"])),
            ("reason", schema::text_or_null()),
            ("checks", schema::list(check)),
            (
                "slow_disk",
                schema::about("Ready all the same, and slow", schema::text_or_null()),
            ),
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

async fn ready(State(node): State<Arc<Node>>) -> Response {
    let checks = readiness::checks(&node);
    let reason = checks.iter().find(|check| !check.is_ok);
    let reason = reason.map(|check| check.reason);
    let (status, word) = match reason {
        None => (StatusCode::OK, "ready"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let checks = checks.map(|check| json!({"name": check.name, "ok": check.is_ok}));
    let slow_disk = pace::slow(node.log.figures().sync);
    let body = json!({
        "status": word, "reason": reason, "checks": checks, "slow_disk": slow_disk, "node": node.card.node,
    });
    let mut response = answer(status, body);
    if reason.is_some() {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    response
}
