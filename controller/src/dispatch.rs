//! From what is sealed to what is signed, waves and clocks alike: each controller checks it on its own replica, signs it,
//! tells its peers, and collects their signatures. These live outside the log and can be collected again at any time.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{State, clock, desired::decode_leaves, signer};
use dotmac_protocol::{
    keys::{PublicKey, Signature},
    time::Timestamp,
};
use dotmac_runtime::{causes, supervise};

use self::signable::{Signable, subjects};
use crate::{
    node::Node,
    peers::{PeerAnswer, PeerCall, Subject},
};

mod attest;
mod book;
mod clocks;
mod intents;
mod signable;

pub use attest::{Answering, describe, handle_call, status};
pub use book::SignatureBook;
pub use clocks::{ClockBoard, ClockProofs};
pub use intents::{Outgoing, outgoing};

/// How long a peer may take to note or to list signatures.
const PEER_DEADLINE: Duration = Duration::from_secs(1);
/// How often missing signatures are asked for again.
const COLLECT_EVERY: Duration = Duration::from_millis(500);

/// Signs and collects until the process ends.
pub async fn run(node: Arc<Node>) {
    let mut applied = node.log.applied();
    let mut collect = tokio::time::interval(COLLECT_EVERY);
    let mut clock_signed = 0;
    loop {
        sign_new(&node, &mut clock_signed);
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            _ = collect.tick() => collect_missing(&node).await,
        }
    }
}

/// Signs everything of this node's State that it may sign and has not signed.
fn sign_new(node: &Arc<Node>, clock_signed: &mut u64) {
    let state = node.state();
    node.book.keep_only(&state);
    let own = PublicKey::of(&node.signing_key).id();
    for subject in subjects(&state) {
        let Some(signable) = Signable::find(&state, subject).filter(|one| one.is_for(own)) else {
            continue;
        };
        if node.book.is_settled(subject, own) {
            continue;
        }
        let (now, started) = (node.clock.now(), node.traces.now());
        match check(&state, subject, *clock_signed, now) {
            Ok(bytes) => {
                if let Subject::Clock(number) = subject {
                    *clock_signed = number;
                }
                let signature = Signature::make(&node.signing_key, signable.domain, bytes);
                node.book.insert(subject, signature.clone(), now);
                tell_peers(node, subject, &signature);
                if let Subject::Wave(number) = subject {
                    trace_signed(node, &state, number, started);
                }
            }
            Err(reason) => {
                if !node.book.refuse(subject, reason.clone()) {
                    continue;
                }
                match subject {
                    Subject::Wave(_) => tracing::warn!(%subject, reason, "not signed"),
                    // The last one before a pause is too old for everybody, and the next is on its way.
                    Subject::Clock(_) => tracing::info!(%subject, reason, "not signed"),
                }
            }
        }
    }
}

fn trace_signed(node: &Node, state: &State, number: u64, started: u64) {
    let wave = state.waves.get(&number);
    if let Some(wave) = wave.filter(|_| node.traces.spans().is_on()) {
        for leaf in decode_leaves(wave) {
            node.traces.signed(&leaf, number, started);
        }
    }
}

/// The bytes that this controller may sign, or why it does not.
fn check(
    state: &State,
    subject: Subject,
    clock_signed: u64,
    now: Timestamp,
) -> Result<&[u8], String> {
    match subject {
        Subject::Wave(number) => {
            signer::check(state, number, now).map_err(|refusal| causes::in_full(&refusal))
        }
        Subject::Clock(number) => clock::check(state, number, clock_signed, now)
            .map_err(|refusal| causes::in_full(&refusal)),
    }
}

fn tell_peers(node: &Arc<Node>, subject: Subject, signature: &Signature) {
    for peer in node.peers() {
        let (node, signature) = (Arc::clone(node), signature.clone());
        supervise::spawn("countersign", async move {
            // A lost signature is collected again by whoever misses it.
            let call = PeerCall::Countersign { subject, signature };
            if let Err(error) = node.log.call(peer, call, PEER_DEADLINE).await {
                tracing::debug!(node = peer.0, %subject, %error, "signature not delivered");
            }
        });
    }
}

/// Asks peers for the signatures that are still lacking here.
async fn collect_missing(node: &Arc<Node>) {
    let state = node.state();
    for subject in node.book.lacking(&state) {
        for peer in node.peers() {
            let answer = node
                .log
                .call(peer, PeerCall::Signatures { subject }, PEER_DEADLINE)
                .await;
            if let Ok(PeerAnswer::Signatures(signatures)) = answer {
                for (signature, at) in signatures {
                    node.book.accept(&state, subject, signature, at);
                }
            }
        }
    }
}
