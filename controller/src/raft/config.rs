//! How one controller takes part, and why it cannot. Raft's timing is decided here: a lost leader is replaced within two
//! seconds, later only where the disk is too slow for that.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::ids::{ClusterId, NodeId};
use openraft::SnapshotPolicy;
use thiserror::Error;

use super::{
    elections::Patience, lives::LivesError, log_store::LogStoreError, mark::StoreMark,
    state_machine::StateMachineError, types::Node,
};
use crate::{
    metrics::RaftMetrics,
    storage::{
        directory::DirectoryError,
        engine::{EngineConfig, OpenError},
        ledger::LedgerError,
        pace::Pace,
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
    /// All controllers, this one too, as far as they are known before the State is.
    pub members: Vec<NodeCard>,
    /// Whether it founds the cluster with them; one that joins waits until it is spoken to.
    pub founds: bool,
    /// Where everything is kept.
    pub directory: PathBuf,
    /// Where it is noted which store belongs to this controller's keys; none in tests that need no such note.
    pub mark: Option<StoreMark>,
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
/// Milliseconds of a sync that the shortest timing still bears: a vote, or an entry, waits for two of them.
const SYNC_BORNE_MS: u64 = 40;
/// Milliseconds of a sync beyond which the timing does not grow any more: a lost leader must not be missed for long.
const SYNC_MS_MAX: u64 = 1_000;

/// Raft's timing on one controller. It follows the disk: a node answers a vote when it has synced it, behind the batch that is
/// being synced already, and a leader sends no heartbeat while it syncs an entry. With a timing shorter than that, votes come
/// too late for their election, and the next one is called, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// Milliseconds between heartbeats; also how long an answer to entries is waited for.
    pub(super) heartbeat_ms: u64,
    /// Milliseconds after which a node stands for election at the earliest and at the latest, while there is no leader; twice
    /// as many, and two heartbeats, after it has heard of one. Each node has a part of them for itself ([`Self::of`]).
    election_ms: (u64, u64),
}

/// Into how many parts the time of an election is cut.
const TURNS: u64 = 3;

impl Timing {
    /// For good disks: a dead leader is followed by another after 0.9 to 2 s.
    pub(super) const SHORTEST: Self = Self {
        heartbeat_ms: 100,
        election_ms: (400, 1_000),
    };

    /// The part of the time in which this node stands for election: two nodes that stood at the same moment would both fail,
    /// and once more after that. Nodes with numbers next to each other are two heartbeats apart.
    fn of(self, node: NodeId) -> (u64, u64) {
        let (earliest, latest) = self.election_ms;
        let part = (latest - earliest) / TURNS;
        let first = earliest + node.0 % TURNS * part;
        (first, first + part / 8)
    }

    /// The timing that the disk of this controller allows, which is told when it is not the shortest.
    pub(super) fn of_disk(pace: &Pace) -> Self {
        let sync = pace.fastest().unwrap_or_default();
        let timing = Self::for_sync(sync);
        if timing != Self::SHORTEST {
            let sync_ms = u64::try_from(sync.as_millis()).unwrap_or(u64::MAX);
            let heartbeat_ms = timing.heartbeat_ms;
            tracing::warn!(
                sync_ms,
                heartbeat_ms,
                "the disk is slow: elections take longer"
            );
        }
        timing
    }

    /// How long this node waits before it stands for election.
    pub(super) fn patience(self, node: NodeId) -> Patience {
        let (_, latest) = self.of(node);
        Patience {
            first: Duration::from_millis(latest),
            leader: Duration::from_millis(2 * (latest + self.heartbeat_ms)),
            late: Duration::from_millis(2 * self.heartbeat_ms),
        }
    }

    /// The timing for a disk whose sync takes so long: two syncs between heartbeats and five for an election, at most
    /// those of a second. A lost leader is then missed for up to twenty-five syncs.
    fn for_sync(sync: Duration) -> Self {
        let sync_ms = u64::try_from(sync.as_millis()).unwrap_or(u64::MAX);
        if sync_ms <= SYNC_BORNE_MS {
            return Self::SHORTEST;
        }
        let sync_ms = sync_ms.min(SYNC_MS_MAX);
        let shortest = Self::SHORTEST;
        let earliest = (5 * sync_ms).max(shortest.election_ms.0);
        Self {
            heartbeat_ms: (2 * sync_ms).max(shortest.heartbeat_ms),
            election_ms: (earliest, earliest * 5 / 2),
        }
    }

    /// Milliseconds for which a majority's word counts: within them no other controller stands for election.
    pub(super) fn lease_ms(self) -> u64 {
        2 * self.election_ms.0
    }
}

/// Milliseconds that sending and installing a snapshot may take.
const SNAPSHOT_MS: u64 = 120_000;
/// Entries replicated at once at most; their bytes are limited by the log.
const REPLICATED_MAX: u64 = 64;
/// Entries removed from the log at once at least.
const PURGE_MIN: u64 = 128;

/// Bytes that must be free for a start: what the database takes at once, and a vote. Far below the reserve, at which a
/// controller starts and takes no new writes.
pub(super) const START_BYTES_MIN: u64 = 16 << 20;

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
    /// The disk has no room for what a start writes.
    #[error("the disk of {path} has {free_bytes} bytes left, and a start needs {START_BYTES_MIN}")]
    NoRoom {
        /// The storage directory.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
    },
    /// The store is not the one that this controller had.
    #[error(
        "the store in {store} is not the one that {mark} notes: the disk was wiped, and what this controller promised and \
         acknowledged is lost"
    )]
    Wiped {
        /// The storage directory.
        store: PathBuf,
        /// The file that notes which store it was.
        mark: PathBuf,
    },
    /// The note of the store cannot be read or written.
    #[error("{path}, which notes the store of this controller, cannot be used")]
    Mark {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The log begins behind the newest readable snapshot.
    #[error(
        "the newest readable snapshot ends at entry {snapshot}, and the log before entry {purged} is gone: the snapshots in \
         {path} are damaged"
    )]
    Gap {
        /// The last entry in the snapshot; 0 without one.
        snapshot: u64,
        /// The last entry that was removed from the log.
        purged: u64,
        /// The storage directory.
        path: PathBuf,
    },
    /// Raft itself does not start.
    #[error("raft cannot be started: {0}")]
    Raft(String),
    /// A blocking task ended early: the program is stopping.
    #[error("the start was interrupted")]
    Interrupted,
}

