//! How the controllers are. It asks each of them, and answers without a leader, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{OriginalUri, State},
    http::StatusCode,
    response::Response,
};
use dotmac_domain::{access::Permission, cluster::Standing, command::NodeCard};
use dotmac_protocol::ids::NodeId;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{
    answer::answer,
    backups,
    fields::Fields,
    operation::{Operation, Scope},
    principal::Principal,
    problem::Problem,
    schema,
};
use crate::{
    dispatch,
    node::Node,
    peers::{Description, NodeStatus, PeerAnswer, PeerCall, StateDigest},
};

mod controllers;
mod finalize;
mod health;
mod shapes;
mod trust_roots;

pub(crate) use health::Noticed;

use health::Found;

/// How long one controller may take to answer.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);
/// How long one controller may take for the digest of its State.
const DIGEST_DEADLINE: Duration = Duration::from_secs(5);
/// Where the whole tells how it is.
const HEALTH: &str = "/api/v1/tenant-orchestration/cluster/health";

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let about = "Asks every controller, and answers without a leader, too.";
    let digests = "also tell the digest of each controller's State; `applied` is then where that one stood, and controllers \
                   with equal `applied` and other digests disagree";
    let reasons = "`unhealthy` when something is not taken or not done any more, `degraded` when not all is as it should \
                   be; each reason with since when and who can change it.";
    let own = vec![
        Operation::look("cluster.status", "/api/v1/cluster/status", status)
            .says("How the controllers are", about)
            .needs(&[Permission::ClusterRead], Scope::Platform)
            .query("digests", schema::flag(), digests)
            .answers(StatusCode::OK, "What they say", schema::of("ClusterStatus")),
        Operation::look("cluster.health", HEALTH, health)
            .says("Whether the whole is well", reasons)
            .needs(&[Permission::ClusterRead], Scope::Platform)
            .answers(StatusCode::OK, "How it is", schema::of("ClusterHealth")),
        finalize::operation(),
    ];
    [own, controllers::operations(), trust_roots::operations()].concat()
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let parts = [
        shapes::schemas(),
        controllers::schemas(),
        trust_roots::schemas(),
    ];
    parts.concat()
}

async fn status(
    who: Principal,
    State(node): State<Arc<Node>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let state = node.state();
    who.require(&state, Permission::ClusterRead, None)?;
    let mut query = Fields::of_query(uri.query())?;
    let is_asked = query.flag("digests").unwrap_or_default();
    query.finish()?;
    let digests = async {
        match is_asked {
            true => digests_of_all(&node).await,
            false => BTreeMap::new(),
        }
    };
    let (found, digests) = futures::join!(find(&node), digests);
    let (leader, statuses) = (found.leader(), &found.statuses);
    let newest = found.newest();
    let nodes: Vec<Value> = node
        .controllers()
        .iter()
        .map(|card| {
            let (status, told) = (statuses.get(&card.node), found.descriptions.get(&card.node));
            let known = state.controllers.get(&card.node);
            let standing = known.map_or(Standing::Voter, |known| known.standing);
            let digest = digests.get(&card.node);
            let applied = status.map(|one| one.applied);
            let word = match status {
                None => "unreachable",
                Some(_) if leader == Some(card.node) => "leader",
                Some(_) if matches!(standing, Standing::Learner | Standing::Joining) => "learner",
                Some(_) => "follower",
            };
            let behind = status.and_then(|one| Some(newest?.saturating_sub(one.applied)));
            json!({
                "id": card.node, "address": card.api_address, "link_address": card.link_address,
                "state": word, "standing": standing.as_str(), "incarnation": card.incarnation,
                "signs": state.signs(card.node), "behind": behind,
                "pid": status.map(|one| one.pid),
                "applied": digest.map(|one| one.applied).or(applied),
                "state_digest": digest.map(|one| one.digest.to_string()),
                "agents": status.map(|one| one.agents),
                "signing": state.signs(card.node) && status.is_some_and(|one| one.refusals.is_empty()),
                "refusals": status.map_or(&[][..], |one| &one.refusals),
                "software": told.map(|one| &one.software),
                "rules_supported": told.map(|one| one.rules_newest),
                "slow_disk": told.and_then(|one| one.slow_disk.as_ref()),
            })
        })
        .collect();
    let trust = state.trust.as_ref();
    let body = json!({
        "leader": leader, "term": found.term(), "nodes": nodes, "answered_by": node.card.node,
        "epoch": trust.map(|trust| trust.epoch), "trust_version": trust.map(|trust| trust.version),
        "rules": finalize::in_force(&state), "rules_next": finalize::next(&state, &found),
        "unfinished": state.unfinished_change().map(|one| {
            json!({"controller": one.node, "waits_for": one.waits_for})
        }),
        "backups": backups::status_of(&node, &state),
    });
    Ok(answer(StatusCode::OK, body))
}

