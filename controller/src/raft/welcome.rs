//! What the other controllers say to this one: while it does not reach a majority that takes it for one of theirs, it stands
//! for no election, which nobody could win by its help and which would take a leader down for nothing. When a majority goes
//! on refused_by it, it has no place in the cluster any more and ends.

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

/// Who refuses this controller at present, and why, and whom it refuses itself; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Welcome(Arc<watch::Sender<Words>>);

#[derive(Debug, Clone, Default)]
struct Words {
    refused_by: BTreeMap<NodeId, Unwelcome>,
    /// They have other storage than they had; nothing that they say counts.
    refuses: BTreeSet<NodeId>,
}

impl Welcome {
    /// A controller refuses this one.
    pub fn refused(&self, by: NodeId, why: Unwelcome) {
        let is_new = self
            .0
            .send_if_modified(|all| all.refused_by.insert(by, why) != Some(why));
        if is_new {
            tracing::error!(node = by.0, reason = %why, "a controller refuses this one");
        }
    }

    /// A controller took a connection of this one.
    pub fn is_known_to(&self, by: NodeId) {
        self.0.send_if_modified(|all| {
            let is_unknown = all.refused_by.get(&by) == Some(&Unwelcome::Unknown);
            is_unknown && all.refused_by.remove(&by).is_some()
        });
    }

    /// A controller answered a question of this one.
    pub fn is_heard_by(&self, by: NodeId) {
        if self.0.borrow().refused_by.contains_key(&by) {
            self.0
                .send_if_modified(|all| all.refused_by.remove(&by).is_some());
        }
    }

    /// Whether this controller refuses another one.
    pub fn refuses(&self, node: NodeId, refuses: bool) {
        if self.0.borrow().refuses.contains(&node) != refuses {
            self.0.send_if_modified(|all| {
                if refuses {
                    all.refuses.insert(node)
                } else {
                    all.refuses.remove(&node)
                }
            });
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
    let mut words = welcome.0.subscribe();
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
        let Words {
            refused_by,
            refuses,
        } = words.borrow_and_update().clone();
        let reached = connected.borrow_and_update().clone();
        let own = NodeId(metrics.borrow().id);
        let is_whole = !configs.is_empty()
            && configs.iter().all(|voters| {
                let hears = |node: &NodeId| {
                    *node == own
                        || (reached.contains(node)
                            && !refused_by.contains_key(node)
                            && !refuses.contains(node))
                };
                is_majority(voters, hears)
            });
        elections.let_stand(is_whole);
        let is_refused =
            |voters: &BTreeSet<u64>| is_majority(voters, |node| refused_by.contains_key(node));
        since = configs
            .iter()
            .any(is_refused)
            .then(|| since.unwrap_or_else(Instant::now));
        let end = since.map(|since| since + PATIENCE);
        if end.is_some_and(|end| Instant::now() >= end) {
            ended.send_if_modified(|ended| {
                let is_first = ended.is_none();
                ended.get_or_insert_with(|| End::Refused(refused_by));
                is_first
            });
            return;
        }
        let changed = async {
            tokio::select! {
                changed = metrics.changed() => changed,
                changed = words.changed() => changed,
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
