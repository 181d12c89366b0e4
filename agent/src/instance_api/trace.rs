//! Goes on in an instance's trace when it sends one: the call becomes a span of this agent. Only a caller that proved
//! itself gets one.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{MatchedPath, Request, State},
    http::request::Parts,
    middleware::Next,
    response::Response,
};
use dotmac_protocol::ids::UnitId;

use super::Api;

/// Where the caller is noted once it proved itself.
#[derive(Debug, Clone, Default)]
struct Proven(Arc<OnceLock<UnitId>>);

/// Wraps every call.
pub(super) async fn trace(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let traces = api.sources.stations.traces();
    let Some(call) = traces.begin(request.headers()) else {
        return next.run(request).await;
    };
    let proven = Proven::default();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(proven.clone());
    let response = next.run(request).await;
    if let (Some(unit), Some(route)) = (proven.0.get(), route) {
        let asked = (&method, route.as_str());
        traces.answered(&call, unit, asked, response.status().as_u16());
    }
    response
}

/// Notes whose call it is.
pub(super) fn note_caller(parts: &Parts, unit: &UnitId) {
    if let Some(proven) = parts.extensions.get::<Proven>() {
        // A call has one caller, however often it is asked for.
        let _ = proven.0.set(unit.clone());
    }
}
