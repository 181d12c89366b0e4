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

/// Entries of the log that may wait to be applied: more than a full queue of batches, less than a restart leaves.
const BEHIND_MAX: u64 = 256;

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
                "Ready is a controller that knows a leader (and, if it leads, reaches a majority) and how the cluster began, has \
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
    let names = [
        "staying", "leader", "majority", "genesis", "applied", "storage",
    ];
    let check = schema::object(
        &[("name", schema::one_of(&names)), ("ok", schema::flag())],
        &[],
    );
    let readiness = schema::object(
        &[
            ("status", schema::one_of(&["ready", "not ready"])),
            ("reason", schema::text_or_null()),
            ("checks", schema::list(check)),
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

/// What must be so for a controller to serve, and whether it is; the first that is not is the reason. It looks at memory
/// and asks the file system once, so that it may be asked often.
fn checks(node: &Node) -> [Check; 6] {
    let leader = node.log.leadership().borrow().leader;
    let peers = node.peers().count();
    let reached = node.log.connected().borrow().len();
    let has_majority = 2 * (reached + 1) > peers + 1;
    let figures = node.log.figures();
    let waiting = figures.last_log.saturating_sub(figures.applied);
    [
        ("staying", !node.is_stopping(), "it is about to stop"),
        ("leader", leader.is_some(), "no leader is known"),
        (
            "majority",
            !node.is_leader() || has_majority,
            "it leads and has no connection to a majority",
        ),
        (
            "genesis",
            node.state().genesis.is_some(),
            "the genesis is not applied yet",
        ),
        (
            "applied",
            waiting <= BEHIND_MAX,
            "it applies entries that others have applied before",
        ),
        (
            "storage",
            node.log.storage().is_ok(),
            "its storage takes no writes",
        ),
    ]
    .map(|(name, is_ok, reason)| Check {
        name,
        is_ok,
        reason,
    })
}

/// One thing that must be so.
struct Check {
    name: &'static str,
    is_ok: bool,
    /// Why it is not ready if it is not so.
    reason: &'static str,
}

async fn ready(State(node): State<Arc<Node>>) -> Response {
    let checks = checks(&node);
    let reason = checks.iter().find(|check| !check.is_ok);
    let reason = reason.map(|check| check.reason);
    let (status, word) = match reason {
        None => (StatusCode::OK, "ready"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let checks = checks.map(|check| json!({"name": check.name, "ok": check.is_ok}));
    let body = json!({"status": word, "reason": reason, "checks": checks, "node": node.card.node});
    let mut response = answer(status, body);
    if reason.is_some() {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    response
}
