//! What instances ask of the platform API, by the template of the path: never by the path, which holds keys and tenants.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use dotmac_runtime::metrics::{Counter, Histogram, Registry, Table};
use tokio::time::Instant;

use super::{
    Metrics,
    catalogue::{PLATFORM_REQUESTS, PLATFORM_SECONDS},
};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// What requests are counted under that no route is for.
const OTHER: &str = "other";

#[derive(Debug)]
pub(super) struct PlatformMetrics {
    requests: Table<Counter>,
    seconds: Table<Histogram>,
    /// As many as there are routes.
    known: RwLock<BTreeMap<String, Arc<Route>>>,
}

#[derive(Debug)]
struct Route {
    by_class: [Counter; CLASSES.len()],
    took: Histogram,
}

impl PlatformMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.counters(&PLATFORM_REQUESTS),
            seconds: registry.histograms(&PLATFORM_SECONDS),
            known: RwLock::default(),
        }
    }

    fn route(&self, path: &str) -> Arc<Route> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(path) {
            return Arc::clone(route);
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let made = known.entry(path.to_owned()).or_insert_with(|| {
            Arc::new(Route {
                by_class: CLASSES.map(|class| self.requests.of([path, class])),
                took: self.seconds.of([path]),
            })
        });
        Arc::clone(made)
    }

    fn answered(&self, path: &str, status: StatusCode, took: Duration) {
        let route = self.route(path);
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        route.by_class[class.min(CLASSES.len() - 1)].inc();
        route.took.took(took);
    }
}

/// Wraps every call of an instance.
pub(crate) async fn count(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let response = next.run(request).await;
    let path = route.as_ref().map_or(OTHER, MatchedPath::as_str);
    let platform = &metrics.0.platform;
    platform.answered(path, response.status(), begun.elapsed());
    response
}
