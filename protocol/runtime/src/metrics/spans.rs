//! What became of the spans of a process, under the same names in every program of ours.

use super::{Kind, Metric, Samples};
use crate::telemetry::SpanCounts;

static EXPORTED: Metric = Metric::new(
    "dotmac_telemetry_spans_exported",
    Kind::Counter,
    &[],
    "Spans that the collector took.",
);
static DROPPED: Metric = Metric::new(
    "dotmac_telemetry_spans_dropped",
    Kind::Counter,
    &[],
    "Spans that were lost: there was no room, or the collector did not take them.",
);
static WAITING: Metric = Metric::new(
    "dotmac_telemetry_spans_waiting",
    Kind::Gauge,
    &[],
    "Spans that wait for their export or are under way to the collector.",
);

/// What is told of spans.
pub static SPANS: [&Metric; 3] = [&EXPORTED, &DROPPED, &WAITING];

impl Samples<'_> {
    /// The figures of [`SPANS`].
    pub fn put_spans(&mut self, counts: SpanCounts) {
        self.put(&EXPORTED, counts.exported);
        self.put(&DROPPED, counts.dropped);
        self.put(&WAITING, counts.waiting);
    }
}
