//! From sealed waves to signed intents: each controller checks a wave on its own replica, signs it, tells its peers,
//! and collects their signatures. Signatures live outside the log and can be collected again at any time.

use std::{sync::Arc, time::Duration};

use dotmac_domain::signer;
use dotmac_protocol::{keys::Signature, wave::WAVE_DOMAIN};
use dotmac_runtime::supervise;

use crate::{
    node::Node,
    peers::{PeerAnswer, PeerCall},
};

mod attest;
mod book;
mod intents;

pub use attest::{handle_call, status};
pub use book::SignatureBook;
pub use intents::{Outgoing, outgoing};

/// How long a peer may take to note or to list signatures.
const PEER_DEADLINE: Duration = Duration::from_secs(1);
/// How often missing signatures are asked for again.
const COLLECT_EVERY: Duration = Duration::from_millis(500);

/// Signs and collects until the process ends.
pub async fn run(node: Arc<Node>) {
    let mut applied = node.log.applied();
    let mut collect = tokio::time::interval(COLLECT_EVERY);
    loop {
        sign_new_waves(&node);
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            _ = collect.tick() => collect_missing(&node).await,
        }
    }
}

/// Signs every wave of this node's State that it may sign and has not signed.
fn sign_new_waves(node: &Arc<Node>) {
    let state = node.state();
    node.book.keep_only(&state);
    for number in state.waves.keys().copied() {
        if node.book.is_settled(number, node) {
            continue;
        }
        let now = node.clock.now();
        match signer::check(&state, number, now) {
            Ok(header) => {
                let signature = Signature::make(&node.signing_key, WAVE_DOMAIN, header);
                node.book.insert(number, signature.clone(), now);
                tell_peers(node, number, &signature);
            }
            Err(refusal) => {
                let reason = error_chain(&refusal);
                if node.book.refuse(number, reason.clone()) {
                    tracing::warn!(wave = number, reason, "wave not signed");
                }
            }
        }
    }
}

fn tell_peers(node: &Arc<Node>, wave: u64, signature: &Signature) {
    for peer in node.peers() {
        let (node, signature) = (Arc::clone(node), signature.clone());
        supervise::spawn("countersign", async move {
            // A lost signature is collected again by whoever misses it.
            let call = PeerCall::Countersign { wave, signature };
            if let Err(error) = node.log.call(peer, call, PEER_DEADLINE).await {
                tracing::debug!(%peer, wave, %error, "signature not delivered");
            }
        });
    }
}

/// Asks peers for the signatures that waves of this node still lack.
async fn collect_missing(node: &Arc<Node>) {
    let state = node.state();
    let threshold = node.threshold();
    for wave in node.book.lacking(&state, threshold) {
        for peer in node.peers() {
            let answer = node
                .log
                .call(peer, PeerCall::Signatures { wave }, PEER_DEADLINE)
                .await;
            if let Ok(PeerAnswer::Signatures(signatures)) = answer {
                for (signature, at) in signatures {
                    node.book.accept(&state, wave, signature, at);
                }
            }
        }
    }
}

/// An error and its causes as one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
