//! Answers what other controllers ask: vouching, signatures, whom they hear, how this one is.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{
    envelope::{
        ATTESTATION_BATCH_MAX, ATTESTATION_BATCH_RULES, Attestation, AttestationBatch, Envelope,
    },
    rules::{RULES_OLDEST, RULES_VERSION},
};
use dotmac_protocol::{ids::NodeId, keys::Signature, time::Timestamp};
use futures::future::BoxFuture;

use super::signable::Signable;
use crate::{
    leader::Liveness,
    node::{Caller, Node},
    peers::{Description, NodeStatus, PeerAnswer, PeerCall, PeerHandler, Subject, ToAttest},
    storage::pace,
};

/// How long a signature may wait until what it is under is applied here.
const SUBJECT_WAIT: Duration = Duration::from_secs(1);
/// Milliseconds by which a request's time may differ from this controller's clock.
const CLOCK_TOLERANCE_MS: u64 = 30_000;

/// Answers the calls of peers for one controller.
#[derive(Debug)]
pub struct Answering {
    /// The controller.
    pub node: Arc<Node>,
    /// Whom it hears.
    pub liveness: Liveness,
}

impl PeerHandler for Answering {
    fn handle(&self, from: NodeId, call: PeerCall) -> BoxFuture<'_, PeerAnswer> {
        Box::pin(handle_call(&self.node, &self.liveness, from, call))
    }
}

/// Answers one call of a peer.
pub async fn handle_call(
    node: &Arc<Node>,
    liveness: &Liveness,
    from: NodeId,
    call: PeerCall,
) -> PeerAnswer {
    match call {
        PeerCall::Attest {
            bearer,
            envelope,
            expires_at,
        } => {
            let started = node.traces.now();
            let checked = match node.recognise(&bearer).await {
                Ok((caller, _)) => check(node, &caller, &envelope, expires_at),
                Err(error) => Err(error.to_string()),
            };
            node.traces.vouched(&envelope, started, checked.is_ok());
            match checked {
                Ok(()) => PeerAnswer::Attested(node.sign_attestation(&envelope, expires_at)),
                Err(reason) => PeerAnswer::Refused(reason),
            }
        }
        PeerCall::AttestBatch(requests) => attest_batch(node, &requests).await,
        PeerCall::Countersign { subject, signature } => note(node, from, subject, signature).await,
        PeerCall::Signatures { subject } => PeerAnswer::Signatures(node.book.signatures(subject)),
        PeerCall::Hear { agents } => {
            liveness.hear(from, agents, node.clock.now());
            PeerAnswer::Noted
        }
        PeerCall::Status => PeerAnswer::Status(status(node)),
        PeerCall::Describe => PeerAnswer::Described(describe(node)),
        PeerCall::Digest => match node.digests.newest(node.log.as_ref()).await {
            Some(digest) => PeerAnswer::Digest(digest),
            None => PeerAnswer::Refused("this controller is stopping".to_owned()),
        },
    }
}

/// Vouches for all of these requests or for none: each token must be good by this controller's own State.
async fn attest_batch(node: &Node, requests: &[ToAttest]) -> PeerAnswer {
    if !(1..=ATTESTATION_BATCH_MAX).contains(&requests.len()) {
        let found = requests.len();
        return PeerAnswer::Refused(format!(
            "{found} requests at once, where 1 to {ATTESTATION_BATCH_MAX} are allowed"
        ));
    }
    if node.state().rules < ATTESTATION_BATCH_RULES {
        return PeerAnswer::Refused(format!(
            "requests are attested together from version {ATTESTATION_BATCH_RULES} of the rules on"
        ));
    }
    let started = node.traces.now();
    // A token that is not known here may be newer than this State: then it catches up, once for all of them.
    let is_unknown = |one: &ToAttest| node.authenticate(&one.bearer).is_none();
    if let Some(one) = requests.iter().find(|one| is_unknown(one)) {
        let _ = node.recognise(&one.bearer).await;
    }
    let mut refused = Vec::new();
    for (place, request) in (0..).zip(requests) {
        let (envelope, expires_at) = (&request.envelope, request.expires_at);
        let checked = match node.look_up(&request.bearer) {
            Ok((caller, _)) => check(node, &caller, envelope, expires_at),
            Err(error) => Err(error.to_string()),
        };
        node.traces.vouched(envelope, started, checked.is_ok());
        refused.extend(checked.err().map(|reason| (place, reason)));
    }
    if !refused.is_empty() {
        return PeerAnswer::RefusedOf(refused);
    }
    let leaf = |one: &ToAttest| Attestation::of(&one.envelope, one.expires_at).bytes();
    let leaves: Vec<_> = requests.iter().map(leaf).collect();
    PeerAnswer::Attested(node.sign_batch(&AttestationBatch::of(&leaves)))
}

/// Whether this controller may vouch that whoever showed this token asks for this.
fn check(
    node: &Node,
    caller: &Caller,
    envelope: &Envelope,
    expires_at: Timestamp,
) -> Result<(), String> {
    if envelope.actor != caller.actor() {
        return Err("the token is not the actor's".into());
    }
    let now = node.clock.now();
    if envelope.at.distance_millis(now) > CLOCK_TOLERANCE_MS {
        return Err("the request's time is more than 30 s off this controller's clock".into());
    }
    if expires_at > now.plus_millis(2 * CLOCK_TOLERANCE_MS) {
        return Err("the attestation would live too long".into());
    }
    Ok(())
}

/// Takes a peer's signature, after what it is under has arrived here, too.
async fn note(node: &Node, from: NodeId, subject: Subject, signature: Signature) -> PeerAnswer {
    let mut applied = node.log.applied();
    let arrives = async {
        while Signable::find(&node.state(), subject).is_none() {
            if applied.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(SUBJECT_WAIT, arrives).await.is_err() {
        return PeerAnswer::Refused(format!("{subject} is not known here"));
    }
    let state = node.state();
    let is_own = state
        .trust
        .as_ref()
        .and_then(|trust| trust.node_of(signature.key))
        == Some(from);
    if is_own
        && node
            .book
            .accept(&state, subject, signature, node.clock.now())
    {
        return PeerAnswer::Noted;
    }
    PeerAnswer::Refused(format!("the signature is not the sender's under {subject}"))
}

/// How this controller is.
#[must_use]
pub fn status(node: &Node) -> NodeStatus {
    let leadership = *node.log.leadership().borrow();
    NodeStatus {
        node: node.card.node,
        pid: std::process::id(),
        applied: *node.log.applied().borrow(),
        term: leadership.term,
        leader: leadership.leader,
        now: node.clock.now(),
        agents: u32::try_from(node.registry.len()).unwrap_or(u32::MAX),
        refusals: node.book.refusals(),
        storage: node.log.storage().err(),
    }
}

/// What this controller's program is.
#[must_use]
pub fn describe(node: &Node) -> Description {
    Description {
        node: node.card.node,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        rules_oldest: RULES_OLDEST,
        rules_newest: RULES_VERSION,
        slow_disk: pace::slow(node.log.figures().sync),
    }
}
