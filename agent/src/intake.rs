//! The one door by which orders come in: verify, decide, write down, confirm, then let the reconciler know.
//!
//! It waits for the disk and is for one order at a time. It does nothing that an order asks for.

mod clocks;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dotmac_protocol::{
    acceptance::check_clock,
    digest::Digest,
    frame::Delivery,
    ids::{Epoch, TrustVersion},
    record::{Event, Outcome, Receipt, cut_detail},
    time::Timestamp,
    trust::SignedTrustRoot,
    wave::{IntentError, Leaf, SignedIntent},
};
use dotmac_runtime::{causes, clock::Clock, tls::PinnedIssuers};
use tokio::sync::watch;
use tracing::field::display;

use crate::{
    chain::{AppendError, Chain},
    journal::{Journal, TakeError, Taken},
    license_time::LicenseTime,
    signed_clock::{ClockStore, Doubts},
    stations::{JOURNALLED, RECEIVED, Stations},
    traces::SessionMark,
    trust::{TrustStore, TrustStoreError},
    unit::{About, Desired, Wanted},
};

pub use self::clocks::ClockVerdict;

/// Refused intents that are remembered, so that a repetition writes no second record.
const REFUSED_MAX: usize = 1024;

/// Journal, trust root and chain, wired in the order in which an intent passes them.
#[allow(
    missing_debug_implementations,
    reason = "its chain holds the signing key"
)]
pub struct Intake {
    inner: Mutex<Inner>,
    pinned: PinnedIssuers,
    chain: Arc<Chain>,
    stations: Stations,
    desired: watch::Sender<Arc<Desired>>,
    /// The newest signed clock, once the present session brought one.
    session_clock: watch::Sender<Option<Timestamp>>,
    /// The present session, for the spans of traces.
    session: watch::Sender<Option<SessionMark>>,
    license_time: LicenseTime,
    clock: Clock,
}

struct Inner {
    journal: Journal,
    trust: TrustStore,
    clocks: ClockStore,
    doubts: Doubts,
    refused: VecDeque<Digest>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is on disk and in force.
    Accepted,
    /// It was in force already.
    Held,
    /// It is genuine, and refused with a receipt.
    Refused,
    /// It is genuine, and no new work is taken without a fresh signed clock. A later session brings it again.
    NoClock,
    /// It is not to be believed.
    Unbelieved,
    /// It is signed for a newer trust root than this agent holds: a new session brings that.
    TrustBehind,
    /// It cannot be kept now: no room for its receipts, or the disk fails. A later session brings it again.
    NotNow,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::NoClock => "no_clock",
            Self::Unbelieved => "unbelieved",
            Self::TrustBehind => "trust_behind",
            Self::NotNow => "not_now",
        }
    }
}

impl Intake {
    /// Wires the parts. `desired` is what the reconciler follows.
    #[must_use]
    pub fn new(
        journal: Journal,
        trust: TrustStore,
        clocks: ClockStore,
        chain: Arc<Chain>,
        stations: Stations,
        license_time: LicenseTime,
        clock: Clock,
    ) -> Self {
        let desired = watch::Sender::new(Arc::new(journal.desired()));
        let pinned = PinnedIssuers::of(&trust.current());
        let inner = Mutex::new(Inner {
            journal,
            trust,
            clocks,
            doubts: Doubts::default(),
            refused: VecDeque::new(),
        });
        Self {
            inner,
            pinned,
            chain,
            stations,
            desired,
            session_clock: watch::Sender::new(None),
            session: watch::Sender::new(None),
            license_time,
            clock,
        }
    }

    /// What every unit should be, as it changes.
    #[must_use]
    pub fn desired(&self) -> watch::Receiver<Arc<Desired>> {
        self.desired.subscribe()
    }

    /// The issuers that connections are checked against; follows the trust root.
    #[must_use]
    pub fn pinned(&self) -> PinnedIssuers {
        self.pinned.clone()
    }

    /// The version of the trust root in force.
    #[must_use]
    pub fn trust_version(&self) -> TrustVersion {
        self.lock().trust.current().version
    }

