//! The only door to the log: everything that waits goes into one entry, one entry is under way at a time.
//!
//! On a follower the batch goes to the leader. It refuses what is too much, and never says "done" or "not done" when it
//! does not know: then the answer is that time ran out. Persons' requests are safe to propose twice, the State answers a
//! repeated request id with the first answer, so those are tried again until their deadline.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use dotmac_domain::{Envelope, Reply, envelope::Actor};
use dotmac_protocol::codec;
use dotmac_runtime::{causes, supervise};
use openraft::error::{ClientWriteError, RaftError};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    links::{AskError, Links},
    rpc::{PeerReply, PeerRequest, Refusal},
    types::{ENTRY_BYTES_MAX, ENTRY_ENVELOPES_MAX, Proposal, Raft},
};
use crate::{metrics::RaftMetrics, storage::engine::Engine, traces::Traces};

/// Proposals that may wait.
const QUEUE_MAX: usize = 4096;
/// Entries that may be under way without an answer, left by batches whose time ran out.
const UNANSWERED_MAX: u64 = 64;
/// Pause before a leader that refused is asked again, unless leadership changes first.
const RETRY: Duration = Duration::from_millis(50);

type Answer = Result<Reply, Refusal>;

/// Takes proposals; clones share the queue.
#[derive(Debug, Clone)]
pub struct Batcher {
    queue: mpsc::Sender<Waiting>,
    metrics: RaftMetrics,
}

#[derive(Debug)]
struct Waiting {
    envelope: Envelope,
    bytes: usize,
    deadline: Instant,
    /// Whether a peer sent it here because it takes this node for the leader: then it goes no further.
    forwarded: bool,
    answer: oneshot::Sender<Answer>,
}

/// What became of a batch.
enum Outcome {
    /// Answered, one by one.
    Answers(Vec<Answer>),
    /// Surely not in the log: may be tried again.
    NotProposed,
    /// Perhaps in the log.
    Unknown,
}

impl Batcher {
    /// Starts the one task that proposes.
    pub(super) fn start(proposer: Proposer) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let metrics = proposer.metrics.clone();
        let task = supervise::spawn("proposer", proposer.run(waiting));
        (Self { queue, metrics }, task)
    }

    /// Proposes through whoever leads, and waits for the answer until `deadline`.
    pub async fn propose(&self, envelope: Envelope, deadline: Instant) -> Answer {
        let answer = match self.enqueue(envelope, deadline, false) {
            Ok(answer) => wait(answer, deadline).await,
            Err(refusal) => Err(refusal),
        };
        match &answer {
            Ok(_) => &self.metrics.answered,
            Err(Refusal::TimedOut) => &self.metrics.timed_out,
            Err(_) => &self.metrics.refused,
        }
        .inc();
        answer
    }

    /// Proposes for a peer that takes this node for the leader; one answer each.
    pub async fn propose_forwarded(
        &self,
        envelopes: Vec<Envelope>,
        deadline: Instant,
    ) -> Vec<Answer> {
        let queued: Vec<_> = envelopes
            .into_iter()
            .map(|envelope| self.enqueue(envelope, deadline, true))
            .collect();
        let mut answers = Vec::with_capacity(queued.len());
        for answer in queued {
            answers.push(match answer {
                Ok(answer) => wait(answer, deadline).await,
                Err(refusal) => Err(refusal),
            });
        }
        answers
    }

    fn enqueue(
        &self,
        envelope: Envelope,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<oneshot::Receiver<Answer>, Refusal> {
        let bytes = match codec::encoded_len(&envelope) {
            Ok(bytes) => bytes,
            Err(error) => return Err(Refusal::Other(error.to_string())),
        };
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting {
            envelope,
            bytes,
            deadline,
            forwarded,
            answer,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => Ok(receiver),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err(Refusal::Other("this controller is stopping".into()))
            }
        }
    }
}

async fn wait(answer: oneshot::Receiver<Answer>, deadline: Instant) -> Answer {
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(Refusal::TimedOut),
    }
}

/// What proposing needs.
pub(super) struct Proposer {
    pub(super) node: u64,
    pub(super) raft: Raft,
    pub(super) links: Links,
    pub(super) engine: Engine,
    pub(super) traces: Traces,
    pub(super) metrics: RaftMetrics,
}

impl Proposer {
    async fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut held = VecDeque::new();
        loop {
            let first = match held.pop_front() {
                Some(first) => first,
                None => match queue.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut bytes = first.bytes;
            let mut batch = vec![first];
            while batch.len() < ENTRY_ENVELOPES_MAX {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.bytes;
                if bytes > ENTRY_BYTES_MAX {
                    held.push_back(next);
                    break;
                }
                batch.push(next);
            }
            self.settle(batch).await;
        }
    }

