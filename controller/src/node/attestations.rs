//! How a person's request is proven: as many controllers as the trust root wants vouch for it, each after it checked the
//! bearer token itself (law 3).
//!
//! Requests that wait while others are being vouched for go together: one call to each witness, and one signature of each
//! over all of them. What a witness refuses, and what did not come back whole, is asked for alone, so that one request
//! never keeps another from being proven. More than may wait are refused at once. Under rules 1 each request is asked for
//! alone: the program of before reads nothing else.
//!
//! A controller that does not sign yet vouches for nothing, and asks one more of the others.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_domain::{
    Envelope,
    envelope::{
        ATTESTATION_BATCH_DOMAIN, ATTESTATION_BATCH_MAX, ATTESTATION_BATCH_RULES,
        ATTESTATION_DOMAIN, Attestation, AttestationBatch, Evidence, InBatch,
    },
};
use dotmac_protocol::{
    ids::{NodeId, RequestId},
    keys::Signature,
    time::Timestamp,
    wave::merkle_paths,
};
use dotmac_runtime::supervise;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{Semaphore, oneshot};

use super::{AskError, Caller, Node};
use crate::{
    log::LogError,
    peers::{PeerAnswer, PeerCall, ToAttest},
};

/// Requests that may wait to be vouched for; more are refused.
const QUEUE_MAX: usize = 4_096;
/// Bytes of the commands that are vouched for together, unless a single one is larger.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches under way at most; the next one begins before this one ended only when it is late.
const BATCHES_MAX: usize = 8;
/// How often a batch is tried, each time without what was refused, before each of its requests is asked for alone.
const ATTEMPTS: usize = 2;
/// How long one peer may take to attest.
const ATTEST_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long those asked first may take until another one is asked as well. Asking all at once costs every controller a
/// signature that nobody needs.
const ATTEST_HEDGE: Duration = Duration::from_millis(25);

/// Requests that wait to be vouched for.
#[derive(Debug)]
pub(super) struct Attesting {
    queue: Mutex<Queue>,
    places: Arc<Semaphore>,
}

impl Default for Attesting {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            places: Arc::new(Semaphore::new(BATCHES_MAX)),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task takes from it.
    is_served: bool,
}

#[derive(Debug)]
struct Waiting {
    request: ToAttest,
    /// What is signed of it.
    leaf: Vec<u8>,
    /// Bytes of its command.
    bytes: usize,
    answer: oneshot::Sender<Result<Evidence, AskError>>,
}

impl Attesting {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch in order of arrival, without those that nobody waits for any more.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < ATTESTATION_BATCH_MAX
            && let Some(next) = queue.waiting.front()
            && (batch.is_empty() || bytes + next.bytes <= BATCH_BYTES_MAX)
        {
            let next = queue.waiting.pop_front().expect("it was looked at");
            if !next.answer.is_closed() {
                bytes += next.bytes;
                batch.push(next);
            }
        }
        queue.is_served = !batch.is_empty();
        queue.is_served.then_some(batch)
    }
}

/// What became of a batch.
enum Together {
    /// The evidence of each.
    Signed(Vec<Evidence>),
    /// These of them were refused by a witness.
    Refused(BTreeSet<usize>),
    /// Too few witnesses answered.
    Unanswered,
}

