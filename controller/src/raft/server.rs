//! Answers the other controllers: Raft's questions, proposals, read indexes, and the product's own calls.
//!
//! It refuses peers of another life, and a second snapshot at a time. While half of the disk's reserve is used up it keeps no
//! entries of a leader that has room, and is its follower all the same.

mod receive;

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use dotmac_protocol::ids::NodeId;
use dotmac_runtime::{causes, quic, supervise};
use openraft::{
    EntryPayload,
    raft::{AppendEntriesRequest, AppendEntriesResponse},
};
use quinn::{Connection, RecvStream, SendStream};

use self::receive::{Offer, Partial};
use super::{
    batcher::Batcher,
    elections::Elections,
    links::{Links, WhoError, ends_at, who},
    lives::{Life, LivesError},
    read,
    roster::Roster,
    rpc::{Answered, Asked, CLOSE_UNKNOWN, PeerReply, PeerRequest, Refusal},
    types::{Entry, Raft, TypeConfig},
};
use crate::{
    peers::{PeerAnswer, PeerHandler},
    storage::{engine::Engine, ledger::Ledger, snapshots::Snapshots},
};

/// How long the question of an open stream may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Longest time spent on one question, whatever the asker offers.
const BUDGET_MAX: Duration = Duration::from_secs(30);

/// How long the leader waits for the answer of a full disk, so that it does not offer the same entries all the time: less
/// than it waits for any answer.
const FULL_PAUSE: Duration = Duration::from_millis(75);

/// What answering needs; clones share it.
#[derive(Clone)]
pub struct PeerServer {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) raft: Raft,
    pub(super) links: Links,
    pub(super) engine: Engine,
    pub(super) ledger: Ledger,
    pub(super) snapshots: Snapshots,
    pub(super) batcher: Batcher,
    pub(super) roster: Roster,
    pub(super) elections: Elections,
    pub(super) handler: OnceLock<Arc<dyn PeerHandler>>,
    pub(super) receiving: tokio::sync::Mutex<Option<Partial>>,
}

impl std::fmt::Debug for PeerServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PeerServer")
    }
}

impl PeerServer {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Whom the product's own calls go to; the first one stays.
    pub fn set_handler(&self, handler: Arc<dyn PeerHandler>) {
        if self.shared.handler.set(handler).is_err() {
            tracing::warn!("a second handler of peers' calls is ignored");
        }
    }

    /// Serves one connection of another controller until it ends.
    pub async fn serve(&self, connection: Connection) {
        let shared = &self.shared;
        let node = match who(&connection, &shared.roster) {
            Ok(node) => node,
            Err(error) => {
                tracing::warn!(error = causes::in_full(&error), "a peer is refused");
                let code = match error {
                    WhoError::Other { .. } => CLOSE_UNKNOWN,
                    WhoError::Peer(_) | WhoError::NotController(_) => 1,
                };
                connection.close(code.into(), error.to_string().as_bytes());
                return;
            }
        };
        quic::widen(&connection);
        shared.links.is_there(node);
        // The transport limits how many streams are open, and so how many tasks there are.
        let mut left = pin!(shared.roster.until_unknown(node));
        loop {
            let opened = tokio::select! {
                biased;
                () = &mut left => {
                    connection.close(CLOSE_UNKNOWN.into(), b"this controller has left");
                    return;
                }
                opened = connection.accept_bi() => opened,
            };
            let Ok((send, receive)) = opened else {
                return;
            };
            let shared = Arc::clone(&self.shared);
            supervise::spawn("peer question", async move {
                if let Err(error) = shared.answer(node, send, receive).await {
                    tracing::debug!(
                        node,
                        error = causes::in_full(&error),
                        "a peer got no answer"
                    );
                }
            });
        }
    }
}

impl Shared {
    async fn answer(
        &self,
        node: u64,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), quic::FrameError> {
        let arrived = tokio::time::timeout(ARRIVAL, quic::read_frame(&mut receive)).await;
        let Some(asked) = arrived.unwrap_or(Ok(None))? else {
            return Ok(());
        };
        let asked: Asked = asked;
        let offer = match asked.request {
            PeerRequest::Snapshot { vote, meta } => Offer::new(vote, *meta, None),
            PeerRequest::ResumeSnapshot { vote, meta, file } => Offer::new(vote, *meta, Some(file)),
            _ => {
                let reply = self.hear(node, asked).await;
                return self.end(&mut send, reply).await;
            }
        };
        let reply = match self.admit(node, asked.life).await {
            Ok(()) => self.receive(offer, &mut send, &mut receive).await,
            Err(refused) => refused,
        };
        self.end(&mut send, reply).await
    }