/// The members as Raft knows them.
pub(super) fn nodes(members: &[NodeCard]) -> BTreeMap<u64, Node> {
    members
        .iter()
        .map(|card| (card.node.0, place(card)))
        .collect()
}

/// Where a member is found.
pub(super) fn place(card: &NodeCard) -> Node {
    Node {
        link_address: card.link_address.clone(),
        api_address: card.api_address.clone(),
    }
}

pub(super) fn settings(
    config: &RaftConfig,
    timing: Timing,
) -> Result<openraft::Config, StartError> {
    let (earliest, latest) = timing.of(config.node);
    let settings = openraft::Config {
        cluster_name: config.cluster.to_string(),
        // Who stands and when is decided in `elections`.
        enable_elect: false,
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: earliest,
        election_timeout_max: latest,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dotmac_protocol::ids::NodeId;

    use super::Timing;

    #[test]
    fn the_timing_follows_the_disk_within_bounds() {
        let timing = |ms| Timing::for_sync(Duration::from_millis(ms));
        assert_eq!(timing(0), Timing::SHORTEST);
        assert_eq!(timing(40), Timing::SHORTEST);
        let slow = timing(500);
        assert_eq!(
            (slow.heartbeat_ms, slow.election_ms),
            (1_000, (2_500, 6_250))
        );
        assert_eq!(timing(1_000), timing(60_000));
        assert_eq!(timing(60_000).lease_ms(), 10_000);
        assert_eq!(timing(0).of(NodeId(3)), (400, 425));
        for node in (1..=5).map(NodeId) {
            let borne = timing(0).patience(node).leader;
            let by_itself = Duration::from_millis(2 * timing(0).of(node).1);
            assert!(
                by_itself < borne && borne < Duration::from_secs(2),
                "{node}: {borne:?}"
            );
        }
        assert_eq!(timing(0).of(NodeId(1)), (600, 625));
        assert_eq!(timing(0).of(NodeId(2)), (800, 825));
        for ms in (0..2_000).step_by(7) {
            let (one, next) = (timing(ms), timing(ms + 7));
            assert!(2 * one.heartbeat_ms < one.election_ms.0, "{ms}: {one:?}");
            assert!(
                one.election_ms <= next.election_ms,
                "{ms}: {one:?} {next:?}"
            );
        }
    }
}
