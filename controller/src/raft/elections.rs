//! When this controller stands for election. Raft's own clock is switched off: it makes a node that ever met a longer log wait
//! for two further timeouts, also when the one with that log is the leader that just died; it does not stand again at once
//! when it is outvoted by a node that cannot win; and a process that was stopped for a while finds its timeout over before it
//! has read what the leader said meanwhile, and would take a healthy leader down.

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
    pub(super) fn let_stand(&self, may_stand: bool) {
        if self.may_stand.swap(may_stand, Ordering::Relaxed) != may_stand {
            // A leader that is there has reached it by the time it would stand.
            self.heard();
        }
    }

    /// Stands for election when it was outvoted, and when nothing was heard for too long. Who wakes up too late was stopped
    /// himself, and listens once more before he judges.
    pub(super) async fn run(self, raft: Raft, patience: Patience) {
        let mut heard = self.heard.subscribe();
        let (mut borne, mut was_stopped) = (patience.first, false);
        loop {
            let due = *heard.borrow_and_update() + borne;
            let is_due = tokio::select! {
                biased;
                () = self.outvoted.notified() => raft.metrics().borrow().current_leader.is_none(),
                _ = heard.changed() => {
                    was_stopped = false;
                    if raft.metrics().borrow().current_leader.is_some() {
                        borne = patience.leader;
                    }
                    continue;
                }
                () = tokio::time::sleep_until(due) => {
                    self.heard();
                    // Once only: a machine that is always late must not wait for ever.
                    was_stopped = !was_stopped && due.elapsed() > patience.late;
                    let state = raft.metrics().borrow().state;
                    !was_stopped && matches!(state, ServerState::Follower | ServerState::Candidate)
                }
            };
            if is_due && self.may_stand.load(Ordering::Relaxed) {
                borne = patience.first;
                if raft.trigger().elect().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// How long a controller waits before it stands for election.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// While it has heard of no leader since it started, and after it stood in vain.
    pub(super) first: Duration,
    /// After it has heard of a leader: longer than the lease that others grant a leader.
    pub(super) leader: Duration,
    /// How much later than it wanted a controller wakes up that was itself stopped, rather than its leader.
    pub(super) late: Duration,
}
