//! What the HTTP API counts: requests by the template of their path, never by the path itself. What is counted at every
//! request is found without a lock.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use dotmac_runtime::metrics::{Counter, Gauge, Histogram, Registry, Table};

use super::catalogue::{
    HTTP_IN_FLIGHT, HTTP_PROBLEMS, HTTP_RATE_LIMITED, HTTP_REQUESTS, HTTP_SECONDS,
};

/// Classes of statuses, by their first digit.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// What requests are counted under that no operation is for.
const OTHER: &str = "other";

/// What answers say of themselves to be counted: the code of a problem.
#[derive(Debug, Clone, Copy)]
pub struct ProblemCode(pub &'static str);

/// What answers say of themselves to be counted: the limit at which they were refused.
#[derive(Debug, Clone, Copy)]
pub struct Limited(pub &'static str);

/// What the API counts.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Table<Counter>,
    seconds: Table<Histogram>,
    in_flight: Gauge,
    problems: Table<Counter>,
    limited: Table<Counter>,
}

/// The series of every operation; found by path and method.
#[derive(Debug)]
pub struct Routes {
    known: HashMap<String, Vec<(Method, Route)>>,
    other: Route,
    codes: HashMap<&'static str, Counter>,
    limited: Table<Counter>,
    in_flight: Gauge,
}

/// The series of one operation; each appears once there is something to count.
#[derive(Debug)]
struct Route {
    requests: Table<Counter>,
    seconds: Table<Histogram>,
    path: String,
    method: String,
    by_class: [OnceLock<Counter>; CLASSES.len()],
    took: OnceLock<Histogram>,
}

/// A request that is in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl HttpMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.counters(&HTTP_REQUESTS),
            seconds: registry.histograms(&HTTP_SECONDS),
            in_flight: registry.gauge(&HTTP_IN_FLIGHT),
            problems: registry.counters(&HTTP_PROBLEMS),
            limited: registry.counters(&HTTP_RATE_LIMITED),
        }
    }

    /// The series of these operations, and of problems with these codes.
    #[must_use]
    pub fn routes<'o>(
        &self,
        operations: impl IntoIterator<Item = (&'o str, &'o Method)>,
        codes: impl IntoIterator<Item = &'static str>,
    ) -> Arc<Routes> {
        let mut known: HashMap<String, Vec<(Method, Route)>> = HashMap::new();
        for (path, method) in operations {
            let of_path = known.entry(path.to_owned()).or_default();
            of_path.push((method.clone(), self.route(path, method.as_str())));
        }
        let codes = codes
            .into_iter()
            .map(|code| (code, self.problems.of([code])));
        Arc::new(Routes {
            known,
            other: self.route(OTHER, OTHER),
            codes: codes.collect(),
            limited: self.limited.clone(),
            in_flight: self.in_flight.clone(),
        })
    }

    fn route(&self, path: &str, method: &str) -> Route {
        Route {
            requests: self.requests.clone(),
            seconds: self.seconds.clone(),
            path: path.to_owned(),
            method: method.to_owned(),
            by_class: Default::default(),
            took: OnceLock::new(),
        }
    }
}

impl Routes {
    /// A request came.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// It was answered. `path` is the template that it matched, if any.
    pub fn answered(
        &self,
        path: Option<&str>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        // HEAD is served by what serves GET.
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let of_path = path.and_then(|path| self.known.get(path));
        let found = of_path.and_then(|routes| routes.iter().find(|(one, _)| one == method));
        let route = found.map_or(&self.other, |(_, route)| route);
        route.count(status, took);
    }

    /// It was answered with a problem.
    pub fn problem(&self, code: ProblemCode) {
        if let Some(counter) = self.codes.get(code.0) {
            counter.inc();
        }
    }

    /// It was refused at a limit.
    pub fn limited(&self, limit: Limited) {
        self.limited.of([limit.0]).inc();
    }
}

impl Route {
    fn count(&self, status: StatusCode, took: Duration) {
        let (path, method) = (self.path.as_str(), self.method.as_str());
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let class = class.min(CLASSES.len() - 1);
        let counter =
            self.by_class[class].get_or_init(|| self.requests.of([path, method, CLASSES[class]]));
        counter.inc();
        let histogram = self.took.get_or_init(|| self.seconds.of([path, method]));
        histogram.took(took);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
