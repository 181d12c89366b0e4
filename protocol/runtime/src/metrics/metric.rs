//! What a metric is called and means: constants, so that the same words are in the exposition and in the documentation.

use prometheus_client::{metrics::MetricType, registry::Unit};

/// One metric of a program.
#[derive(Debug, PartialEq)]
pub struct Metric {
    /// Its name, with its unit and without `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows; its series end with `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is always 1, and its labels tell.
    Info,
    /// Counts by the upper bounds of what was measured.
    Histogram(&'static [f64]),
}

/// Units that names end with, as OpenMetrics has them.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

impl Metric {
    /// A metric; the unit is the end of its name.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            labels,
            help,
        }
    }

    /// The names under which its series appear.
    #[must_use]
    pub fn series(&self) -> Vec<String> {
        let name = self.name;
        match self.kind {
            Kind::Counter => vec![format!("{name}_total")],
            Kind::Gauge => vec![name.to_owned()],
            Kind::Info => vec![format!("{name}_info")],
            Kind::Histogram(_) => ["bucket", "count", "sum"]
                .map(|end| format!("{name}_{end}"))
                .to_vec(),
        }
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        let unit = self.unit_name()?;
        Some(Unit::Other(unit.to_owned()))
    }

    /// The name without its unit.
    pub(super) fn stem(&self) -> &'static str {
        let unit = self.unit_name();
        unit.and_then(|unit| self.name.strip_suffix(unit)?.strip_suffix('_'))
            .unwrap_or(self.name)
    }

    /// Its type, as scrapers know it.
    #[must_use]
    pub fn sort(&self) -> MetricType {
        match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Info => MetricType::Info,
            Kind::Histogram(_) => MetricType::Histogram,
        }
    }

    fn unit_name(&self) -> Option<&'static str> {
        let end = self.name.rsplit('_').next()?;
        UNITS.into_iter().find(|unit| *unit == end)
    }
}

/// A program's list of metrics: a constant for each, and `ALL` of them in this order.
#[macro_export]
macro_rules! catalogue {
    ($($id:ident = $name:literal $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: $crate::metrics::Metric =
                $crate::metrics::Metric::new($name, $kind, &[$($label),*], $help);
        )*
        /// All of them.
        pub static ALL: &[&$crate::metrics::Metric] = &[$(&$id),*];
    };
}
