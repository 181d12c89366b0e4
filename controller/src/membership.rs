//! Keeps this controller in step with who the controllers are: whose certificates count, whom it is connected to and, while
//! it leads, who votes. It decides nothing: what is wanted was applied before, and a new leader goes on where the last one
//! stopped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dotmac_domain::{
    Command, State,
    cluster::{Members, Standing},
    command::{NodeCard, NoteMembers},
    envelope::Actor,
};
use dotmac_protocol::{digest::Digest, ids::NodeId, trust::TrustRoot};
use dotmac_runtime::{
    causes,
    tls::{Issuers, PinnedIssuers},
};

use crate::{
    bootstrap::Beginning,
    node::Node,
    raft::{
        RaftLog,
        membership::{Progress, Seats},
    },
};

/// How long a read of the State, or the note of the members, may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Pause before the next look at a change that is not finished.
const PAUSE: Duration = Duration::from_millis(250);

/// Follows the State until the process ends: pinned issuers and connections.
pub async fn follow(node: Arc<Node>, raft: Arc<RaftLog>, pinned: PinnedIssuers) {
    let mut applied = node.log.applied();
    let mut known = None;
    loop {
        let state = node.state();
        let now = issuers(&state).zip(Some(cards(&state)));
        if let Some((issuers, cards)) = now.filter(|now| known.as_ref() != Some(now)) {
            pinned.replace_by(issuers.clone());
            raft.set_controllers(&cards);
            known = Some((issuers, cards));
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// While this controller leads: brings the members of the log to what the State wants, one step at a time.
pub async fn seat(node: Arc<Node>, raft: Arc<RaftLog>) {
    let mut applied = node.log.applied();
    let mut leadership = node.log.leadership();
    let mut said = String::new();
    loop {
        let seats = raft.seats();
        note_leaving(&node, &seats);
        let is_open = node.is_leader() && !is_finished(&node.state(), &seats);
        if is_open {
            let reason = carry_on(&node, &raft).await;
            if let Some(reason) = reason.filter(|reason| *reason != said) {
                tracing::info!(reason, "a change of the controllers waits");
                said = reason;
            }
        }
        tokio::select! {
            changed = applied.changed(), if !is_open => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE), if is_open => {}
        }
    }
}

/// One step; says what it waits for.
async fn carry_on(node: &Node, raft: &RaftLog) -> Option<String> {
    // Not what this controller happens to have applied: an older State would take the newest change back.
    let state = match node.read(DEADLINE).await {
        Ok(state) => state,
        Err(error) => return Some(error.to_string()),
    };
    let cards = cards(&state).into_iter();
    let cards: BTreeMap<NodeId, NodeCard> = cards.map(|card| (card.node, card)).collect();
    match raft.seat(&state.wanted_members(), &cards).await {
        Ok(Progress::Stepped) => None,
        Ok(Progress::Waits(reason)) => Some(reason),
        Ok(Progress::Done) => {
            let Members { voters, learners } = raft.seats().members;
            let command = Command::NoteMembers(NoteMembers {
                voters: voters.into_iter().collect(),
                learners: learners.into_iter().collect(),
            });
            match node.propose(Actor::Planner, command, DEADLINE).await {
                Ok(Ok(_)) => None,
                Ok(Err(rejection)) => Some(rejection.detail),
                Err(error) => Some(error.to_string()),
            }
        }
        Err(error) => Some(causes::in_full(&error)),
    }
}

/// Whether the members are as wanted, and the State knows it.
fn is_finished(state: &State, seats: &Seats) -> bool {
    let is_noted = state
        .controllers
        .values()
        .all(|one| !matches!(one.standing, Standing::Joining | Standing::Leaving));
    state.controllers.is_empty()
        || (is_noted && seats.is_settled && seats.members == state.wanted_members())
}

/// A controller that was removed sends callers elsewhere from then on.
fn note_leaving(node: &Node, seats: &Seats) {
    let (state, own) = (node.state(), node.card.node);
    let standing = state.controllers.get(&own).map(|one| one.standing);
    let members = &seats.members;
    let has_left = match standing {
        Some(Standing::Retired) => true,
        Some(Standing::Leaving) => {
            seats.is_settled && !members.voters.contains(&own) && !members.learners.contains(&own)
        }
        _ => false,
    };
    if has_left && !node.is_stopping() {
        tracing::error!(
            node = own.0,
            "this controller was removed from the cluster: stop it"
        );
        node.stop_serving();
    }
}

/// Whose certificates count before the State is known.
#[must_use]
pub fn first_issuers(beginning: &Beginning) -> Issuers {
    let cluster = beginning.genesis.cluster.clone();
    let roots = beginning.trust_roots.iter();
    of(cluster, beginning.members.iter(), roots)
}

/// Whose certificates count by a State. Those of controllers that sign or signed vouch for agents, for an agent is
/// admitted by its key and not by its issuer: a controller that left takes no agent along.
fn issuers(state: &State) -> Option<Issuers> {
    let founded = state.genesis.as_ref();
    let cluster = founded
        .filter(|_| !state.controllers.is_empty())?
        .cluster
        .clone();
    let present = state.present_controllers().map(|one| &one.card);
    let roots = state.trust_roots.values().map(|known| &known.root);
    Some(of(cluster, present, roots))
}

fn of<'a>(
    cluster: dotmac_protocol::ids::ClusterId,
    cards: impl Iterator<Item = &'a NodeCard>,
    roots: impl Iterator<Item = &'a TrustRoot>,
) -> Issuers {
    let controllers = cards.map(|card| (Digest::of(&card.issuer), card.node));
    let signed = roots.flat_map(|root| &root.controllers);
    Issuers {
        cluster,
        controllers: controllers.collect(),
        agents: signed.map(|one| one.issuer).collect(),
    }
}

/// The cards of those that did not leave.
fn cards(state: &State) -> Vec<NodeCard> {
    let present = state.present_controllers();
    present.map(|one| one.card.clone()).collect()
}