    /// Answers a batch, trying until each one's deadline.
    async fn settle(&self, mut batch: Vec<Waiting>) {
        let mut metrics = self.raft.metrics();
        loop {
            let now = Instant::now();
            batch.retain(|waiting| waiting.deadline > now && !waiting.answer.is_closed());
            let Some(latest) = batch.iter().map(|waiting| waiting.deadline).max() else {
                return;
            };
            let leader = metrics.borrow_and_update().current_leader;
            let outcome = match leader {
                Some(leader) if leader == self.node => self.propose_here(&batch, latest).await,
                Some(leader) => {
                    refuse_forwarded(&mut batch);
                    if batch.is_empty() {
                        return;
                    }
                    self.forward(leader, &batch, latest).await
                }
                None => Outcome::NotProposed,
            };
            match outcome {
                Outcome::Answers(answers) => {
                    batch = self.deliver(batch, answers);
                    if batch.is_empty() {
                        return;
                    }
                }
                Outcome::NotProposed => {}
                Outcome::Unknown => {
                    let repeatable =
                        batch.extract_if(.., |waiting| !is_repeatable(&waiting.envelope));
                    for waiting in repeatable {
                        let _ = waiting.answer.send(Err(Refusal::TimedOut));
                    }
                }
            }
            // Whatever changes may help: a new leader, a new connection, time.
            let _ = tokio::time::timeout(RETRY, metrics.changed()).await;
        }
    }

    /// Hands out answers; keeps what should be tried again.
    fn deliver(&self, batch: Vec<Waiting>, answers: Vec<Answer>) -> Vec<Waiting> {
        let mut again = Vec::new();
        for (waiting, answer) in batch.into_iter().zip(answers) {
            let retry = !waiting.forwarded
                && match &answer {
                    Err(Refusal::NotLeader) => true,
                    Err(Refusal::TimedOut) => is_repeatable(&waiting.envelope),
                    _ => false,
                };
            if retry {
                again.push(waiting);
            } else {
                // Whoever waited may have given up.
                let _ = waiting.answer.send(answer);
            }
        }
        again
    }

    async fn propose_here(&self, batch: &[Waiting], latest: Instant) -> Outcome {
        if let Err(error) = self.engine.check_reserve() {
            let node = self.node;
            let detail = format!("controller {node}, which leads, takes no writes: {error}");
            return refuse_all(batch, &Refusal::Reserve(detail));
        }
        let unanswered = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let applied = metrics.last_applied.map_or(0, |log_id| log_id.index);
            metrics.last_log_index.unwrap_or(0).saturating_sub(applied)
        };
        if unanswered > UNANSWERED_MAX {
            return refuse_all(batch, &Refusal::Overloaded);
        }
        let envelopes = batch.iter().map(|waiting| waiting.envelope.clone());
        let envelopes = Arc::new(envelopes.collect());
        let (started, begun) = (self.traces.now(), Instant::now());
        let writing = self.raft.client_write(Proposal { envelopes });
        // A leader that is replaced may never say what became of a write.
        let mut metrics = self.raft.metrics();
        let own = self.node;
        let replaced = metrics.wait_for(|now| now.current_leader.is_some_and(|now| now != own));
        let written = tokio::select! {
            biased;
            written = tokio::time::timeout_at(latest, writing) => written,
            _ = replaced => return Outcome::Unknown,
        };
        match written {
            Ok(Ok(written)) => {
                self.metrics.committed(begun.elapsed(), batch.len());
                for waiting in batch {
                    self.traces
                        .committed(&waiting.envelope, started, batch.len());
                }
                Outcome::Answers(written.data.0.into_iter().map(Ok).collect())
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Outcome::NotProposed
            }
            Ok(Err(error)) => {
                tracing::warn!(error = causes::in_full(&error), "a batch was not written");
                refuse_all(batch, &Refusal::Other("this controller is stopping".into()))
            }
            Err(_) => Outcome::Unknown,
        }
    }

    /// Sends a batch to the leader; gives up at once when another one leads.
    async fn forward(&self, leader: u64, batch: &[Waiting], latest: Instant) -> Outcome {
        let envelopes = batch
            .iter()
            .map(|waiting| waiting.envelope.clone())
            .collect();
        let budget = latest.saturating_duration_since(Instant::now());
        let asking = self
            .links
            .ask(leader, PeerRequest::Propose { envelopes }, budget);
        let mut metrics = self.raft.metrics();
        let replaced =
            metrics.wait_for(|metrics| metrics.current_leader.is_some_and(|now| now != leader));
        let answer = tokio::select! {
            answer = asking => answer,
            _ = replaced => return Outcome::Unknown,
        };
        match answer {
            Ok(PeerReply::Proposed(answers)) if answers.len() == batch.len() => {
                Outcome::Answers(answers)
            }
            Ok(PeerReply::Refused(Refusal::NotLeader)) => Outcome::NotProposed,
            Ok(PeerReply::Refused(Refusal::TimedOut)) => Outcome::Unknown,
            Ok(PeerReply::Refused(refusal)) => refuse_all(batch, &refusal),
            Ok(_) => refuse_all(
                batch,
                &Refusal::Other("an answer to another question".into()),
            ),
            Err(AskError::Life(error)) => refuse_all(batch, &Refusal::Other(error.to_string())),
            Err(error) if error.is_unsent() => Outcome::NotProposed,
            Err(_) => Outcome::Unknown,
        }
    }
}

fn refuse_all(batch: &[Waiting], refusal: &Refusal) -> Outcome {
    Outcome::Answers(batch.iter().map(|_| Err(refusal.clone())).collect())
}

fn refuse_forwarded(batch: &mut Vec<Waiting>) {
    for waiting in batch.extract_if(.., |waiting| waiting.forwarded) {
        let _ = waiting.answer.send(Err(Refusal::NotLeader));
    }
}

/// Whether proposing it twice is the same as once.
fn is_repeatable(envelope: &Envelope) -> bool {
    matches!(envelope.actor, Actor::Person(_))
}
