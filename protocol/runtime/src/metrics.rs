//! What a process counts and measures: one registry, made at its start and handed around, rendered as OpenMetrics text.
//!
//! ```text
//!   Metric (name, kind, unit, labels, help; a constant)
//!     |-- counter, gauge, histogram: a handle, counted by atomics alone, kept by whoever counts
//!     `-- sample: asked when it is rendered, for what is known anyway (the State, /proc)
//!   Registry::render -> OpenMetrics 1.0, or the older text of Prometheus
//! ```
//! Labels are words that we chose (a status, a route's template, a region): never a tenant, an id or what a caller said.
//! It refuses to push: whoever wants the figures asks for them.

mod format;
mod histogram;
mod metric;
mod process;
mod readiness;
mod spans;
mod table;

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, text},
    metrics::{counter, gauge},
    registry,
};

use crate::clock::Clock;
use table::{AnyTable, Labels};

pub use format::Format;
pub use histogram::{BATCH, Histogram, SECONDS, SYNC_SECONDS};
pub use metric::{Kind, Metric};
pub use process::PROCESS;
pub use readiness::READINESS;
pub use spans::SPANS;
pub use table::Table;

/// A number that only grows.
pub type Counter = counter::Counter;
/// A number that goes up and down.
pub type Gauge = gauge::Gauge;

/// All metrics of one process; cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Mutex<Inner>>);

type Sampler = dyn Fn(&mut Samples<'_>) + Send + Sync;

#[derive(Default)]
struct Inner {
    tables: Vec<(&'static Metric, AnyTable)>,
    samplers: Vec<Box<Sampler>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Registry({} tables)", self.lock().tables.len())
    }
}

impl Registry {
    /// A registry that tells of the process itself already: what was built, memory, files, threads, time.
    #[must_use]
    pub fn new(version: &'static str, clock: &Clock) -> Self {
        let registry = Self(Arc::default());
        process::register(&registry, version, clock.now());
        registry
    }

    /// A counter without labels.
    #[must_use]
    pub fn counter(&self, metric: &'static Metric) -> Counter {
        self.counters(metric).of([])
    }

    /// Counters by their labels.
    #[must_use]
    pub fn counters(&self, metric: &'static Metric) -> Table<Counter> {
        let table = Table::new(metric, Counter::default);
        self.add(metric, AnyTable::Counters(table.clone()));
        table
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(&self, metric: &'static Metric) -> Gauge {
        let table = Table::new(metric, Gauge::default);
        self.add(metric, AnyTable::Gauges(table.clone()));
        table.of([])
    }

    /// A histogram without labels.
    #[must_use]
    pub fn histogram(&self, metric: &'static Metric) -> Histogram {
        self.histograms(metric).of([])
    }

    /// Histograms by their labels.
    ///
    /// # Panics
    /// When the metric is no histogram: a fault of the program that shows at its start.
    #[must_use]
    pub fn histograms(&self, metric: &'static Metric) -> Table<Histogram> {
        let Kind::Histogram(bounds) = metric.kind else {
            panic!("{} is no histogram", metric.name);
        };
        let table = Table::new(metric, move || Histogram::new(bounds));
        self.add(metric, AnyTable::Histograms(table.clone()));
        table
    }

    /// Asks for figures each time the metrics are rendered. It must be quick, and must not use this registry.
    pub fn sample(&self, sampler: impl Fn(&mut Samples<'_>) + Send + Sync + 'static) {
        self.lock().samplers.push(Box::new(sampler));
    }

    /// Everything as text.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut rendering = registry::Registry::default();
        rendering.register_collector(Box::new(self.clone()));
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &rendering).expect("a String takes all that is written to it");
        format.of(text)
    }

    fn add(&self, metric: &'static Metric, table: AnyTable) {
        self.lock().tables.push((metric, table));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Registry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = self.lock();
        for (metric, table) in &inner.tables {
            if !table.is_empty() {
                table.encode(&mut encoder, metric)?;
            }
        }
        let result = Ok(());
        let mut samples = Samples { encoder, result };
        for sampler in &inner.samplers {
            sampler(&mut samples);
        }
        samples.result
    }
}

/// A figure that is asked for when the metrics are rendered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any other, such as seconds.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// Takes the figures of a sampler.
#[derive(Debug)]
pub struct Samples<'a> {
    encoder: DescriptorEncoder<'a>,
    result: fmt::Result,
}

