//! Spans for whoever runs this product: taken without waiting, kept in a bounded queue, sent as OTLP over HTTP by a thread
//! of its own. Nothing waits for a collector (law 12): what finds no room is dropped and counted, and a collector that is
//! away is told of once a minute.
//!
//! ```text
//!   emit --(room?)--> queue of SPANS_MAX --> thread: batch -> POST /v1/traces -> again after a pause, BATCH_TRIES_MAX times
//!              `--> dropped, counted                                                  `--> dropped, counted
//! ```
//! It refuses to know what a span is about, and reads no variables: an endpoint is configured or there is none.

mod encode;
mod export;
mod span;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use dotmac_protocol::{time::Timestamp, trace::TraceContext};
use reqwest::Url;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub use self::span::Span;
use crate::clock::Clock;

/// Spans that may wait for their export, those that are under way to the collector included; at the limit the newest is
/// dropped.
pub const SPANS_MAX: usize = 4096;
/// How long the end of the process may be held up by what is still to be exported.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Where a collector takes traces, below its endpoint (OTLP over HTTP).
const SIGNAL: &str = "/v1/traces";

/// Where a collector takes OTLP over HTTP, such as `http://127.0.0.1:4318`; its traces go to `/v1/traces` below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(Url);

/// The text is no address of a collector.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error(
    "an OTLP endpoint is http://HOST:PORT or https://HOST:PORT, without user, query and fragment; /v1/traces is added to it"
)]
pub struct EndpointError;

/// Who emits: what a backend shows as the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `service.name`, such as `dotmac-agent`.
    pub name: &'static str,
    /// `service.namespace`: the cluster.
    pub namespace: String,
    /// `service.instance.id`, which no other process of this name has.
    pub instance: String,
    /// `service.version`.
    pub version: &'static str,
}

/// What became of spans since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: u64,
    /// Lost: there was no room, or the collector did not take them in time.
    pub dropped: u64,
    /// Neither yet: in the queue or under way to the collector.
    pub waiting: u64,
}

/// Takes spans. Clones share one queue; the default takes none and costs nothing.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<Inner>>);

struct Inner {
    queue: mpsc::Sender<Span>,
    clock: Clock,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    /// At most [`SPANS_MAX`].
    waiting: AtomicUsize,
}

/// The exporting thread of a process.
#[derive(Debug, Default)]
pub struct Telemetry {
    spans: Spans,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl Telemetry {
    /// Starts to export, if there is an endpoint.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        endpoint: Option<&Endpoint>,
        service: Service,
        clock: &Clock,
    ) -> Result<Self, io::Error> {
        let Some(endpoint) = endpoint else {
            return Ok(Self::default());
        };
        let (queue, waiting) = mpsc::channel(SPANS_MAX);
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let exporter = export::Exporter::new(endpoint, &service, Arc::clone(&counts));
        thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || {
                exporter.run(waiting, stopped);
                end.send_replace(true);
            })?;
        tracing::info!(%endpoint, "spans are exported");
        let clock = clock.clone();
        Ok(Self {
            spans: Spans(Some(Arc::new(Inner {
                queue,
                clock,
                counts,
            }))),
            running: Some(Running { stop, ended }),
        })
    }

    /// Where spans go.
    #[must_use]
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what waits, for at most [`STOP_PATIENCE`] in all; not at all when the collector did not take the last batch.
    pub async fn stop(self) {
        let Some(Running { stop, mut ended }) = self.running else {
            return;
        };
        stop.send_replace(true);
        // A thread that is gone has ended, too.
        let _ = tokio::time::timeout(STOP_PATIENCE, ended.wait_for(|ended| *ended)).await;
    }
}

impl Spans {
    /// The context, if spans of it are wanted: something is exported, and it is sampled.
    #[must_use]
    pub fn follow(&self, context: Option<TraceContext>) -> Option<TraceContext> {
        context.filter(|context| context.is_sampled && self.0.is_some())
    }

    /// Whether anything is exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Nanoseconds since 1970 for a span's start or end; 0 when nothing is exported.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.clock.now_nanos())
    }

    /// Takes a span; without room it is dropped and counted.
    pub fn emit(&self, span: Span) {
        self.take(span, 0);
    }

    /// Takes a span of which others may make any number: it may fill half of the queue only.
    pub fn emit_modestly(&self, span: Span) {
        self.take(span, SPANS_MAX / 2);
    }

    fn take(&self, span: Span, room_min: usize) {
        let Some(inner) = &self.0 else { return };
        let counts = &inner.counts;
        let waiting_max = SPANS_MAX.saturating_sub(room_min);
        if !counts.admit(waiting_max) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else if inner.queue.try_send(span).is_err() {
            counts.settle(0, 1);
        }
    }

    /// What became of them so far.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        let Some(inner) = &self.0 else {
            return SpanCounts::default();
        };
        let waiting = inner.counts.waiting.load(Ordering::Relaxed);
        SpanCounts {
            exported: inner.counts.exported.load(Ordering::Relaxed),
            dropped: inner.counts.dropped.load(Ordering::Relaxed),
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
        }
    }
}

impl Counts {
    /// Takes note of one more that waits, if fewer than so many do.
    fn admit(&self, waiting_max: usize) -> bool {
        let more = |waiting: usize| (waiting < waiting_max).then_some(waiting + 1);
        let admitted = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        admitted.is_ok()
    }

    /// So many do not wait any more.
    fn settle(&self, exported: usize, dropped: usize) {
        let whole = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.exported.fetch_add(whole(exported), Ordering::Relaxed);
        self.dropped.fetch_add(whole(dropped), Ordering::Relaxed);
        self.waiting
            .fetch_sub(exported + dropped, Ordering::Relaxed);
    }
}

/// The moment as a span's start or end.
#[must_use]
pub fn nanos(at: Timestamp) -> u64 {
    at.0.saturating_mul(1_000_000)
}

impl Endpoint {
    /// Where traces go.
    fn traces(&self) -> Url {
        let base = self.0.as_str().trim_end_matches('/');
        format!("{base}{SIGNAL}")
            .parse()
            .expect("a path can be added to what was parsed")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let url: Url = text.parse().map_err(|_| EndpointError)?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.port() != Some(0)
            && !url.path().trim_end_matches('/').ends_with(SIGNAL);
        if matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain {
            Ok(Self(url))
        } else {
            Err(EndpointError)
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str())
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Spans({:?})", self.counts())
    }
}
