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

use crate::node::Node;

/// The header of every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is called, once somebody has decided it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tag(Arc<OnceLock<RequestId>>);

impl Tag {
    /// The tag that [`track`] gave to a request.
    pub(super) fn of(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_default()
    }

    /// Decides; only the first decision counts.
    pub(super) fn set(&self, id: RequestId) {
        let _ = self.0.set(id);
    }

    /// The id; a random one if nobody decided before.
    pub(super) fn random(&self, entropy: &Entropy) -> RequestId {
        let make = || {
            entropy
                .hex(16)
                .parse()
                .expect("16 random bytes make a request id")
        };
        self.0.get_or_init(make).clone()
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
    let path = request.uri().path().to_owned();
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
    let value = HeaderValue::try_from(id.as_str()).expect("hexadecimal digits are a header value");
    headers.insert(REQUEST_ID, value);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
