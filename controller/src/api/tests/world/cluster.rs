//! What is asked of the cluster itself: cards of controllers, and trust roots signed by the tests' root key.

use dotmac_protocol::{
    codec,
    ids::Epoch,
    keys::Signature,
    trust::{SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use super::World;
use crate::trust_root;

/// The card of a controller that is not known.
pub(in crate::api::tests) fn card(node: u64) -> Value {
    json!({
        "node": node, "incarnation": format!("{node:032x}"),
        "link_address": format!("127.0.0.1:{}", 7000 + node),
        "api_address": format!("127.0.0.1:{}", 8000 + node),
        "signing_key": format!("{node:064x}"), "issuer": format!("{node:04x}"),
    })
}

/// The next trust root, with a higher epoch, as the API takes it.
pub(in crate::api::tests) fn next_trust_root(world: &World) -> String {
    let state = world.node.state();
    let trust = state.trust.as_ref().unwrap();
    let epoch = Epoch(trust.epoch.0 + 1);
    signed(&trust_root::next(trust, trust.controllers.clone(), epoch))
}

/// A trust root signed by the root key, as the API takes it.
pub(in crate::api::tests) fn signed(root: &TrustRoot) -> String {
    let body = codec::encode(root).unwrap();
    let key = SigningKey::from_bytes(&[2; 32]);
    let signatures = vec![Signature::make(&key, TRUST_ROOT_DOMAIN, &body)];
    hex::encode(codec::encode(&SignedTrustRoot { body, signatures }).unwrap())
}
