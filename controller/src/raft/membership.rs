//! Who votes and who learns, as the log itself has it, and one step at a time towards what is wanted. The library's joint
//! configurations make each step safe; a step that was interrupted is gone on with by whoever leads next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dotmac_domain::{cluster::Members, command::NodeCard};
use dotmac_protocol::ids::NodeId;
use dotmac_runtime::causes;
use openraft::ChangeMembers;
use thiserror::Error;

use super::{RaftLog, config::place};

/// Entries that a controller may lack when it gets its vote.
const LAG_MAX: u64 = 256;
/// How long one step may take; the next attempt goes on with it.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// Who takes part in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    /// Who.
    pub members: Members,
    /// Whether that is applied, and no step is half done.
    pub is_settled: bool,
}

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is as wanted.
    Done,
    /// One step was done; there may be others.
    Stepped,
    /// It waits for something.
    Waits(String),
}

/// Why a step was not done.
#[derive(Debug, Error)]
pub enum SeatError {
    /// The log refuses, for example because this controller leads no more.
    #[error("the change of the members was refused: {0}")]
    Refused(String),
    /// It took too long; it may still be done.
    #[error("the change of the members took longer than {0:?}")]
    TimedOut(Duration),
}

impl RaftLog {
    /// Who takes part in the log, as this controller knows it.
    #[must_use]
    pub fn seats(&self) -> Seats {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let config = &metrics.membership_config;
        let voters: BTreeSet<NodeId> = config.voter_ids().map(NodeId).collect();
        let all = config.nodes().map(|(node, _)| NodeId(*node));
        let learners = all.filter(|node| !voters.contains(node)).collect();
        let is_whole = config.membership().get_joint_config().len() <= 1;
        Seats {
            is_settled: is_whole && config.log_id().as_ref() <= metrics.last_applied.as_ref(),
            members: Members { voters, learners },
        }
    }

    /// The controllers that this one speaks with from now on: connections to others end.
    pub fn set_controllers(&self, cards: &[NodeCard]) {
        self.roster.replace(cards);
        for card in cards.iter().filter(|card| card.node != self.node) {
            self.links.keep(card.node.0, &card.link_address);
        }
        self.links.end_unknown();
    }

    /// One step towards the wanted members; only a leader's counts. `wanted` is of a State that holds everything that was
    /// committed.
    ///
    /// # Errors
    /// When the log refuses or does not answer in time; asking again is safe.
    pub async fn seat(
        &self,
        wanted: &Members,
        cards: &BTreeMap<NodeId, NodeCard>,
    ) -> Result<Progress, SeatError> {
        let seats = self.seats();
        let Members { voters, learners } = &seats.members;
        let seated = |node: &&NodeId| voters.contains(node) || learners.contains(node);
        let mut all = wanted.voters.union(&wanted.learners);
        if let Some(card) = all
            .find(|node| !seated(node))
            .and_then(|node| cards.get(node))
        {
            let learner = BTreeMap::from([(card.node.0, place(card))]);
            return self.step(ChangeMembers::AddNodes(learner), true).await;
        }
        let is_wanted =
            |node: &NodeId| wanted.voters.contains(node) || wanted.learners.contains(node);
        if let Some(stray) = learners.iter().find(|node| !is_wanted(node)) {
            let stray = BTreeSet::from([stray.0]);
            return self.step(ChangeMembers::RemoveNodes(stray), true).await;
        }
        if seats.is_settled && *voters == wanted.voters {
            return Ok(Progress::Done);
        }
        let mut joining = wanted.voters.difference(voters);
        if let Some(reason) = joining.find_map(|node| self.lag_of(*node)) {
            return Ok(Progress::Waits(reason));
        }
        let voters = wanted.voters.iter().map(|node| node.0).collect();
        self.step(ChangeMembers::ReplaceAllVoters(voters), false)
            .await
    }

    /// Why a controller has too little to vote yet.
    fn lag_of(&self, node: NodeId) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.as_ref();
        let matched = replication.and_then(|all| *all.get(&node.0)?);
        let matched = matched.map_or(0, |log_id| log_id.index);
        let behind = last.saturating_sub(matched);
        (behind > LAG_MAX).then(|| format!("controller {node} lacks {behind} of {last} entries"))
    }

    async fn step(
        &self,
        change: ChangeMembers<u64, super::types::Node>,
        retain: bool,
    ) -> Result<Progress, SeatError> {
        // Raft lets a leader that took itself out lead for a moment more, and breaks when it changes the members then.
        let own = self.node.0;
        let is_member = self.raft.with_raft_state(move |state| {
            let members = state.membership_state.effective().membership();
            members.get_node(&own).is_some()
        });
        if !is_member.await.unwrap_or(false) {
            let reason = "this controller is none of the members any more";
            return Err(SeatError::Refused(reason.into()));
        }
        tracing::info!(detail = ?change, "the members change");
        let changing = self.raft.change_membership(change, retain);
        match tokio::time::timeout(STEP_DEADLINE, changing).await {
            Ok(Ok(_)) => Ok(Progress::Stepped),
            Ok(Err(error)) => Err(SeatError::Refused(causes::in_full(&error))),
            Err(_) => Err(SeatError::TimedOut(STEP_DEADLINE)),
        }
    }
}
