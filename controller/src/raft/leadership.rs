//! Who leads, as the rest of the controller is told, and that Raft ended.

use std::collections::BTreeMap;

use dotmac_protocol::ids::NodeId;
use dotmac_runtime::{causes, metrics::Counter};
use tokio::sync::watch;

use super::{types::Raft, welcome::Unwelcome};
use crate::log::Leadership;

/// Why a controller takes part no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Raft stopped by itself.
    Broken(String),
    /// Most of the other controllers refuse it, each for its reason.
    Refused(BTreeMap<NodeId, Unwelcome>),
}

/// Passes on who leads, and that Raft ended.
pub(super) async fn watch_raft(
    raft: Raft,
    leadership: watch::Sender<Leadership>,
    ended: watch::Sender<Option<End>>,
    changes: Counter,
) {
    let mut metrics = raft.metrics();
    loop {
        let (now, running) = {
            let metrics = metrics.borrow_and_update();
            // A leader that was taken out of the members names itself for ever.
            let is_past = metrics.current_leader == Some(metrics.id)
                && metrics.state == openraft::ServerState::Learner;
            let leader = metrics.current_leader.filter(|_| !is_past);
            let now = Leadership {
                term: metrics.current_term,
                leader: leader.map(NodeId),
            };
            (now, metrics.running_state.clone())
        };
        leadership.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                changes.inc();
                tracing::info!(
                    term = now.term,
                    leader = now.leader.map(|leader| leader.0),
                    "leadership changed"
                );
                *known = now;
            }
            changed
        });
        if let Err(error) = running {
            tracing::error!(error = causes::in_full(&error), "raft stopped");
            ended.send_replace(Some(End::Broken(causes::in_full(&error))));
            return;
        }
        if metrics.changed().await.is_err() {
            ended.send_replace(Some(End::Broken("raft ended".into())));
            return;
        }
    }
}
