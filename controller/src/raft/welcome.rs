//! What the other controllers say to this one: while it does not reach a majority that takes it for one of theirs, it stands
//! for no election, which nobody could win by its help and which would take a leader down for nothing. When a majority goes
//! on refusing it, it has no place in the cluster any more and ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use dotmac_protocol::ids::NodeId;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{elections::Elections, leadership::End, types::Raft};

/// How long a majority refuses this controller before it ends: longer than controllers take to hear of each other's changes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why another controller refuses this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unwelcome {
    /// It is none of the controllers of the cluster.
    Unknown,
    /// It is known with other storage: what it promised and acknowledged is lost.
    Reborn,
}

impl fmt::Display for Unwelcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unknown => "it is none of the cluster's controllers: it was removed or replaced",
            Self::Reborn => "its disk was wiped: they know it with other storage than it has",
        })
    }
}

/// Who refuses this controller at present, and why; clones share it.
#[derive(Debug, Clone)]
pub struct Welcome(Arc<watch::Sender<BTreeMap<NodeId, Unwelcome>>>);

impl Default for Welcome {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Welcome {
    /// A controller refuses this one.
    pub fn refused(&self, by: NodeId, why: Unwelcome) {
        let is_new = self
            .0
            .send_if_modified(|all| all.insert(by, why) != Some(why));
        if is_new {
            tracing::error!(node = by.0, reason = %why, "a controller refuses this one");
        }
    }

    /// A controller took a connection of this one.
    pub fn is_known_to(&self, by: NodeId) {
        let is_unknown = |all: &BTreeMap<_, _>| all.get(&by) == Some(&Unwelcome::Unknown);
        self.0
            .send_if_modified(|all| is_unknown(all) && all.remove(&by).is_some());
    }

    /// A controller answered a question of this one.
    pub fn is_heard_by(&self, by: NodeId) {
        if self.0.borrow().contains_key(&by) {
            self.0.send_if_modified(|all| all.remove(&by).is_some());
        }
    }
}

/// Lets this controller stand for election only while that is of use, and tells of its end.
pub(super) async fn watch_welcome(
    raft: Raft,
    elections: Elections,
    welcome: Welcome,
    mut connected: watch::Receiver<BTreeSet<NodeId>>,
    ended: watch::Sender<Option<End>>,
) {
    let mut refused = welcome.0.subscribe();
    let mut metrics = raft.metrics();
    let mut since: Option<Instant> = None;
    loop {
        let configs = {
            let metrics = metrics.borrow_and_update();
            metrics
                .membership_config
                .membership()
                .get_joint_config()
                .clone()
        };
        let refusing = refused.borrow_and_update().clone();
        let reached = connected.borrow_and_update().clone();
        let own = NodeId(metrics.borrow().id);
        let is_whole = configs.iter().all(|voters| {
            let hears = |node: &NodeId| {
                *node == own || (reached.contains(node) && !refusing.contains_key(node))
            };
            is_majority(voters, hears)
        });
        elections.let_stand(&raft, is_whole);
        let is_refused =
            |voters: &BTreeSet<u64>| is_majority(voters, |node| refusing.contains_key(node));
        since = configs
            .iter()
            .any(is_refused)
            .then(|| since.unwrap_or_else(Instant::now));
        let end = since.map(|since| since + PATIENCE);
        if end.is_some_and(|end| Instant::now() >= end) {
            ended.send_if_modified(|ended| {
                let is_first = ended.is_none();
                ended.get_or_insert_with(|| End::Refused(refusing));
                is_first
            });
            return;
        }
        let changed = async {
            tokio::select! {
                changed = metrics.changed() => changed,
                changed = refused.changed() => changed,
                changed = connected.changed() => changed,
            }
        };
        let changed = match end {
            Some(end) => timeout_at(end, changed).await.unwrap_or(Ok(())),
            None => changed.await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Whether most of the voters are such.
fn is_majority(voters: &BTreeSet<u64>, such: impl Fn(&NodeId) -> bool) -> bool {
    let count = voters.iter().filter(|node| such(&NodeId(**node))).count();
    count > voters.len() / 2
}
