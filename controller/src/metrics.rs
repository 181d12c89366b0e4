//! What a controller counts. Made once at its start; whoever counts keeps a handle, everything else is asked for when
//! the metrics are rendered. It decides nothing, and no label names a tenant or a request.

pub mod catalogue;
mod http;
mod sampled;

use std::{path::PathBuf, sync::Arc, time::Duration};

use dotmac_runtime::{
    clock::Clock,
    disk::{MeasuredDisk, SharedDisk},
    metrics::{Counter, Histogram, Registry},
};

use crate::node::Node;
use catalogue::{
    RAFT_BATCH_PROPOSALS, RAFT_COMMIT_SECONDS, RAFT_LEADER_CHANGES, RAFT_PROPOSALS,
    STORAGE_SYNC_FAILURES, STORAGE_SYNC_SECONDS,
};

pub use http::{HttpMetrics, Limited, ProblemCode, Routes};

/// Everything that one controller counts.
#[derive(Debug)]
pub struct Metrics {
    /// All of it, for whoever renders.
    pub registry: Registry,
    /// The replicated log.
    pub raft: RaftMetrics,
    /// The HTTP API.
    pub http: HttpMetrics,
    sync_seconds: Histogram,
    sync_failures: Counter,
}

/// What the replicated log counts.
#[derive(Debug, Clone)]
pub struct RaftMetrics {
    /// Proposals that got an answer of the State.
    pub answered: Counter,
    /// Proposals that were not taken.
    pub refused: Counter,
    /// Proposals of which nobody knows whether they were taken.
    pub timed_out: Counter,
    /// How long an entry took.
    pub commit_seconds: Histogram,
    /// How many proposals shared an entry.
    pub batch: Histogram,
    /// How often another leader was learned of, or none.
    pub leader_changes: Counter,
}

impl Metrics {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(clock: &Clock) -> Arc<Self> {
        let registry = Registry::new(env!("CARGO_PKG_VERSION"), clock);
        Arc::new(Self {
            raft: RaftMetrics::new(&registry),
            http: HttpMetrics::new(&registry),
            sync_seconds: registry.histogram(&STORAGE_SYNC_SECONDS),
            sync_failures: registry.counter(&STORAGE_SYNC_FAILURES),
            registry,
        })
    }

    /// The same disk, with its time taken.
    #[must_use]
    pub fn measured(&self, disk: SharedDisk) -> SharedDisk {
        Arc::new(MeasuredDisk {
            disk,
            seconds: self.sync_seconds.clone(),
            failures: self.sync_failures.clone(),
        })
    }

    /// From now on the metrics tell of a controller, too, and of the store in `directory`.
    pub fn watch(&self, node: &Arc<Node>, directory: PathBuf) {
        let node = Arc::downgrade(node);
        self.registry.sample(move |samples| {
            if let Some(node) = node.upgrade() {
                sampled::sample(samples, &node, &directory);
            }
        });
    }
}

impl RaftMetrics {
    /// An entry of so many proposals was committed and applied.
    pub fn committed(&self, took: Duration, proposals: usize) {
        self.commit_seconds.took(took);
        let proposals = u32::try_from(proposals).unwrap_or(u32::MAX);
        self.batch.observe(proposals.into());
    }

    fn new(registry: &Registry) -> Self {
        let proposals = registry.counters(&RAFT_PROPOSALS);
        Self {
            answered: proposals.of(["answered"]),
            refused: proposals.of(["refused"]),
            timed_out: proposals.of(["timed_out"]),
            commit_seconds: registry.histogram(&RAFT_COMMIT_SECONDS),
            batch: registry.histogram(&RAFT_BATCH_PROPOSALS),
            leader_changes: registry.counter(&RAFT_LEADER_CHANGES),
        }
    }
}
