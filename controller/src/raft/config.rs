//! How one controller takes part, and why it cannot. Raft's timing is decided here: a lost leader is replaced within two
//! seconds.

use std::{collections::BTreeMap, path::PathBuf};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::ids::{ClusterId, NodeId};
use openraft::SnapshotPolicy;
use thiserror::Error;

use super::{
    lives::LivesError, log_store::LogStoreError, state_machine::StateMachineError, types::Node,
};
use crate::{
    metrics::RaftMetrics,
    storage::{
        directory::DirectoryError,
        engine::{EngineConfig, OpenError},
        ledger::LedgerError,
        snapshots::SnapshotError,
    },
    traces::Traces,
};

/// How one controller takes part.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// This controller.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// All controllers, this one too, as the cluster was created.
    pub members: Vec<NodeCard>,
    /// Where everything is kept.
    pub directory: PathBuf,
    /// Limits of the storage.
    pub engine: EngineConfig,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Where the spans of requests go.
    pub traces: Traces,
    /// What is counted.
    pub metrics: RaftMetrics,
}

/// Entries between two snapshots, unless told otherwise.
pub const SNAPSHOT_EVERY: u64 = 2_000;
/// Milliseconds between heartbeats.
const HEARTBEAT_MS: u64 = 150;
/// Milliseconds after which a node stands for election, chosen anew each time; they count once the leader's lease, which
/// is as long as the range's end, is over. So a dead leader is followed by another after 1.2 to 1.6 s.
const ELECTION_MS: std::ops::Range<u64> = 400..800;
/// Milliseconds for which a majority's word counts: within them no other controller stands for election.
pub(super) const LEASE_MS: u64 = ELECTION_MS.end;
/// Milliseconds that sending and installing a snapshot may take.
const SNAPSHOT_MS: u64 = 120_000;
/// Entries replicated at once at most; their bytes are limited by the log.
const REPLICATED_MAX: u64 = 64;
/// Entries removed from the log at once at least.
const PURGE_MIN: u64 = 128;

/// Why a controller cannot take part.
#[derive(Debug, Error)]
pub enum StartError {
    /// The storage directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database cannot be opened.
    #[error(transparent)]
    Engine(#[from] OpenError),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// The snapshots cannot be opened.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The State cannot be brought back.
    #[error(transparent)]
    State(#[from] StateMachineError),
    /// The lives of disks cannot be read.
    #[error(transparent)]
    Lives(#[from] LivesError),
    /// Raft itself does not start.
    #[error("raft cannot be started: {0}")]
    Raft(String),
    /// A blocking task ended early: the program is stopping.
    #[error("the start was interrupted")]
    Interrupted,
}

/// The members as Raft knows them.
pub(super) fn nodes(members: &[NodeCard]) -> BTreeMap<u64, Node> {
    let place = |card: &NodeCard| Node {
        link_address: card.link_address.clone(),
        api_address: card.api_address.clone(),
    };
    members
        .iter()
        .map(|card| (card.node.0, place(card)))
        .collect()
}

pub(super) fn settings(config: &RaftConfig) -> Result<openraft::Config, StartError> {
    let settings = openraft::Config {
        cluster_name: config.cluster.to_string(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.start,
        election_timeout_max: ELECTION_MS.end,
        install_snapshot_timeout: SNAPSHOT_MS,
        max_payload_entries: REPLICATED_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        // More than one whole interval, so that the snapshot before the newest is of use with the log.
        max_in_snapshot_log_to_keep: config.snapshot_every * 9 / 4,
        replication_lag_threshold: config.snapshot_every * 4,
        purge_batch_size: PURGE_MIN,
        ..openraft::Config::default()
    };
    let checked = settings.validate();
    checked.map_err(|error| StartError::Raft(error.to_string()))
}
