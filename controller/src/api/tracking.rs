//! Gives every answer the id under which logs and audit know its request. Logs hold method, path and status: never a
//! query, a header or a body.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::Response,
};
use dotmac_protocol::{ids::RequestId, trace::TraceContext};
use dotmac_runtime::entropy::Entropy;
use tokio::time::Instant;
use tracing::field::display;

use super::{address, server::Connection};
use crate::{
    metrics::{Limited, ProblemCode, Routes},
    node::Node,
    traces::{self, Answered, HttpTrace},
};

/// The header of every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Paths that are asked again and again.
const HEALTH: &str = "/health/";
/// What browsers are told over TLS: a year without anything else.
const STAY_WITH_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// What a request is called, once somebody has decided it, and what trace it left in the audit.
#[derive(Debug, Clone, Default)]
pub(super) struct Tag(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    id: OnceLock<RequestId>,
    trace: OnceLock<Trace>,
    spans: Option<HttpTrace>,
}

/// What a request left in the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    /// The command that it became, accepted under its id.
    Command,
    /// A note with this action.
    Note(&'static str),
    /// Nothing: it only asked what would happen.
    DryRun,
}

impl Tag {
    /// The tag that [`track`] gave to a request.
    pub(super) fn of(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_default()
    }

    fn traced(spans: Option<HttpTrace>) -> Self {
        Self(Arc::new(Inside {
            spans,
            ..Inside::default()
        }))
    }

    /// The W3C trace that what follows from the request belongs to.
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.0.spans.map(|spans| spans.context)
    }

    /// Decides; only the first decision counts.
    pub(super) fn set(&self, id: RequestId) {
        let _ = self.0.id.set(id);
    }

    /// Says what the request left in the audit; only the first word counts.
    pub(super) fn leave(&self, trace: Trace) {
        let _ = self.0.trace.set(trace);
    }

    /// What the request left in the audit.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.0.trace.get().copied()
    }

    /// The id; a random one if nobody decided before.
    pub(super) fn random(&self, entropy: &Entropy) -> RequestId {
        let make = || {
            entropy
                .hex(16)
                .parse()
                .expect("16 random bytes make a request id")
        };
        self.0.id.get_or_init(make).clone()
    }
}

/// Where requests are counted, and the controller that they reached.
#[derive(Debug, Clone)]
pub(super) struct Tracked {
    pub(super) node: Arc<Node>,
    pub(super) routes: Arc<Routes>,
}

/// Wraps every request.
pub(super) async fn track(
    State(Tracked { node, routes }): State<Tracked>,
    mut request: Request,
    next: Next,
) -> Response {
    let spans = node
        .traces
        .begin(request.method(), request.headers(), &node.entropy);
    let tag = Tag::traced(spans);
    request.extensions_mut().insert(tag.clone());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let in_flight = routes.begin();
    let path = address::for_logs(request.uri()).to_owned();
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_tls = connection.is_some_and(|connection| connection.is_tls);
    let started = Instant::now();
    let mut response = next.run(request).await;
    let id = tag.random(&node.entropy);
    let (status, took) = (response.status().as_u16(), started.elapsed());
    drop(in_flight);
    count(&routes, route.as_ref(), &method, &response, took);
    if let Some(spans) = spans {
        let answered = Answered {
            route: route.as_ref().map(MatchedPath::as_str),
            method: &method,
            status,
            request: &id,
        };
        node.traces.answered(&spans, &answered);
    }
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let named = traces::known(&method);
    let trace_id = spans.map(|spans| display(spans.context.trace_id));
    // Whoever asks whether this controller is ready asks often, and is answered 503 until it is.
    if response.status().is_server_error() && !path.starts_with(HEALTH) {
        tracing::warn!(method = named, path, status, took_ms, request = %id, trace_id, "request not served");
    } else if response.status().is_success() && !method.is_safe() {
        tracing::info!(method = named, path, status, took_ms, request = %id, trace_id, "change accepted");
    } else {
        tracing::debug!(method = named, path, status, took_ms, request = %id, trace_id, "request served");
    }
    let headers = response.headers_mut();
    if is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, STAY_WITH_TLS);
    }
    let value = HeaderValue::try_from(id.as_str()).expect("hexadecimal digits are a header value");
    headers.insert(REQUEST_ID, value);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // What must not be changed on its way says more than this.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn count(
    routes: &Routes,
    route: Option<&MatchedPath>,
    method: &Method,
    response: &Response,
    took: Duration,
) {
    routes.answered(
        route.map(MatchedPath::as_str),
        method,
        response.status(),
        took,
    );
    if let Some(code) = response.extensions().get::<ProblemCode>() {
        routes.problem(*code);
    }
    if let Some(limit) = response.extensions().get::<Limited>() {
        routes.limited(*limit);
    }
}
