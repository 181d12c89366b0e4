//! The signatures that this controller knows, by wave. Only checked ones get in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_domain::State;
use dotmac_protocol::{
    keys::{KeyId, PublicKey, Signature},
    time::Timestamp,
    wave::WAVE_DOMAIN,
};
use tokio::sync::watch;

use crate::node::Node;

/// Refusals remembered at most; the oldest go first.
const REFUSALS_MAX: usize = 64;

/// Signatures by wave; cheap to clone.
#[derive(Debug, Clone)]
pub struct SignatureBook {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    signatures: BTreeMap<u64, BTreeMap<KeyId, (Signature, Timestamp)>>,
    refusals: BTreeMap<u64, String>,
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

    /// All signatures under a wave.
    #[must_use]
    pub fn signatures(&self, wave: u64) -> Vec<(Signature, Timestamp)> {
        let inner = self.lock();
        inner
            .signatures
            .get(&wave)
            .map(|one| one.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Waves that this controller would not sign, and why.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        self.lock()
            .refusals
            .iter()
            .map(|(wave, reason)| format!("wave {wave}: {reason}"))
            .collect()
    }

    /// Takes a peer's signature if it is one under this node's own replica of the wave, by a controller's key.
    pub fn accept(&self, state: &State, wave: u64, signature: Signature, at: Timestamp) -> bool {
        let Some(entry) = state.waves.get(&wave) else {
            return false;
        };
        let Some(trust) = &state.trust else {
            return false;
        };
        let counts = trust.controller.keys.iter().any(|key| {
            key.id() == signature.key && key.verify(WAVE_DOMAIN, &entry.header, &signature).is_ok()
        });
        if counts {
            self.insert(wave, signature, at);
        }
        counts
    }

    pub(super) fn insert(&self, wave: u64, signature: Signature, at: Timestamp) {
        let is_new = {
            let mut inner = self.lock();
            inner.refusals.remove(&wave);
            let known = inner.signatures.entry(wave).or_default();
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

    /// Remembers why a wave was not signed; `true` when it is news.
    pub(super) fn refuse(&self, wave: u64, reason: String) -> bool {
        let mut inner = self.lock();
        let is_new = inner.refusals.insert(wave, reason.clone()).as_ref() != Some(&reason);
        while inner.refusals.len() > REFUSALS_MAX {
            inner.refusals.pop_first();
        }
        is_new
    }

    /// Whether this node signed the wave already.
    pub(super) fn is_settled(&self, wave: u64, node: &Node) -> bool {
        let own = PublicKey::of(&node.signing_key).id();
        self.lock()
            .signatures
            .get(&wave)
            .is_some_and(|known| known.contains_key(&own))
    }

    /// Waves of the State with fewer signatures than count.
    pub(super) fn lacking(&self, state: &State, threshold: u16) -> Vec<u64> {
        let inner = self.lock();
        let count = |wave: &u64| inner.signatures.get(wave).map_or(0, BTreeMap::len);
        let lacks = |wave: &u64| count(wave) < usize::from(threshold);
        state.waves.keys().copied().filter(lacks).collect()
    }

    /// Forgets waves that the State no longer has.
    pub(super) fn keep_only(&self, state: &State) {
        let mut inner = self.lock();
        inner
            .signatures
            .retain(|wave, _| state.waves.contains_key(wave));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