    /// The epoch of the trust root in force.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.lock().trust.current().epoch
    }

    /// Follows to newer trust roots, in order.
    ///
    /// # Errors
    /// When one is refused; those before it stay in force.
    pub fn follow(&self, documents: &[SignedTrustRoot]) -> Result<bool, TrustStoreError> {
        self.with_trust(|trust| trust.follow(documents))
    }

    /// Lets something change the trust root, and keeps the pinned issuers in step.
    pub fn with_trust<T>(&self, change: impl FnOnce(&mut TrustStore) -> T) -> T {
        let mut inner = self.lock();
        let result = change(&mut inner.trust);
        self.pinned.replace(&inner.trust.current());
        result
    }

    /// Takes a delivery that arrived at `received`. Waits for the disk.
    #[must_use]
    pub fn take(&self, delivery: &Delivery, received: Timestamp) -> Verdict {
        let verdict = self.decide(delivery, received);
        self.stations.metrics().ordered(verdict.as_str());
        verdict
    }

    /// The newest signed time that controllers told.
    #[must_use]
    pub fn signed_time(&self) -> Option<Timestamp> {
        self.lock().clocks.at()
    }

    fn decide(&self, delivery: &Delivery, received: Timestamp) -> Verdict {
        if !self.chain.has_room() {
            tracing::warn!("no new work is taken: too many records wait for acknowledgement");
            return Verdict::NotNow;
        }
        let mut inner = self.lock();
        let trust = inner.trust.current();
        let (now, signed) = (self.clock.now(), *self.session_clock.borrow());
        match inner.journal.take(&delivery.intent, &trust, now, signed) {
            Ok(Taken::Held) => Verdict::Held,
            Ok(Taken::Accepted(wanted)) => {
                inner.doubts.order_taken();
                self.accepted(&inner, &wanted, delivery, received)
            }
            Err(TakeError::Refused { leaf, reason }) => {
                let verdict = match check_clock(signed, now) {
                    Ok(()) => Verdict::Refused,
                    Err(_) => Verdict::NoClock,
                };
                self.refused(&mut inner, &leaf, reason, verdict)
            }
            Err(TakeError::Unverified(IntentError::TrustVersion { held, found }))
                if found > held =>
            {
                Verdict::TrustBehind
            }
            Err(TakeError::Unverified(error)) => {
                self.unbelieved(&mut inner, &delivery.intent, &error)
            }
            Err(TakeError::Disk { unit, source }) => {
                tracing::error!(%unit, error = %source, "an order cannot be written to the journal");
                Verdict::NotNow
            }
        }
    }

    /// Records the receipt of the order accepted last, when a crash came between journal and chain.
    ///
    /// # Errors
    /// When it is missing and cannot be recorded.
    pub fn repair_receipt(&self, is_recorded: impl Fn(&Digest) -> bool) -> Result<(), AppendError> {
        let last = self.lock().journal.last_accepted().cloned();
        match last.filter(|wanted| !is_recorded(&wanted.leaf)) {
            Some(wanted) => self.receipt(&wanted).map(|_| ()),
            None => Ok(()),
        }
    }

    fn accepted(
        &self,
        inner: &Inner,
        wanted: &Wanted,
        delivery: &Delivery,
        received: Timestamp,
    ) -> Verdict {
        let (unit, generation) = (&wanted.unit, wanted.generation);
        self.stations.carry(unit, generation, &delivery.hops);
        self.stations.note(unit, generation, RECEIVED, received);
        self.stations
            .note(unit, generation, JOURNALLED, self.clock.now());
        if let Err(error) = self.receipt(wanted) {
            tracing::error!(%unit, %error, "an accepted order has no receipt in the record chain");
        }
        let trace_id = wanted.trace.map(|context| display(context.trace_id));
        let (tenant, request) = (&wanted.tenant, &wanted.request);
        let (number, sequence) = (generation.0, wanted.sequence.0);
        tracing::info!(%unit, generation = number, sequence, %tenant, %request, trace_id, "order accepted");
        let session = *self.session.borrow();
        self.stations.traces().accepted(wanted, session, received);
        self.desired.send_replace(Arc::new(inner.journal.desired()));
        Verdict::Accepted
    }

    fn receipt(&self, wanted: &Wanted) -> Result<u64, AppendError> {
        let receipt = Receipt {
            leaf: wanted.leaf,
            generation: wanted.generation,
            sequence: wanted.sequence,
            outcome: Outcome::Accepted,
            hops: self.stations.peek(&wanted.unit),
        };
        self.chain
            .append(&About::wanted(wanted), Event::Receipt(receipt))
    }

    fn refused(
        &self,
        inner: &mut Inner,
        leaf: &Leaf,
        mut reason: String,
        verdict: Verdict,
    ) -> Verdict {
        let digest = Digest::of(&leaf.bytes());
        // What is refused for its own sake after it was refused for the clock's is told, too.
        let told = Digest::tagged(&format!("{verdict:?}"), digest.as_bytes());
        if !inner.is_first(told) {
            return verdict;
        }
        if let Some(off) = inner.doubts.clock_off() {
            reason = format!("{reason}; {off}");
        }
        tracing::warn!(unit = %leaf.unit, reason, "order refused");
        let about = About {
            tenant: Some(leaf.tenant.clone()),
            unit: Some(leaf.unit.clone()),
            request: Some(leaf.request.clone()),
        };
        let receipt = Receipt {
            leaf: digest,
            generation: leaf.generation,
            sequence: leaf.sequence,
            outcome: Outcome::Refused { reason },
            hops: Vec::new(),
        };
        if let Err(error) = self.chain.append(&about, Event::Receipt(receipt)) {
            tracing::error!(unit = %leaf.unit, %error, "a refused order has no receipt");
        }
        verdict
    }

    /// What was not signed by enough controllers names nobody: it is recorded as seen, with the reason alone.
    fn unbelieved(&self, inner: &mut Inner, intent: &SignedIntent, error: &IntentError) -> Verdict {
        if inner.is_first(Digest::of(&intent.header)) {
            self.audit("intent.unbelieved", &causes::in_full(error));
        }
        Verdict::Unbelieved
    }

    /// Records something about the agent as a whole.
    fn audit(&self, action: &str, detail: &str) {
        tracing::warn!(action, detail, "recorded");
        let action = action.to_owned();
        let detail = cut_detail(detail);
        let event = Event::Audit { action, detail };
        if let Err(error) = self.chain.append(&About::default(), event) {
            tracing::error!(%error, "an event of the agent is not in the record chain");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_first(&mut self, digest: Digest) -> bool {
        if self.refused.contains(&digest) {
            return false;
        }
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(digest);
        true
    }
}
