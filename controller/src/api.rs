//! The operator's HTTP API: every answer is JSON, every error a problem (RFC 9457), every change an envelope with
//! evidence. It decides nothing that the State decides, and holds no secret longer than one request.
//!
//! ```text
//!   operations() --+--> router: serve -> track (x-request-id) -> admit (limits) -> guard (trace in the audit) -> Reading | Change -> handler
//!   (one registry) +--> /openapi.json, /docs
//!                  `--> the table of who may do what (tests)
//! ```

use std::sync::Arc;

use axum::{Router, extract::OriginalUri, http::Method, middleware};
use serde_json::Value;

use crate::node::Node;

mod address;
mod admission;
mod agents;
mod answer;
mod audit;
mod backups;
mod body;
mod change;
mod cluster;
mod deployments;
mod docs;
mod events;
mod fields;
mod health;
mod licenses;
mod limits;
mod live;
mod metrics;
mod openapi;
mod operation;
mod principal;
mod problem;
mod reading;
mod regions;
mod releases;
mod root;
mod schema;
mod server;
mod strict_json;
mod tenants;
mod tiers;
mod tokens;
mod tracking;

#[cfg(test)]
mod tests;

pub(crate) use cluster::Noticed;
pub(crate) use events::render;
pub use server::{Serving, Tls, TlsError, TlsFiles, serve};

use operation::Operation;
use problem::{METHOD_NOT_ALLOWED, NO_SUCH_PATH, Problem};

/// Where deployments live.
const DEPLOYMENTS: &str = "/api/v1/tenant-orchestration/deployments";
/// Where releases live.
const RELEASES: &str = "/api/v1/releases";

/// Everything that can be asked: the one list from which all others are made.
fn operations() -> Vec<Operation> {
    [
        root::operations(),
        health::operations(),
        deployments::operations(),
        licenses::operations(),
        releases::operations(),
        tenants::operations(),
        regions::operations(),
        agents::operations(),
        tokens::operations(),
        tiers::operations(),
        cluster::operations(),
        events::operations(),
        audit::operations(),
        backups::operations(),
        metrics::operations(),
        docs::operations(),
    ]
    .concat()
}

/// What their bodies and answers look like, by name.
fn schemas() -> Vec<(String, Value)> {
    let ours = [
        root::schemas(),
        health::schemas(),
        deployments::schemas(),
        licenses::schemas(),
        tenants::schemas(),
        regions::schemas(),
        agents::schemas(),
        tokens::schemas(),
        tiers::schemas(),
        cluster::schemas(),
        audit::schemas(),
        backups::schemas(),
        openapi::schemas(),
    ]
    .concat();
    let ours = ours
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema));
    ours.chain(releases::schemas()).collect()
}

/// All paths of one controller's API.
pub fn router(node: Arc<Node>) -> Router {
    let operations = operations();
    let paths = operations
        .iter()
        .map(|one| (one.path.as_str(), &one.method));
    let codes = problem::Kind::all().map(problem::Kind::code);
    let tracked = tracking::Tracked {
        routes: node.metrics.http.routes(paths, codes),
        node: Arc::clone(&node),
    };
    operations
        .into_iter()
        .fold(Router::new(), |router, one| {
            router.route(&one.path, one.route())
        })
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&node),
            admission::admit,
        ))
        .layer(middleware::from_fn_with_state(tracked, tracking::track))
        .with_state(node)
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