    async fn end(&self, send: &mut SendStream, reply: PeerReply) -> Result<(), quic::FrameError> {
        self.send(send, reply).await?;
        // The asker may be gone.
        let _ = send.finish();
        Ok(())
    }

    /// Answers a question of a single frame.
    pub(super) async fn hear(&self, node: u64, asked: Asked) -> PeerReply {
        if let Err(refused) = self.admit(node, asked.life).await {
            return refused;
        }
        let budget = Duration::from_millis(asked.budget_ms.into()).min(BUDGET_MAX);
        let answering = self.reply(node, asked.request, budget);
        let answered = tokio::time::timeout(budget, answering).await;
        answered.unwrap_or(PeerReply::Refused(Refusal::TimedOut))
    }

    async fn admit(&self, node: u64, life: Life) -> Result<(), PeerReply> {
        let admitted = self.links.admit(node, life).await;
        admitted.map_err(|error| {
            tracing::error!(node, %error, "a controller is refused");
            PeerReply::Refused(match error {
                LivesError::Reborn { .. } => Refusal::Reborn,
                error => Refusal::Other(error.to_string()),
            })
        })
    }

    async fn send(&self, send: &mut SendStream, reply: PeerReply) -> Result<(), quic::FrameError> {
        let life = self.links.lives().own();
        quic::write_frame(send, &Answered { life, reply }).await
    }

    async fn reply(&self, node: u64, request: PeerRequest, budget: Duration) -> PeerReply {
        match request {
            PeerRequest::Vote(request) => match self.raft.vote(request).await {
                Ok(response) => {
                    if response.vote_granted {
                        self.elections.heard();
                    }
                    PeerReply::Vote(response)
                }
                Err(error) => other(&error),
            },
            PeerRequest::Append(request) => self.append(request).await,
            PeerRequest::Propose { envelopes } => {
                let answers = self.batcher.propose_forwarded(envelopes, ends_at(budget));
                PeerReply::Proposed(answers.await)
            }
            PeerRequest::ReadIndex => match read::index_of_leader(&self.raft).await {
                Ok(index) => PeerReply::ReadIndex(index),
                Err(refusal) => PeerReply::Refused(refusal),
            },
            PeerRequest::Call(call) => match self.handler.get() {
                Some(handler) => {
                    PeerReply::Answer(Box::new(handler.handle(NodeId(node), call).await))
                }
                None => {
                    let refused = PeerAnswer::Refused("this controller is starting".into());
                    PeerReply::Answer(Box::new(refused))
                }
            },
            PeerRequest::Snapshot { .. } | PeerRequest::ResumeSnapshot { .. } => {
                PeerReply::Refused(Refusal::Other("a snapshot is not answered here".into()))
            }
        }
    }

    async fn append(&self, mut request: AppendEntriesRequest<TypeConfig>) -> PeerReply {
        let known = request.prev_log_id;
        // Whoever has nothing yet takes the first entries: Raft has no answer that says "nothing at all".
        let is_full = known.is_some()
            && carries_proposals(&request.entries)
            && self.engine.is_below_half_reserve();
        if is_full {
            request.entries.clear();
        }
        let answer = self.raft.append_entries(request).await;
        if !matches!(answer, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
            self.elections.heard();
        }
        match answer {
            // The beat counts, or this node would call for an election and take the leader down that the others have. What
            // it does not keep it does not confirm.
            Ok(AppendEntriesResponse::Success) if is_full => {
                tokio::time::sleep(FULL_PAUSE).await;
                PeerReply::Append(AppendEntriesResponse::PartialSuccess(known))
            }
            Ok(response) => PeerReply::Append(response),
            Err(error) => other(&error),
        }
    }
}

/// Whether entries are more than what Raft itself needs for a new leader or another membership.
fn carries_proposals(entries: &[Entry]) -> bool {
    let carries = |entry: &Entry| matches!(entry.payload, EntryPayload::Normal(_));
    entries.iter().any(carries)
}

fn other(error: &(dyn std::error::Error + 'static)) -> PeerReply {
    PeerReply::Refused(Refusal::Other(causes::in_full(error)))
}
