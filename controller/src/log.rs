//! The replicated log as the rest of the controller sees it. The real one is `raft`; tests use one in memory.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use dotmac_domain::{
    Envelope, Reply, State,
    audit::{Fact, Stream},
};
use dotmac_protocol::ids::NodeId;
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;

use crate::peers::{PeerAnswer, PeerCall};

mod changes;

pub use changes::{Changes, Taken, What};

/// Who leads, as far as this controller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The Raft term.
    pub term: u64,
    /// The leader of that term; `None` while there is none.
    pub leader: Option<NodeId>,
}

/// Where the log and its disk stand on this controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Index of the last entry that is applied.
    pub applied: u64,
    /// Index of the last entry in the newest snapshot.
    pub snapshot: u64,
    /// Bytes that are free on the disk.
    pub free_bytes: u64,
    /// Free bytes below which no new writes are taken.
    pub reserve_bytes: u64,
    /// What a sync of the disk took lately, the median; zero while that is not known.
    pub sync: Duration,
    /// Whether this controller leads and a majority has confirmed that within the leader's lease.
    pub is_confirmed: bool,
}

/// A State and the entry up to which it was applied.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Index of that entry; 0 for none.
    pub index: u64,
    /// The Raft term of that entry.
    pub term: u64,
    /// The State.
    pub state: Arc<State>,
}

/// Why the log did not answer.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LogError {
    /// Nobody leads, or the leader cannot reach a majority.
    #[error("no majority of the controllers can be reached: {0}")]
    Unavailable(String),
    /// It may or may not have been accepted; asking again with the same request id is safe.
    #[error("no answer within {0:?}; asking again with the same idempotency key is safe")]
    TimedOut(Duration),
    /// Too much is waiting already; nothing was queued.
    #[error("too many changes are waiting")]
    Overloaded,
    /// This node's disk is at its reserve or failing.
    #[error("this controller's storage refuses: {0}")]
    Storage(String),
    /// The disk of whoever leads is at its reserve: no controller can get anything written. It names that controller.
    #[error("{0}")]
    LeaderStorage(String),
    /// A peer refused a call, for example because it does not agree with what it was asked to vouch for.
    #[error("controller {node} refuses: {reason}")]
    Refused { node: NodeId, reason: String },
}

/// The replicated log and what hangs on it.
pub trait Log: Send + Sync + 'static {
    /// The newest State applied on this node; cheap.
    fn state(&self) -> Arc<State>;
    /// The newest State applied on this node with its place in the log; cheap.
    fn moment(&self) -> Moment;
    /// Index of the last entry applied on this node; wakes when it changes. Carries no data on purpose.
    fn applied(&self) -> watch::Receiver<u64>;
    /// What applied entries changed, for the one who takes it.
    fn changes(&self) -> Changes;
    /// Who leads; wakes when it changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;
    /// The peers that this node has a connection to; wakes when one comes or goes.
    fn connected(&self) -> watch::Receiver<BTreeSet<NodeId>>;
    /// Proposes through whichever node leads and waits until it is applied there.
    fn propose(
        &self,
        envelope: Envelope,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Reply, LogError>>;
    /// Returns once this node's State contains everything that was committed before the call (ReadIndex).
    fn barrier(&self, deadline: Duration) -> BoxFuture<'_, Result<(), LogError>>;
    /// Whether this node's disk takes new writes; the error says why not.
    fn storage(&self) -> Result<(), String>;
    /// Where the log and its disk stand on this controller; cheap.
    fn figures(&self) -> Figures;
    /// Asks another controller something.
    fn call(
        &self,
        node: NodeId,
        call: PeerCall,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<PeerAnswer, LogError>>;
    /// Links of an audit stream from this node's ledger: those with a sequence above `after`, at most `limit`.
    fn facts(&self, stream: &Stream, after: u64, limit: usize) -> Result<Vec<Fact>, LogError>;
}
