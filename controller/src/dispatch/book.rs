//! The signatures that this controller knows, by what they are under. Only checked ones get in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_domain::{State, desired::Wave};
use dotmac_protocol::{
    keys::{KeyId, Signature},
    time::Timestamp,
};
use tokio::sync::watch;

use super::{
    intents::WaveProofs,
    signable::{Signable, subjects},
};
use crate::peers::Subject;

/// Refusals remembered at most; the oldest go first.
const REFUSALS_MAX: usize = 64;

/// Signatures by subject; cheap to clone.
#[derive(Debug, Clone)]
pub struct SignatureBook {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    signatures: BTreeMap<Subject, BTreeMap<KeyId, (Signature, Timestamp)>>,
    refusals: BTreeMap<Subject, String>,
    /// Of waves that were delivered, while the State has them.
    proofs: BTreeMap<u64, Arc<WaveProofs>>,
}

impl Default for SignatureBook {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl SignatureBook {
    /// Wakes when a signature was added.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All signatures under a subject.
    #[must_use]
    pub fn signatures(&self, subject: Subject) -> Vec<(Signature, Timestamp)> {
        let inner = self.lock();
        inner
            .signatures
            .get(&subject)
            .map(|one| one.values().cloned().collect())
            .unwrap_or_default()
    }

    /// What this controller would not sign, and why.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        self.lock()
            .refusals
            .iter()
            .map(|(subject, reason)| format!("{subject}: {reason}"))
            .collect()
    }

    /// Takes a peer's signature if it is one under this node's own replica of the subject, by a key of its role.
    pub fn accept(
        &self,
        state: &State,
        subject: Subject,
        signature: Signature,
        at: Timestamp,
    ) -> bool {
        let signable = Signable::find(state, subject);
        let counts = signable.is_some_and(|signable| signable.is_signed_by(&signature));
        if counts {
            self.insert(subject, signature, at);
        }
        counts
    }

    /// What proves the orders of a wave of the State; worked out by the first who asks, while the others wait.
    pub(super) fn proofs(&self, number: u64, wave: &Wave) -> Arc<WaveProofs> {
        let mut inner = self.lock();
        match inner
            .proofs
            .get(&number)
            .filter(|proofs| proofs.is_of(wave))
        {
            Some(proofs) => Arc::clone(proofs),
            None => {
                let proofs = Arc::new(WaveProofs::new(wave));
                inner.proofs.insert(number, Arc::clone(&proofs));
                proofs
            }
        }
    }

    pub(super) fn insert(&self, subject: Subject, signature: Signature, at: Timestamp) {
        let is_new = {
            let mut inner = self.lock();
            inner.refusals.remove(&subject);
            let known = inner.signatures.entry(subject).or_default();
            match known.contains_key(&signature.key) {
                true => false,
                false => known.insert(signature.key, (signature, at)).is_none(),
            }
        };
        if is_new {
            self.changes
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Remembers why something was not signed; `true` the first time.
    pub(super) fn refuse(&self, subject: Subject, reason: String) -> bool {
        let mut inner = self.lock();
        let is_new = inner.refusals.insert(subject, reason).is_none();
        while inner.refusals.len() > REFUSALS_MAX {
            inner.refusals.pop_first();
        }
        is_new
    }

    /// Whether this key signed the subject already.
    pub(super) fn is_settled(&self, subject: Subject, own: KeyId) -> bool {
        let inner = self.lock();
        let known = inner.signatures.get(&subject);
        known.is_some_and(|known| known.contains_key(&own))
    }

    /// What the State has with fewer signatures than count.
    pub(super) fn lacking(&self, state: &State) -> Vec<Subject> {
        let inner = self.lock();
        let count = |subject: &Subject| inner.signatures.get(subject).map_or(0, BTreeMap::len);
        let lacks = |subject: &Subject| {
            Signable::find(state, *subject)
                .is_some_and(|signable| count(subject) < usize::from(signable.role.threshold))
        };
        subjects(state).filter(lacks).collect()
    }

    /// Forgets what the State no longer has. Refused waves are remembered; a refused clock is followed by another.
    pub(super) fn keep_only(&self, state: &State) {
        let mut inner = self.lock();
        let is_there = |subject: &Subject| Signable::find(state, *subject).is_some();
        inner.signatures.retain(|subject, _| is_there(subject));
        inner
            .proofs
            .retain(|number, _| state.waves.contains_key(number));
        let is_wave = |subject: &Subject| matches!(subject, Subject::Wave(_));
        inner
            .refusals
            .retain(|subject, _| is_wave(subject) || is_there(subject));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