async fn health(
    who: Principal,
    State(node): State<Arc<Node>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let state = node.state();
    who.require(&state, Permission::ClusterRead, None)?;
    Fields::of_query(uri.query())?.finish()?;
    let found = find(&node).await;
    let body = health::shown(&state, &found, &node.noticed, node.card.node);
    Ok(answer(StatusCode::OK, body))
}

/// The controllers as this one sees them, without asking anybody: what events tell.
pub(super) fn seen(node: &Node, state: &dotmac_domain::State) -> Value {
    let leadership = *node.log.leadership().borrow();
    let connected = node.log.connected().borrow().clone();
    let controllers: Vec<Value> = node
        .controllers()
        .iter()
        .map(|card| {
            let is_here = card.node == node.card.node || connected.contains(&card.node);
            json!({"id": card.node, "connected": is_here})
        })
        .collect();
    let trust = state.trust.as_ref();
    json!({
        "leader": leadership.leader, "term": leadership.term, "seen_by": node.card.node,
        "controllers": controllers,
        "epoch": trust.map(|trust| trust.epoch), "trust_version": trust.map(|trust| trust.version),
    })
}

impl Found {
    /// How many of these answered.
    fn reachable(&self, nodes: &BTreeSet<NodeId>) -> usize {
        let answered = nodes.iter().filter(|node| self.statuses.contains_key(node));
        answered.count()
    }

    /// Which of these did not answer, in words.
    fn away(&self, nodes: &BTreeSet<NodeId>) -> String {
        let away = nodes
            .iter()
            .filter(|node| !self.statuses.contains_key(node));
        let names: Vec<String> = away.map(ToString::to_string).collect();
        format!("no answer from controller {}", names.join(", "))
    }
}

async fn find(node: &Arc<Node>) -> Found {
    let (statuses, descriptions) = tokio::join!(ask_all(node), describe_all(node));
    let state = node.state();
    let votes = |card: &NodeCard| {
        let known = state.controllers.get(&card.node);
        known.is_none_or(|one| !matches!(one.standing, Standing::Learner | Standing::Joining))
    };
    let all = node.controllers();
    Found {
        controllers: all
            .iter()
            .filter(|card| votes(card))
            .map(|card| card.node)
            .collect(),
        signers: state
            .signing_controllers()
            .map(|one| one.card.node)
            .collect(),
        statuses,
        descriptions,
        threshold: node.threshold(),
        now: node.clock.now(),
    }
}

/// The own status, and those of all peers that answer in time, asked at the same moment.
async fn ask_all(node: &Arc<Node>) -> BTreeMap<NodeId, NodeStatus> {
    let calls = node.peers().into_iter().map(|peer| async move {
        let call = node.log.call(peer, PeerCall::Status, STATUS_DEADLINE);
        match tokio::time::timeout(STATUS_DEADLINE, call).await {
            Ok(Ok(PeerAnswer::Status(status))) if status.node == peer => Some((peer, status)),
            _ => None,
        }
    });
    let mut statuses: BTreeMap<_, _> = join_all(calls).await.into_iter().flatten().collect();
    statuses.insert(node.card.node, dispatch::status(node));
    statuses
}

/// What all controllers are, as far as their programs can say it.
async fn describe_all(node: &Arc<Node>) -> BTreeMap<NodeId, Description> {
    let calls = node.peers().into_iter().map(|peer| async move {
        let call = node.log.call(peer, PeerCall::Describe, STATUS_DEADLINE);
        match tokio::time::timeout(STATUS_DEADLINE, call).await {
            Ok(Ok(PeerAnswer::Described(told))) if told.node == peer => Some((peer, told)),
            _ => None,
        }
    });
    let mut told: BTreeMap<_, _> = join_all(calls).await.into_iter().flatten().collect();
    told.insert(node.card.node, dispatch::describe(node));
    told
}

/// The own digest, and those of all peers that answer in time.
async fn digests_of_all(node: &Arc<Node>) -> BTreeMap<NodeId, StateDigest> {
    let calls = node.peers().into_iter().map(|peer| async move {
        let call = node.log.call(peer, PeerCall::Digest, DIGEST_DEADLINE);
        match tokio::time::timeout(DIGEST_DEADLINE, call).await {
            Ok(Ok(PeerAnswer::Digest(digest))) => Some((peer, digest)),
            _ => None,
        }
    });
    let own = node.digests.newest(node.log.as_ref());
    let (others, own) = futures::join!(join_all(calls), own);
    let mut digests: BTreeMap<_, _> = others.into_iter().flatten().collect();
    digests.extend(own.map(|own| (node.card.node, own)));
    digests
}
