//! How the controllers are. It asks each of them, and answers without a leader, too.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use dotmac_domain::access::Permission;
use dotmac_protocol::ids::NodeId;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{answer::answer, principal::Principal, problem::Problem};
use crate::{
    dispatch,
    node::Node,
    peers::{NodeStatus, PeerAnswer, PeerCall},
};

/// How long one controller may take to answer.
const STATUS_DEADLINE: Duration = Duration::from_secs(1);

/// `GET /api/v1/cluster/status`
pub(super) async fn status(
    who: Principal,
    State(node): State<Arc<Node>>,
) -> Result<Response, Problem> {
    let state = node.state();
    who.require(&state, Permission::ClusterRead, None)?;
    let statuses = ask_all(&node).await;
    // Whoever is in the highest term knows best who leads.
    let knows = statuses
        .values()
        .filter(|one| one.leader.is_some())
        .max_by_key(|one| one.term);
    let leader = knows.and_then(|one| one.leader);
    let term = statuses.values().map(|one| one.term).max();
    let nodes: Vec<Value> = node
        .genesis
        .nodes
        .iter()
        .map(|card| {
            let status = statuses.get(&card.node);
            let word = match status {
                None => "unreachable",
                Some(_) if leader == Some(card.node) => "leader",
                Some(_) => "follower",
            };
            json!({
                "id": card.node, "address": card.api_address, "link_address": card.link_address,
                "state": word,
                "pid": status.map(|one| one.pid),
                "applied": status.map(|one| one.applied),
                "agents": status.map(|one| one.agents),
                "signing": status.is_some_and(|one| one.refusals.is_empty()),
                "refusals": status.map_or(&[][..], |one| &one.refusals),
            })
        })
        .collect();
    let trust = state.trust.as_ref();
    let body = json!({
        "leader": leader, "term": term, "nodes": nodes, "answered_by": node.card.node,
        "epoch": trust.map(|trust| trust.epoch), "trust_version": trust.map(|trust| trust.version),
    });
    Ok(answer(StatusCode::OK, body))
}

/// The own status, and those of all peers that answer in time, asked at the same moment.
async fn ask_all(node: &Arc<Node>) -> BTreeMap<NodeId, NodeStatus> {
    let calls = node.peers().map(|peer| async move {
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
