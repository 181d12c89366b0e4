//! What this controller counts, for whoever collects such: OpenMetrics text, with a token that may read it. It asks
//! nobody, so it also answers without a leader.

use std::sync::Arc;

use axum::{
    extract::{OriginalUri, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dotmac_domain::access::Permission;
use dotmac_runtime::metrics::Format;

use super::{
    fields::Fields,
    operation::{Operation, Scope},
    principal::Principal,
    problem::{INTERNAL, Problem},
    schema,
};
use crate::node::Node;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let about = "Counters and gauges of the controller that is asked, as OpenMetrics 1.0; whoever accepts only `text/plain` \
                 gets the older text of Prometheus.";
    let media = |format: Format| {
        let whole = format.content_type();
        whole.split_once(';').map_or(whole, |(media, _)| media)
    };
    vec![
        Operation::look("metrics.show", "/metrics", show)
            .says("What it counts", about)
            .needs(&[Permission::MetricsRead], Scope::Platform)
            .answers_as(
                StatusCode::OK,
                "Metrics",
                media(Format::OpenMetrics),
                schema::any_text(),
            )
            .answers_as(
                StatusCode::OK,
                "Metrics in the older text",
                media(Format::Classic),
                schema::any_text(),
            ),
    ]
}

async fn show(
    who: Principal,
    State(node): State<Arc<Node>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    who.require(&node.state(), Permission::MetricsRead, None)?;
    Fields::of_query(uri.query())?.finish()?;
    let accepted: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let format = Format::preferred(&accepted.join(","));
    // Off the threads that others wait for: it walks the State and asks the disk.
    let rendering = tokio::task::spawn_blocking(move || node.metrics.registry.render(format));
    let text = rendering
        .await
        .map_err(|_| Problem::new(&INTERNAL, "the metrics cannot be written"))?;
    let content = HeaderValue::from_static(format.content_type());
    Ok(([(header::CONTENT_TYPE, content)], text).into_response())
}
