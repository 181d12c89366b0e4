//! What an agent counts. Made once at its start and handed around with the stations; whatever is known anyway is asked for
//! when the metrics are rendered. No label names a tenant, a unit or a request.

pub mod catalogue;
mod platform;
mod sampled;

use std::{sync::Arc, time::Duration};

use dotmac_runtime::{
    clock::Clock,
    disk::{MeasuredDisk, SharedDisk},
    metrics::{Counter, Format, Histogram, Registry},
};

use catalogue as all;

pub(crate) use platform::count;
pub use sampled::Figures;

/// Everything that one agent counts; clones share it.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    orders: dotmac_runtime::metrics::Table<Counter>,
    sync_seconds: Histogram,
    sync_failures: Counter,
    starts: [Counter; 3],
    ends: [Counter; 3],
    probes: [Counter; 2],
    probe_seconds: Histogram,
    platform: platform::PlatformMetrics,
    closed_for_room: [Counter; 2],
}

/// How the start of a process went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It runs.
    First,
    /// It runs again after a crash.
    Again,
    /// It could not be started.
    Refused,
}

/// What listens on the agent's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The platform API.
    Platform,
    /// The status address.
    Status,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// It was asked to.
    Stopped,
    /// It was a task, and is done.
    Done,
    /// By itself, or because it hung.
    Crashed,
}

impl Default for Metrics {
    /// Metrics that nobody asks for.
    fn default() -> Self {
        Self::new(&Clock::system())
    }
}

impl Metrics {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        let registry = Registry::new(crate::app::VERSION, clock);
        let starts = registry.counters(&all::INSTANCE_STARTS);
        let ends = registry.counters(&all::INSTANCE_ENDS);
        let probes = registry.counters(&all::PROBES);
        let closed = registry.counters(&all::CLOSED_FOR_ROOM);
        Self(Arc::new(Inner {
            orders: registry.counters(&all::ORDERS),
            sync_seconds: registry.histogram(&all::CHAIN_SYNC_SECONDS),
            sync_failures: registry.counter(&all::CHAIN_SYNC_FAILURES),
            starts: ["first", "again", "refused"].map(|kind| starts.of([kind])),
            ends: ["stopped", "done", "crashed"].map(|kind| ends.of([kind])),
            probes: ["good", "bad"].map(|result| probes.of([result])),
            probe_seconds: registry.histogram(&all::PROBE_SECONDS),
            platform: platform::PlatformMetrics::new(&registry),
            closed_for_room: ["platform", "status"].map(|listener| closed.of([listener])),
            registry,
        }))
    }

    /// From now on the metrics tell of a running agent, too.
    pub fn watch(&self, figures: Figures) {
        self.0
            .registry
            .sample(move |samples| figures.sample(samples));
    }

    /// From now on the metrics tell, too, which checks of readiness hold.
    pub fn judge(&self, checks: impl Fn() -> Vec<(&'static str, bool)> + Send + Sync + 'static) {
        self.0
            .registry
            .sample(move |samples| samples.put_readiness(checks()));
    }

    /// Everything as text.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        self.0.registry.render(format)
    }

    /// The same disk, with its time taken.
    #[must_use]
    pub fn measured(&self, disk: SharedDisk) -> SharedDisk {
        Arc::new(MeasuredDisk {
            disk,
            seconds: self.0.sync_seconds.clone(),
            failures: self.0.sync_failures.clone(),
        })
    }

    /// An order arrived; `verdict` is one of a few words.
    pub fn ordered(&self, verdict: &'static str) {
        self.0.orders.of([verdict]).inc();
    }

    /// A process was started, or was to be.
    pub fn started(&self, how: Start) {
        self.0.starts[how as usize].inc();
    }

    /// A process ended.
    pub fn ended(&self, how: EndKind) {
        self.0.ends[how as usize].inc();
    }

    /// Counts connections that were closed to make room for others.
    pub(crate) fn closed_for_room(&self, listener: Listener) -> Counter {
        self.0.closed_for_room[listener as usize].clone()
    }

    /// A probe was answered, or failed.
    pub fn probed(&self, is_good: bool, took: Duration) {
        self.0.probes[usize::from(!is_good)].inc();
        self.0.probe_seconds.took(took);
    }
}
