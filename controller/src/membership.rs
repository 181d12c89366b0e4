//! Keeps this controller's connections in step with the State: whose certificates count. It decides nothing: who is a
//! controller, and whose keys sign, was applied before.

use std::sync::Arc;

use dotmac_domain::State;
use dotmac_protocol::digest::Digest;
use dotmac_runtime::tls::{Issuers, PinnedIssuers};

use crate::node::Node;

/// Follows the State until the process ends.
pub async fn follow(node: Arc<Node>, pinned: PinnedIssuers) {
    let mut applied = node.log.applied();
    let mut known = None;
    loop {
        let state = node.state();
        if let Some(issuers) = issuers(&state).filter(|issuers| known.as_ref() != Some(issuers)) {
            pinned.replace_by(issuers.clone());
            known = Some(issuers);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Whose certificates count by a State. Those of controllers that sign or signed vouch for agents, for an agent is
/// admitted by its key and not by its issuer: a controller that left takes no agent along.
fn issuers(state: &State) -> Option<Issuers> {
    let cluster = state.genesis.as_ref()?.cluster.clone();
    let present = state.present_controllers().map(|one| &one.card);
    let controllers = present.map(|card| (Digest::of(&card.issuer), card.node));
    let roots = state.trust_roots.values();
    let signed = roots.flat_map(|known| &known.root.controllers);
    Some(Issuers {
        cluster,
        controllers: controllers.collect(),
        agents: signed.map(|one| one.issuer).collect(),
    })
}
