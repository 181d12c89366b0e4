//! Gives every answer the id under which logs and audit know its request. Logs hold method, path and status: never a
//! query, a header or a body.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use dotmac_protocol::ids::RequestId;
use dotmac_runtime::entropy::Entropy;
use tokio::time::Instant;

use super::{address, server::Connection};
use crate::node::Node;

/// The header of every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What browsers are told over TLS: a year without anything else.
const STAY_WITH_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// What a request is called, once somebody has decided it, and what trace it left in the audit.
#[derive(Debug, Clone, Default)]
pub(super) struct Tag(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    id: OnceLock<RequestId>,
    trace: OnceLock<Trace>,
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

/// Wraps every request.
pub(super) async fn track(
    State(node): State<Arc<Node>>,
    mut request: Request,
    next: Next,
) -> Response {
    let tag = Tag::default();
    request.extensions_mut().insert(tag.clone());
    let method = request.method().clone();
    let path = address::for_logs(request.uri()).to_owned();
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_tls = connection.is_some_and(|connection| connection.is_tls);
    let started = Instant::now();
    let mut response = next.run(request).await;
    let id = tag.random(&node.entropy);
    let (status, took) = (response.status().as_u16(), started.elapsed());
    if response.status().is_server_error() {
        tracing::warn!(%method, path, status, ?took, request = %id, "request not served");
    } else {
        tracing::debug!(%method, path, status, ?took, request = %id, "request served");
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
