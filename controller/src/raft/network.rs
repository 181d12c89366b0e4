//! Raft's way to the other nodes. Every question has Raft's own deadline; a snapshot goes as one stream.

mod transfer;

use dotmac_runtime::causes;
use std::{future::Future, time::Duration};

use openraft::{
    AnyError, OptionalSend, Snapshot,
    error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::{
    elections::Elections,
    links::{AskError, Links},
    rpc::{PeerReply, PeerRequest},
    types::{Node, RaftVote, TypeConfig},
};
use crate::storage::ledger::Ledger;

/// Pause between attempts to reach a node that is away.
const BACKOFF: Duration = Duration::from_millis(200);

type Failed = RPCError<u64, Node, RaftError<u64>>;

/// Makes the way to each node.
#[derive(Debug, Clone)]
pub struct Network {
    links: Links,
    ledger: Ledger,
    elections: Elections,
}

impl Network {
    /// A network over kept connections; `ledger` gives the facts that go with a snapshot. `elections` is told
    /// when a vote was refused by a node that cannot win.
    #[must_use]
    pub fn new(links: Links, ledger: Ledger, elections: Elections) -> Self {
        Self {
            links,
            ledger,
            elections,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Node) -> Way {
        self.links.keep(target, &node.link_address);
        Way {
            target,
            links: self.links.clone(),
            ledger: self.ledger.clone(),
            elections: self.elections.clone(),
        }
    }
}

/// The way to one node.
#[derive(Debug)]
pub struct Way {
    target: u64,
    links: Links,
    ledger: Ledger,
    elections: Elections,
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let request = PeerRequest::Append(rpc);
        match self
            .links
            .ask(self.target, request, option.hard_ttl())
            .await
        {
            Ok(PeerReply::Append(response)) => Ok(response),
            other => Err(failed(other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        let request = PeerRequest::Vote(rpc.clone());
        match self
            .links
            .ask(self.target, request, option.hard_ttl())
            .await
        {
            Ok(PeerReply::Vote(response)) => {
                if is_outvoted(&rpc, &response) {
                    self.elections.outvoted();
                }
                Ok(response)
            }
            other => Err(failed(other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let sending = transfer::send(&self.links, &self.ledger, self.target, vote, snapshot);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = tokio::time::timeout(option.hard_ttl(), sending) => match sent {
                Ok(Ok(vote)) => Ok(SnapshotResponse::new(vote)),
                Ok(Err(error)) => {
                    tracing::warn!(node = self.target, error = causes::in_full(&error), "snapshot not sent");
                    Err(Unreachable::new(&AnyError::error(causes::in_full(&error))).into())
                }
                Err(_) => Err(Unreachable::new(&AnyError::error("the snapshot took too long")).into()),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// Whether a vote was refused only because the other node stands itself, with a greater vote and less of the log: then nobody
/// wins this term, and whoever has more of the log wins the next one at once.
fn is_outvoted(asked: &VoteRequest<u64>, answered: &VoteResponse<u64>) -> bool {
    !answered.vote_granted
        && !answered.vote.committed
        && answered.vote > asked.vote
        && answered.last_log_id < asked.last_log_id
}

/// What Raft is told: to pause when the node is away or refuses, to try again when an answer was lost.
fn failed(outcome: Result<PeerReply, AskError>) -> Failed {
    match outcome {
        Err(
            error @ (AskError::Late { .. } | AskError::Lost { .. } | AskError::NoAnswer { .. }),
        ) => NetworkError::new(&AnyError::error(causes::in_full(&error))).into(),
        Err(error) => Unreachable::new(&AnyError::error(causes::in_full(&error))).into(),
        Ok(PeerReply::Refused(refusal)) => {
            Unreachable::new(&AnyError::error(format!("refused: {refusal:?}"))).into()
        }
        Ok(_) => Unreachable::new(&AnyError::error("an answer to another question")).into(),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{
        CommittedLeaderId, Vote,
        raft::{VoteRequest, VoteResponse},
    };

    use super::is_outvoted;
    use crate::raft::types::LogId;

    #[test]
    fn only_a_candidate_that_cannot_win_is_stood_against_at_once() {
        let at = |index| Some(LogId::new(CommittedLeaderId::new(7, 1), index));
        let asked = VoteRequest::new(Vote::new(8, 2), at(20));
        let refused = |vote, index| VoteResponse::new(vote, at(index), false);
        assert!(is_outvoted(&asked, &refused(Vote::new(8, 3), 19)));
        assert!(!is_outvoted(&asked, &refused(Vote::new(8, 3), 20)));
        assert!(!is_outvoted(
            &asked,
            &refused(Vote::new_committed(8, 3), 19)
        ));
        assert!(!is_outvoted(
            &asked,
            &refused(Vote::new_committed(7, 1), 19)
        ));
        let granted = VoteResponse::new(Vote::new(8, 2), at(19), true);
        assert!(!is_outvoted(&asked, &granted));
    }
}
