//! What only a leader does: run the planners, and decide from what gateways hear which agents came and went.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{
    Accepted, Command,
    desired::decode_leaves,
    envelope::Actor,
    plan,
    retention::{self, Kept},
};

use crate::{
    node::Node,
    peers::{HeardAgent, PeerCall},
};

mod liveness;

pub use liveness::Liveness;

/// How long a planner's command may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often gateways tell the leader whom they hear, and how often it looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// How often the leader looks for facts that were kept for long enough.
const RETENTION_TICK: Duration = Duration::from_secs(600);
/// How soon the planners look again after something was refused or did not get through.
const RETRY: Duration = Duration::from_millis(250);

/// Runs the planners whenever this controller leads, until the process ends.
pub async fn run_planners(node: Arc<Node>) {
    let mut applied = node.log.applied();
    let mut leadership = node.log.leadership();
    loop {
        let pause = if node.is_leader() {
            carry_on(&node).await
        } else {
            TICK
        };
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One planning round; returns when to look again at the latest.
async fn carry_on(node: &Arc<Node>) -> Duration {
    let now = node.clock.now();
    let state = node.state();
    if state.genesis.is_none() {
        return found(node).await;
    }
    for command in plan::plan(&state, now) {
        let started = node.traces.now();
        match node.propose(Actor::Planner, command, DEADLINE).await {
            Ok(Ok(Accepted::Wave(number))) => trace_sealed(node, number, started),
            Ok(Ok(_)) => {}
            Ok(Err(rejection)) => {
                tracing::warn!(
                    code = rejection.code.as_str(),
                    detail = rejection.detail,
                    "planner refused"
                );
                return RETRY;
            }
            Err(error) => {
                tracing::debug!(%error, "planner's command did not get through");
                return RETRY;
            }
        }
    }
    let due = plan::next_due(&node.state());
    due.map_or(TICK, |due| {
        Duration::from_millis(due.millis_since(now).max(1)).min(TICK)
    })
}

fn trace_sealed(node: &Node, number: u64, started: u64) {
    let state = node.state();
    let wave = state.waves.get(&number);
    if let Some(wave) = wave.filter(|_| node.traces.spans().is_on()) {
        for leaf in decode_leaves(wave) {
            node.traces.sealed(&leaf, number, started);
        }
    }
}

/// Proposes the first entry of the cluster: what every controller's genesis file says.
async fn found(node: &Arc<Node>) -> Duration {
    let command = Command::Found(Box::new((*node.genesis).clone()));
    match node.propose(Actor::Founder, command, DEADLINE).await {
        Ok(Ok(_)) => Duration::ZERO,
        Ok(Err(rejection)) => {
            tracing::error!(detail = rejection.detail, "the cluster was not founded");
            TICK
        }
        Err(error) => {
            tracing::debug!(%error, "the cluster is not founded yet");
            RETRY
        }
    }
}

/// Asks, whenever this controller leads, to drop the facts that were kept for long enough.
pub async fn run_retention(node: Arc<Node>, kept: Kept) {
    let mut tick = tokio::time::interval(RETENTION_TICK);
    loop {
        tick.tick().await;
        while node.is_leader()
            && let Some(command) = retention::due(&node.state(), kept, node.clock.now())
        {
            match node.propose(Actor::Planner, command, DEADLINE).await {
                Ok(Ok(_)) => {}
                Ok(Err(rejection)) => {
                    tracing::warn!(detail = rejection.detail, "facts are not dropped");
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, "facts are not dropped yet");
                    break;
                }
            }
        }
    }
}

/// Tells the leader whom this gateway hears: at every change, and once a second.
pub async fn run_hearing(node: Arc<Node>, liveness: Liveness) {
    let mut changes = node.registry.changes();
    let mut leadership = node.log.leadership();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        let agents: Vec<HeardAgent> = node.registry.heard();
        let leader = leadership.borrow_and_update().leader;
        match leader {
            Some(leader) if leader == node.card.node => {
                liveness.hear(leader, agents, node.clock.now());
                note_transitions(&node, &liveness).await;
            }
            Some(leader) => {
                if let Err(error) = node.log.call(leader, PeerCall::Hear { agents }, TICK).await {
                    tracing::debug!(leader = leader.0, %error, "the leader did not hear");
                }
            }
            None => {}
        }
    }
}

/// Proposes the transitions that follow from what the leader heard.
async fn note_transitions(node: &Arc<Node>, liveness: &Liveness) {
    let leadership = *node.log.leadership().borrow();
    let changes = liveness.transitions(&node.state(), leadership.term, node.clock.now());
    if changes.is_empty() {
        return;
    }
    let command = Command::NotePresence { changes };
    if let Err(error) = node.propose(Actor::Planner, command, DEADLINE).await {
        tracing::debug!(%error, "presence not noted");
    }
}

/// Wakes the hearing loop of a leader when a peer reported, so that a new agent is known at once.
pub async fn run_liveness(node: Arc<Node>, liveness: Liveness) {
    let mut heard = liveness.changes();
    while heard.changed().await.is_ok() {
        if node.is_leader() {
            note_transitions(&node, &liveness).await;
        }
    }
}
