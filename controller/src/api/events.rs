//! What changes, as server-sent events from any controller: first everything as it is, then `synced`, then changes. It
//! keeps no history: whoever reconnects, here or elsewhere, gets the current state again.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dotmac_domain::access::Permission;
use futures::stream;

use super::{
    operation::{Operation, Scope},
    problem::{NOT_FOUND, OVERLOADED, Problem, UNAVAILABLE},
    reading::Reading,
    schema,
};
use crate::feed::SubscribeError;

mod selection;
mod shown;
mod watching;

pub(crate) use shown::render;

use selection::{KINDS, Selection};
use watching::Watching;

/// Asks proxies not to hold events back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let about = "First the current state of everything selected, one event each, named like its type, with the JSON \
                 that GET shows; then `synced`; then each change, and `TYPE.gone` when something is no more. Each id is \
                 a log index. What was missed is not told again: whoever reconnects, to any controller, begins with the \
                 current state. `reset` says that the current state follows once more; `closing` why the stream ends.";
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let types = format!("^({0})(,({0}))*$", names.join("|"));
    vec![
        Operation::read("events.stream", "/api/v1/events", events)
            .says("Follow what changes", about)
            .needs(&[Permission::EventRead], Scope::Filtered)
            .query(
                "types",
                schema::pattern(&types),
                "these only; all that the token may read if not given",
            )
            .query(
                "tenant_id",
                schema::tenant_id(),
                "only what belongs to this tenant",
            )
            .query(
                "deployment",
                schema::deployment_id(),
                "only this deployment",
            )
            .header(
                "Last-Event-ID",
                schema::any_text(),
                "taken from browsers, and without effect",
            )
            .problems(&[&NOT_FOUND])
            .answers_as(
                StatusCode::OK,
                "Events, until somebody hangs up",
                "text/event-stream",
                schema::anything(),
            ),
    ]
}

async fn events(mut reading: Reading) -> Result<Response, Problem> {
    reading.who.has(Permission::EventRead)?;
    let selection = Selection::read(&mut reading)?;
    let Reading {
        node, who, query, ..
    } = reading;
    query.finish()?;
    let subscribed = node.feed.subscribe(&node).await;
    let (snapshot, subscription) = subscribed.map_err(|error| {
        let kind = match error {
            SubscribeError::Closed => &UNAVAILABLE,
            SubscribeError::Full => &OVERLOADED,
        };
        Problem::new(kind, error.to_string()).with_next("watch through another controller")
    })?;
    let watching = Watching::new(node, who, selection, snapshot, subscription);
    let chunks = stream::unfold(watching, |mut watching| async move {
        let chunk = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watching))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let caching = HeaderValue::from_static("no-store, no-transform");
    headers.insert(header::CACHE_CONTROL, caching);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}
