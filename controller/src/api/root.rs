//! The way in: where everything else is.

use axum::{Json, http::StatusCode};
use serde_json::{Value, json};

use super::{DEPLOYMENTS, RELEASES, operation::Operation, schema};

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::look("root.show", "/", links)
            .public()
            .says(
                "Where everything is",
                "Name, version and the paths to start at.",
            )
            .answers(StatusCode::OK, "The way in", schema::of("Root")),
    ]
}

/// What its answer looks like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let root = schema::object(
        &[
            ("name", schema::any_text()),
            ("version", schema::any_text()),
            ("links", schema::map_of(schema::pattern("^/"))),
        ],
        &[],
    );
    vec![("Root", root)]
}

async fn links() -> Json<Value> {
    Json(json!({
        "name": "dotmac-controller",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "docs": "/docs",
            "openapi": "/openapi.json",
            "live": "/health/live",
            "ready": "/health/ready",
            "whoami": "/api/v1/whoami",
            "deployments": DEPLOYMENTS,
            "tenants": "/api/v1/tenants",
            "regions": "/api/v1/regions",
            "releases": RELEASES,
            "tiers": "/api/v1/tiers",
            "tokens": "/api/v1/tokens",
            "agents": "/api/v1/agents",
            "cluster": "/api/v1/cluster/status",
            "health": "/api/v1/tenant-orchestration/cluster/health",
            "events": "/api/v1/events",
            "audit": "/api/v1/audit",
        },
    }))
}
