//! Whether this controller can serve, judged in one place for `/health/ready` and for the metrics, and whether it leads
//! so that it counts. It looks at memory and asks the file system once, so that it may be asked often.

use crate::node::Node;

/// Entries of the log that may wait to be applied: more than a full queue of batches, less than a restart leaves.
const BEHIND_MAX: u64 = 256;

/// The names of all checks, in their order.
pub(crate) const CHECKS: [&str; 6] = [
    "staying", "leader", "majority", "genesis", "applied", "storage",
];

/// One thing that must be so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    /// One of [`CHECKS`].
    pub(crate) name: &'static str,
    /// Whether it is so.
    pub(crate) is_ok: bool,
    /// Why it is not ready if it is not so.
    pub(crate) reason: &'static str,
}

/// What must be so for a controller to serve, and whether it is; the first that is not is the reason.
pub(crate) fn checks(node: &Node) -> [Check; 6] {
    let figures = node.log.figures();
    let waiting = figures.last_log.saturating_sub(figures.applied);
    let judged = [
        (!node.is_stopping(), "it is about to stop"),
        (
            node.log.leadership().borrow().leader.is_some(),
            "no leader is known",
        ),
        (knows_leader(node), "it leads and no majority confirms it"),
        (
            node.state().genesis.is_some(),
            "the genesis is not applied yet",
        ),
        (
            waiting <= BEHIND_MAX,
            "it applies entries that others have applied before",
        ),
        (node.log.storage().is_ok(), "its storage takes no writes"),
    ];
    let mut names = CHECKS.into_iter();
    judged.map(|(is_ok, reason)| Check {
        name: names.next().unwrap_or_default(),
        is_ok,
        reason,
    })
}

/// Whether this controller leads and a majority has confirmed that within the leader's lease.
pub(crate) fn leads(node: &Node) -> bool {
    node.is_leader() && node.log.figures().is_confirmed
}

/// Whether this controller knows a leader: another one, or itself with a majority's word.
pub(crate) fn knows_leader(node: &Node) -> bool {
    let leader = node.log.leadership().borrow().leader;
    leader.is_some_and(|leader| leader != node.card.node) || leads(node)
}
