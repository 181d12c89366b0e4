//! When this controller stands for election although Raft would wait: Raft makes a node that ever met a longer log wait for
//! two further timeouts, also when the one with that log is the leader that just died, and does not stand again at once
//! when it is outvoted by a node that cannot win. Nothing is written meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::ServerState;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::types::Raft;

/// What elections depend on, noted where it is seen; clones share it.
#[derive(Debug, Clone)]
pub struct Elections {
    /// When this controller last heard of a leader, or gave its vote.
    heard: Arc<watch::Sender<Instant>>,
    outvoted: Arc<Notify>,
    may_stand: Arc<AtomicBool>,
}

impl Default for Elections {
    fn default() -> Self {
        Self {
            heard: Arc::new(watch::Sender::new(Instant::now())),
            outvoted: Arc::default(),
            may_stand: Arc::default(),
        }
    }
}

impl Elections {
    /// A leader was heard, or somebody was given a vote.
    pub fn heard(&self) {
        self.heard.send_replace(Instant::now());
    }

    /// A vote was refused by a node that stands itself and cannot win, because it has less of the log.
    pub fn outvoted(&self) {
        self.outvoted.notify_one();
    }

    /// Whether it is of use that this controller stands for election.
    pub(super) fn let_stand(&self, raft: &Raft, may_stand: bool) {
        self.may_stand.store(may_stand, Ordering::Relaxed);
        raft.runtime_config().elect(may_stand);
    }

    /// Stands for election when it was outvoted, and when nothing was heard of a leader for `patience`.
    pub(super) async fn run(self, raft: Raft, patience: Duration) {
        let mut heard = self.heard.subscribe();
        loop {
            let due = *heard.borrow_and_update() + patience;
            let is_due = tokio::select! {
                biased;
                () = self.outvoted.notified() => {
                    let has_leader = raft.metrics().borrow().current_leader.is_some();
                    !has_leader && self.may_stand.load(Ordering::Relaxed)
                }
                _ = heard.changed() => continue,
                () = tokio::time::sleep_until(due) => {
                    self.heard();
                    let is_follower = raft.metrics().borrow().state == ServerState::Follower;
                    is_follower && self.may_stand.load(Ordering::Relaxed)
                }
            };
            if is_due && raft.trigger().elect().await.is_err() {
                return;
            }
        }
    }
}
