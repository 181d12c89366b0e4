//! The series of one metric, by the values of its labels. Looking one up takes a lock: whoever counts often keeps the
//! handle. Series are never forgotten, so label values must come from a bounded set.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric, LabelSetEncoder,
};

use super::{Counter, Gauge, Histogram, Metric};

/// Series of one metric at most. What comes later is counted, but not shown: a label was not bounded after all.
const SERIES_MAX: usize = 4_096;

type Series<M> = BTreeMap<Vec<Cow<'static, str>>, M>;

/// The series of one metric; clones share them.
#[derive(Clone)]
pub struct Table<M> {
    metric: &'static Metric,
    make: Arc<dyn Fn() -> M + Send + Sync>,
    series: Arc<Mutex<Series<M>>>,
}

impl<M> fmt::Debug for Table<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Table({})", self.metric.name)
    }
}

impl<M: Clone> Table<M> {
    pub(super) fn new(
        metric: &'static Metric,
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            metric,
            make: Arc::new(make),
            series: Arc::default(),
        }
    }

    /// The series with these label values, in the order in which the metric names its labels; made if there is none.
    #[must_use]
    pub fn of<const N: usize>(&self, values: [&str; N]) -> M {
        debug_assert_eq!(self.metric.labels.len(), N, "{}", self.metric.name);
        let mut series = self.lock();
        let key: Vec<Cow<'static, str>> = values.map(|one| Cow::Owned(one.to_owned())).to_vec();
        if let Some(known) = series.get(&key) {
            return known.clone();
        }
        let made = (self.make)();
        if series.len() < SERIES_MAX {
            series.insert(key, made.clone());
        }
        made
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Series<M>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Clone + EncodeMetric> Table<M> {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, metric: &'static Metric) -> fmt::Result {
        let unit = metric.unit();
        let (stem, sort) = (metric.stem(), metric.sort());
        let mut family = encoder.encode_descriptor(stem, metric.help, unit.as_ref(), sort)?;
        for (values, one) in self.lock().iter() {
            if metric.labels.is_empty() {
                return one.encode(family);
            }
            let (names, values) = (metric.labels, values.clone());
            let labels = Labels { names, values };
            one.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A table of whatever kind.
pub(super) enum AnyTable {
    Counters(Table<Counter>),
    Gauges(Table<Gauge>),
    Histograms(Table<Histogram>),
}

impl AnyTable {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Counters(table) => table.is_empty(),
            Self::Gauges(table) => table.is_empty(),
            Self::Histograms(table) => table.is_empty(),
        }
    }

    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        metric: &'static Metric,
    ) -> fmt::Result {
        match self {
            Self::Counters(table) => table.encode(encoder, metric),
            Self::Gauges(table) => table.encode(encoder, metric),
            Self::Histograms(table) => table.encode(encoder, metric),
        }
    }
}

/// Names and values of labels.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) names: &'static [&'static str],
    pub(super) values: Vec<Cow<'static, str>>,
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.names.iter().zip(&self.values) {
            (*name, value.as_ref()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
