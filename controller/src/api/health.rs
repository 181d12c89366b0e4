//! Whether this controller lives and can serve; asked without a token, so that it tells nothing else.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use serde_json::json;

use super::answer::answer;
use crate::node::Node;

/// The paths.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
}

async fn live() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    answer(
        StatusCode::OK,
        json!({"status": "alive", "service": "controller", "version": version}),
    )
}

/// Ready is whoever knows a leader and how the cluster began.
async fn ready(State(node): State<Arc<Node>>) -> Response {
    let has_leader = node.log.leadership().borrow().leader.is_some();
    let is_founded = node.state().genesis.is_some();
    let reason = match (has_leader, is_founded) {
        (true, true) => None,
        (false, _) => Some("no leader is known"),
        (true, false) => Some("the genesis is not applied yet"),
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
    answer(
        status,
        json!({"status": word, "reason": reason, "node": node.card.node}),
    )
}