impl Samples<'_> {
    /// The figure of a metric without labels.
    pub fn put(&mut self, metric: &'static Metric, value: impl Into<Value>) {
        self.put_all(metric, [([], value.into())]);
    }

    /// A metric that only tells something by its labels.
    pub fn info(&mut self, metric: &'static Metric, value: &str) {
        self.put_all(metric, [([Cow::Owned(value.to_owned())], Value::Whole(1))]);
    }

    /// The figures of a metric, each with the values of its labels, in the order in which the metric names them.
    pub fn put_all<const N: usize>(
        &mut self,
        metric: &'static Metric,
        all: impl IntoIterator<Item = ([Cow<'static, str>; N], Value)>,
    ) {
        debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
        if self.result.is_ok() {
            let values = all
                .into_iter()
                .map(|(values, value)| (values.to_vec(), value));
            self.result = put_all(&mut self.encoder, metric, values.collect());
        }
    }
}

fn put_all(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &'static Metric,
    values: Vec<(Vec<Cow<'static, str>>, Value)>,
) -> fmt::Result {
    if values.is_empty() {
        return Ok(());
    }
    let unit = metric.unit();
    let mut family =
        encoder.encode_descriptor(metric.stem(), metric.help, unit.as_ref(), metric.sort())?;
    for (values, value) in values {
        let names = metric.labels;
        let labels = Labels { names, values };
        if metric.kind == Kind::Info {
            family.encode_info(&labels)?;
            continue;
        }
        if metric.labels.is_empty() {
            return put_one(family, metric, value);
        }
        put_one(family.encode_family(&labels)?, metric, value)?;
    }
    Ok(())
}

fn put_one(mut series: MetricEncoder<'_>, metric: &Metric, value: Value) -> fmt::Result {
    match (&metric.kind, value) {
        (Kind::Counter, Value::Whole(value)) => counter::ConstCounter::new(value).encode(series),
        (Kind::Counter, Value::Real(value)) => counter::ConstCounter::new(value).encode(series),
        (_, Value::Whole(value)) => series.encode_gauge(&value),
        (_, Value::Real(value)) => series.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Kind, Metric, Registry, Value};
    use crate::clock::Clock;

    static ASKED: Metric = Metric::new("dotmac_test_asked", Kind::Counter, &["by"], "Questions.");
    static TOOK: Metric = Metric::new(
        "dotmac_test_took_seconds",
        Kind::Histogram(&[0.5, 1.0]),
        &[],
        "Time of an answer.",
    );
    static FREE: Metric = Metric::new("dotmac_test_free_bytes", Kind::Gauge, &["disk"], "Room.");

    #[test]
    fn counters_histograms_and_samples_come_out_as_openmetrics() {
        let registry = Registry::new("1.2.3", &Clock::system());
        let asked = registry.counters(&ASKED);
        asked.of(["a\"\n"]).inc();
        asked.of(["a\"\n"]).inc();
        let took = registry.histogram(&TOOK);
        for seconds in [0.25, 1.0, 7.0] {
            took.observe(seconds);
        }
        registry.sample(|samples| {
            samples.put_all(&FREE, [(["one".into()], Value::Whole(5))]);
        });
        let text = registry.render(Format::OpenMetrics);
        for expected in [
            "# HELP dotmac_test_asked Questions.\n# TYPE dotmac_test_asked counter\n",
            "dotmac_test_asked_total{by=\"a\\\"\\n\"} 2\n",
            "# TYPE dotmac_test_took_seconds histogram\n# UNIT dotmac_test_took_seconds seconds\n",
            "dotmac_test_took_seconds_sum 8.25\ndotmac_test_took_seconds_count 3\n",
            "dotmac_test_took_seconds_bucket{le=\"1.0\"} 2\n",
            "dotmac_test_took_seconds_bucket{le=\"+Inf\"} 3\n",
            "dotmac_test_free_bytes{disk=\"one\"} 5\n",
            "dotmac_build_info{version=\"1.2.3\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(!text.contains("{}"), "{text}");
    }
}
