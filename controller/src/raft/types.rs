//! The concrete Raft: what an entry holds, what applying it answers, who the nodes are. Fixed here once, so that no
//! generic parameter travels through the controller.

use std::sync::Arc;

use dotmac_domain::{Envelope, reply::Replies};
use dotmac_protocol::{codec::Format, ids::NodeId};
use dotmac_runtime::causes;
use openraft::{SnapshotMeta, StorageError, StorageIOError, StoredMembership, Vote};
use serde::{Deserialize, Serialize};

use super::runtime::RaftRuntime;
use crate::storage::snapshots::SnapshotFile;

/// Envelopes of one log entry at most.
pub const ENTRY_ENVELOPES_MAX: usize = 512;
/// Bytes of the envelopes of one log entry at most, unless a single one is larger.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

openraft::declare_raft_types!(
    /// The types of this product's Raft.
    pub TypeConfig:
        D = Proposal,
        R = Replies,
        NodeId = u64,
        Node = Node,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotData,
        AsyncRuntime = RaftRuntime,
);

/// A running Raft.
pub type Raft = openraft::Raft<TypeConfig>;
/// One log entry.
pub type Entry = openraft::Entry<TypeConfig>;
/// Where an entry is.
pub type LogId = openraft::LogId<u64>;
/// Who votes.
pub type Membership = StoredMembership<u64, Node>;
/// A vote.
pub type RaftVote = Vote<u64>;
/// What a snapshot covers.
pub type Meta = SnapshotMeta<u64, Node>;
/// A storage failure as Raft takes it: it stops.
pub type Failure = StorageError<u64>;

/// What one log entry carries: all proposals that waited together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// In order; at most [`ENTRY_ENVELOPES_MAX`]. Copies of an entry share them: it is replicated to each follower and applied.
    #[serde(with = "shared")]
    pub envelopes: Arc<Vec<Envelope>>,
}

/// Written as the list itself.
mod shared {
    use std::sync::Arc;

    use dotmac_domain::Envelope;
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        envelopes: &Arc<Vec<Envelope>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        envelopes.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Vec<Envelope>>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::new)
    }
}

/// Where a controller is found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// `host:port` (UDP) of its link.
    pub link_address: String,
    /// `host:port` of its API.
    pub api_address: String,
}

/// A snapshot in Raft's hands: a file, or nothing yet.
#[derive(Debug, Clone, Default)]
pub struct SnapshotData {
    /// The file, once there is one.
    pub file: Option<SnapshotFile>,
}

/// A stored log entry. Version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogRecord(pub Entry);

impl Format for LogRecord {
    const KIND: &'static str = "log entry";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 3 * 1024 * 1024 / 2;
}

/// A stored vote. Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VoteRecord(pub RaftVote);

impl Format for VoteRecord {
    const KIND: &'static str = "vote";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

/// A stored place in the log. Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogIdRecord(pub Option<LogId>);

impl Format for LogIdRecord {
    const KIND: &'static str = "place in the log";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

/// The header of a snapshot file. Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotHeader(pub Meta);

impl Format for SnapshotHeader {
    const KIND: &'static str = "snapshot header";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 64 * 1024;
}

/// The protocol's name of a node.
#[must_use]
pub fn node_id(node: u64) -> NodeId {
    NodeId(node)
}

/// A failure to read or write the log.
pub(crate) fn log_failure(verb: Verb, error: &(dyn std::error::Error + 'static)) -> Failure {
    let text = openraft::AnyError::error(causes::in_full(error));
    match verb {
        Verb::Read => StorageIOError::read_logs(text).into(),
        Verb::Write => StorageIOError::write_logs(text).into(),
    }
}

/// A failure of the state machine or its snapshots.
pub(crate) fn state_failure(verb: Verb, error: &(dyn std::error::Error + 'static)) -> Failure {
    let text = openraft::AnyError::error(causes::in_full(error));
    match verb {
        Verb::Read => StorageIOError::read_state_machine(text).into(),
        Verb::Write => StorageIOError::write_state_machine(text).into(),
    }
}

/// What was tried when storage failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verb {
    Read,
    Write,
}