impl Node {
    /// Proves that a caller asks for what an envelope says.
    pub(super) async fn prove(
        self: &Arc<Self>,
        caller: &Caller,
        envelope: &Envelope,
        expires_at: Timestamp,
    ) -> Result<Evidence, AskError> {
        let request = ToAttest {
            bearer: caller.bearer.clone(),
            envelope: envelope.clone(),
            expires_at,
        };
        if self.state().rules < ATTESTATION_BATCH_RULES {
            return self.attest_alone(&request).await;
        }
        let (attestation, bytes) = Attestation::with_size(envelope, expires_at);
        let (answer, receiver) = oneshot::channel();
        let is_served = {
            let mut queue = self.attesting.lock();
            if queue.waiting.len() >= QUEUE_MAX {
                return Err(LogError::Overloaded.into());
            }
            queue.waiting.push_back(Waiting {
                request,
                leaf: attestation.bytes(),
                bytes,
                answer,
            });
            std::mem::replace(&mut queue.is_served, true)
        };
        if !is_served {
            supervise::spawn("attester", Arc::clone(self).serve_attesting());
        }
        let stopping = || LogError::Unavailable("this controller is stopping".into()).into();
        receiver.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Takes batches until none is left.
    async fn serve_attesting(self: Arc<Self>) {
        while let Some(batch) = self.attesting.take() {
            let place = Arc::clone(&self.attesting.places).acquire_owned().await;
            let node = Arc::clone(&self);
            let attesting = supervise::spawn("attestations", async move {
                node.attest(batch).await;
                drop(place);
            });
            // What comes meanwhile goes together; a late batch keeps nobody waiting.
            let _ = tokio::time::timeout(ATTEST_HEDGE, attesting).await;
        }
    }

    async fn attest(&self, mut batch: Vec<Waiting>) {
        let mut alone = Vec::new();
        for _ in 0..ATTEMPTS {
            if batch.len() < 2 {
                break;
            }
            match self.attest_together(&batch).await {
                Together::Signed(evidence) => {
                    for (waiting, evidence) in batch.drain(..).zip(evidence) {
                        // Whoever waited may have given up.
                        let _ = waiting.answer.send(Ok(evidence));
                    }
                }
                Together::Refused(places) => {
                    let mut place = 0;
                    alone.extend(batch.extract_if(.., |_| {
                        place += 1;
                        places.contains(&(place - 1))
                    }));
                }
                Together::Unanswered => break,
            }
        }
        let each = alone.into_iter().chain(batch).map(|waiting| async move {
            let evidence = self.attest_alone(&waiting.request).await;
            // Whoever waited may have given up.
            let _ = waiting.answer.send(evidence);
        });
        each.collect::<FuturesUnordered<_>>().collect::<()>().await;
    }

    /// One signature of each witness under all requests, or none.
    async fn attest_together(&self, batch: &[Waiting]) -> Together {
        let leaves: Vec<_> = batch.iter().map(|one| one.leaf.clone()).collect();
        let statement = AttestationBatch::of(&leaves);
        let requests: Vec<ToAttest> = batch.iter().map(|one| one.request.clone()).collect();
        let mut refused = BTreeSet::new();
        let gathered = self
            .gather(
                &batch[0].request.envelope.request,
                self.signs().then(|| self.sign_batch(&statement)),
                || PeerCall::AttestBatch(requests.clone()),
                |answer| match answer {
                    PeerAnswer::Attested(signature) => Ok(signature),
                    PeerAnswer::RefusedOf(places) => {
                        let places = places.iter().map(|(place, _)| usize::try_from(*place));
                        refused.extend(places.filter_map(Result::ok));
                        Err("it refuses some of them".into())
                    }
                    other => Err(format!("{other:?}")),
                },
            )
            .await;
        match gathered {
            Ok(signatures) => {
                let places = (0..).zip(batch).zip(merkle_paths(&leaves));
                let place = |((index, waiting), path): ((u32, &Waiting), _)| InBatch {
                    expires_at: waiting.request.expires_at,
                    batch: statement.clone(),
                    index,
                    path,
                    signatures: signatures.clone(),
                };
                let evidence = places.map(place).map(Box::new);
                Together::Signed(evidence.map(Evidence::AttestedInBatch).collect())
            }
            Err(_) if refused.is_empty() => Together::Unanswered,
            Err(_) => Together::Refused(refused),
        }
    }

    async fn attest_alone(&self, request: &ToAttest) -> Result<Evidence, AskError> {
        let (envelope, expires_at) = (&request.envelope, request.expires_at);
        let signatures = self
            .gather(
                &envelope.request,
                self.signs()
                    .then(|| self.sign_attestation(envelope, expires_at)),
                || PeerCall::Attest {
                    bearer: request.bearer.clone(),
                    envelope: Box::new(envelope.clone()),
                    expires_at,
                },
                |answer| match answer {
                    PeerAnswer::Attested(signature) => Ok(signature),
                    other => Err(format!("{other:?}")),
                },
            )
            .await?;
        Ok(Evidence::Attested {
            expires_at,
            signatures,
        })
    }

    /// As many signatures as are needed, this controller's own among them: of first as many peers as are missing, and of one
    /// more for each that refuses or is late.
    async fn gather(
        &self,
        request: &RequestId,
        own: Option<Signature>,
        call: impl Fn() -> PeerCall,
        mut take: impl FnMut(PeerAnswer) -> Result<Signature, String>,
    ) -> Result<Vec<Signature>, AskError> {
        let needed = self.threshold();
        let mut signatures: Vec<Signature> = own.into_iter().collect();
        let mut refusals = Vec::new();
        let mut unasked = self.witnesses(request).into_iter();
        let ask = |node| {
            let call = call();
            async move { (node, self.log.call(node, call, ATTEST_DEADLINE).await) }
        };
        let missing = usize::from(needed).saturating_sub(signatures.len());
        let mut calls: FuturesUnordered<_> = unasked.by_ref().take(missing).map(ask).collect();
        while signatures.len() < usize::from(needed) {
            tokio::select! {
                Some((node, answer)) = calls.next() => {
                    let taken = answer.map_err(|error| error.to_string()).and_then(&mut take);
                    match taken {
                        Ok(signature) => {
                            signatures.push(signature);
                            continue;
                        }
                        Err(reason) => refusals.push(format!("controller {node}: {reason}")),
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

    /// Whether this controller's word counts.
    fn signs(&self) -> bool {
        let state = self.state();
        state.trust.is_none() || state.signs(self.card.node)
    }

    /// This controller's own word for a request whose token it checked.
    pub(crate) fn sign_attestation(&self, envelope: &Envelope, expires_at: Timestamp) -> Signature {
        let bytes = Attestation::of(envelope, expires_at).bytes();
        Signature::make(&self.signing_key, ATTESTATION_DOMAIN, &bytes)
    }

    /// This controller's own word for requests whose tokens it checked, every one.
    pub(crate) fn sign_batch(&self, batch: &AttestationBatch) -> Signature {
        Signature::make(&self.signing_key, ATTESTATION_BATCH_DOMAIN, &batch.bytes())
    }
}
