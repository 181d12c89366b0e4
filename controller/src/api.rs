//! The operator's HTTP API: every answer is JSON, every error a problem (RFC 9457), every change an envelope with
//! evidence. It decides nothing that the State decides, and holds no secret longer than one request.
//!
//! ```text
//!   serve -> track (x-request-id) -> Reading | Change (token, query, body, idempotency key) -> a handler of a few lines
//! ```

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::OriginalUri,
    http::Method,
    middleware,
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::node::Node;

mod agents;
mod answer;
mod audit;
mod change;
mod cluster;
mod deployments;
mod fields;
mod health;
mod principal;
mod problem;
mod reading;
mod releases;
mod server;
mod strict_json;
mod tokens;
mod tracking;

#[cfg(test)]
mod tests;

pub use server::serve;

use problem::{METHOD_NOT_ALLOWED, NO_SUCH_PATH, Problem};

/// Where deployments live.
const DEPLOYMENTS: &str = "/api/v1/tenant-orchestration/deployments";
/// Where releases live.
const RELEASES: &str = "/api/v1/releases";

/// All paths of one controller's API.
pub fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/", get(links))
        .merge(health::routes())
        .merge(deployments::routes())
        .merge(releases::routes())
        .route("/api/v1/agents", get(agents::list))
        .route("/api/v1/agents/tokens", post(agents::create_join_token))
        .route("/api/v1/tokens", post(tokens::create))
        .route("/api/v1/cluster/status", get(cluster::status))
        .route("/api/v1/audit", get(audit::story))
        .route("/api/v1/audit/records", get(audit::records))
        .route("/api/v1/audit/streams", get(audit::streams))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&node),
            tracking::track,
        ))
        .with_state(node)
}

async fn links() -> Json<Value> {
    Json(json!({
        "name": "dotmac-controller",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "deployments": DEPLOYMENTS,
            "releases": RELEASES,
            "agents": "/api/v1/agents",
            "cluster": "/api/v1/cluster/status",
            "audit": "/api/v1/audit",
            "live": "/health/live",
            "ready": "/health/ready",
        },
    }))
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(&NO_SUCH_PATH, format!("there is no path {path}"))
}

async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        &METHOD_NOT_ALLOWED,
        format!("{method} is not possible here"),
    )
}
