//! Linearizable reads: the leader proves that it leads and names an index; whoever reads waits until it applied that.
//!
//! All readers that wait share one proof. It refuses to call a read current when no majority answered.

use std::time::Duration;

use dotmac_runtime::{causes, supervise};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    links::Links,
    rpc::{PeerReply, PeerRequest, Refusal},
    types::Raft,
};

/// Readers that may wait.
const QUEUE_MAX: usize = 4096;
/// How long one proof may take.
const PROOF: Duration = Duration::from_millis(1_000);
/// Pause before the next attempt, unless leadership changes first.
const RETRY: Duration = Duration::from_millis(50);

type Index = Result<u64, Refusal>;

/// Asks for read indexes; clones share the queue.
#[derive(Debug, Clone)]
pub struct Reader {
    queue: mpsc::Sender<oneshot::Sender<Index>>,
    applied: watch::Receiver<u64>,
    raft: RaftMetrics,
}

type RaftMetrics = watch::Receiver<openraft::RaftMetrics<u64, super::types::Node>>;

impl Reader {
    /// Starts the one task that asks.
    pub(super) fn start(
        node: u64,
        raft: Raft,
        links: Links,
        applied: watch::Receiver<u64>,
    ) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let metrics = raft.metrics();
        let task = supervise::spawn("read index", serve(node, raft, links, waiting));
        let reader = Self {
            queue,
            applied,
            raft: metrics,
        };
        (reader, task)
    }

    /// Returns once this node has applied everything that was committed before the call.
    pub async fn barrier(&self, deadline: Instant) -> Result<(), Refusal> {
        let mut last = Refusal::TimedOut;
        let attempts = async {
            loop {
                match self.index().await {
                    Ok(index) => return self.wait_applied(index).await,
                    Err(refusal @ Refusal::Overloaded) => return Err(refusal),
                    Err(refusal) => last = refusal,
                }
                let mut metrics = self.raft.clone();
                metrics.mark_unchanged();
                let _ = tokio::time::timeout(RETRY, metrics.changed()).await;
            }
        };
        match tokio::time::timeout_at(deadline, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last),
        }
    }

    async fn index(&self) -> Index {
        let (answer, receiver) = oneshot::channel();
        match self.queue.try_send(answer) {
            Ok(()) => receiver.await.unwrap_or(Err(stopping())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(stopping()),
        }
    }

    async fn wait_applied(&self, index: u64) -> Result<(), Refusal> {
        let mut applied = self.applied.clone();
        match applied.wait_for(|applied| *applied >= index).await {
            Ok(_) => Ok(()),
            Err(_) => Err(stopping()),
        }
    }
}

/// The index that a reader must have applied, by a leader that has just proved itself.
pub(super) async fn index_of_leader(raft: &Raft) -> Index {
    match tokio::time::timeout(PROOF, raft.get_read_log_id()).await {
        Ok(Ok((index, _))) => Ok(index.map_or(0, |log_id| log_id.index)),
        Ok(Err(error)) => match error.api_error() {
            Some(openraft::error::CheckIsLeaderError::ForwardToLeader(_)) => {
                Err(Refusal::NotLeader)
            }
            // The library's words name every controller and its addresses: callers are told what it means.
            Some(openraft::error::CheckIsLeaderError::QuorumNotEnough(_)) => Err(Refusal::Other(
                "no majority of the controllers answered the leader".into(),
            )),
            None => {
                tracing::warn!(error = causes::in_full(&error), "a read was not proven");
                Err(Refusal::Other("this controller is stopping".into()))
            }
        },
        Err(_) => Err(Refusal::TimedOut),
    }
}

async fn serve(
    node: u64,
    raft: Raft,
    links: Links,
    mut queue: mpsc::Receiver<oneshot::Sender<Index>>,
) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = queue.try_recv() {
            waiting.push(next);
        }
        let leader = raft.metrics().borrow().current_leader;
        let index = match leader {
            None => Err(Refusal::NotLeader),
            Some(leader) if leader == node => index_of_leader(&raft).await,
            Some(leader) => ask_leader(leader, &raft, &links).await,
        };
        for answer in waiting {
            // Whoever waited may have given up.
            let _ = answer.send(index.clone());
        }
    }
}

/// Asks another node for the index; gives up at once when that node no longer leads.
async fn ask_leader(leader: u64, raft: &Raft, links: &Links) -> Index {
    let mut metrics = raft.metrics();
    let replaced =
        metrics.wait_for(|metrics| metrics.current_leader.is_some_and(|now| now != leader));
    let answer = tokio::select! {
        answer = links.ask(leader, PeerRequest::ReadIndex, PROOF) => answer,
        _ = replaced => return Err(Refusal::NotLeader),
    };
    match answer {
        Ok(PeerReply::ReadIndex(index)) => Ok(index),
        Ok(PeerReply::Refused(refusal)) => Err(refusal),
        Ok(_) => Err(Refusal::Other("an answer to another question".into())),
        Err(error) => Err(Refusal::Other(causes::in_full(&error))),
    }
}

fn stopping() -> Refusal {
    Refusal::Other("this controller is stopping".into())
}
