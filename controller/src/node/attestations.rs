//! How a person's request is proven: this controller's word for it, if it is one of those that sign, and that of as many
//! others as count. It asks no more than are needed, unless they are slow.

use std::time::Duration;

use dotmac_domain::{
    Envelope,
    envelope::{ATTESTATION_DOMAIN, Attestation, command_digest},
};
use dotmac_protocol::{
    ids::{NodeId, RequestId},
    keys::Signature,
    time::Timestamp,
};
use futures::{StreamExt as _, stream::FuturesUnordered};

use super::{AskError, Caller, Node};
use crate::peers::{PeerAnswer, PeerCall};

/// How long one peer may take to attest.
const ATTEST_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long those asked first may take until another one is asked as well. Asking all at once costs every controller a
/// signature a change that nobody needs.
const ATTEST_HEDGE: Duration = Duration::from_millis(25);

impl Node {
    pub(super) async fn collect_attestations(
        &self,
        caller: &Caller,
        envelope: &Envelope,
        expires_at: Timestamp,
    ) -> Result<Vec<Signature>, AskError> {
        let needed = self.threshold();
        let state = self.state();
        let is_signer = state.trust.is_none() || state.signs(self.card.node);
        let own = is_signer.then(|| self.sign_attestation(envelope, expires_at));
        let mut signatures: Vec<Signature> = own.into_iter().collect();
        let mut refusals = Vec::new();
        let mut unasked = self.witnesses(&envelope.request).into_iter();
        let ask = |node| {
            let call = PeerCall::Attest {
                bearer: caller.bearer.clone(),
                envelope: Box::new(envelope.clone()),
                expires_at,
            };
            async move { (node, self.log.call(node, call, ATTEST_DEADLINE).await) }
        };
        let first = unasked
            .by_ref()
            .take(usize::from(needed).saturating_sub(signatures.len()));
        let mut calls: FuturesUnordered<_> = first.map(ask).collect();
        while signatures.len() < usize::from(needed) {
            tokio::select! {
                Some((node, answer)) = calls.next() => {
                    match answer {
                        Ok(PeerAnswer::Attested(signature)) => {
                            signatures.push(signature);
                            continue;
                        }
                        Ok(other) => refusals.push(format!("controller {node}: {other:?}")),
                        Err(error) => refusals.push(format!("controller {node}: {error}")),
                    }
                    calls.extend(unasked.next().map(ask));
                }
                () = tokio::time::sleep(ATTEST_HEDGE), if !unasked.as_slice().is_empty() => {
                    calls.extend(unasked.next().map(ask));
                }
                else => {
                    let (found, detail) = (signatures.len(), refusals.join("; "));
                    return Err(AskError::Attestations {
                        found,
                        needed,
                        detail,
                    });
                }
            }
        }
        Ok(signatures)
    }

    /// The other controllers in the order in which they are asked to vouch for a request: those with a connection first,
    /// and each first for its share of the requests.
    fn witnesses(&self, request: &RequestId) -> Vec<NodeId> {
        let state = self.state();
        let mut peers = self.peers();
        peers.retain(|peer| state.trust.is_none() || state.signs(*peer));
        let turn = request.as_str().bytes().map(usize::from).sum::<usize>();
        let first = turn.checked_rem(peers.len()).unwrap_or(0);
        peers.rotate_left(first);
        let connected = self.log.connected();
        let connected = connected.borrow();
        peers.sort_by_key(|peer| !connected.contains(peer));
        peers
    }

    /// This controller's own word for a request whose token it checked.
    pub(crate) fn sign_attestation(&self, envelope: &Envelope, expires_at: Timestamp) -> Signature {
        let attestation = Attestation {
            request: envelope.request.clone(),
            command: command_digest(&envelope.command),
            actor: envelope.actor.clone(),
            expires_at,
        };
        Signature::make(&self.signing_key, ATTESTATION_DOMAIN, &attestation.bytes())
    }
}
