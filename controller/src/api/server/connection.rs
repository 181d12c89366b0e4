//! What is known of one connection: who is at its other end, whether an answer is on its way, and whether its requests
//! are still read.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use dotmac_protocol::ids::TokenId;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{head::Refusal, peer::Peer, places::Places};
use crate::api::limits::{Account, Gate};

/// One connection.
#[derive(Debug)]
pub(in crate::api) struct Connection {
    /// Whom its address stands for.
    pub(in crate::api) peer: Peer,
    /// Whether it speaks TLS.
    pub(in crate::api) is_tls: bool,
    /// The limits it is under.
    pub(in crate::api) gate: Arc<Gate>,
    /// Its number on this listener; a higher one is newer.
    pub(super) number: u64,
    places: Arc<Places>,
    busy: AtomicU32,
    requests: AtomicU64,
    refused: OnceLock<(u64, Refusal)>,
    given_up: Notify,
    owner: Mutex<Option<Owner>>,
    refusals_in_a_row: AtomicU32,
}

#[derive(Debug)]
struct Owner {
    token: TokenId,
    account: Arc<Account>,
    _place: OwnedSemaphorePermit,
}

/// An answer is on its way as long as this lives.
#[derive(Debug)]
pub(in crate::api) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connection {
    /// A new one, on which nobody has asked yet.
    pub(super) fn new(
        number: u64,
        peer: Peer,
        is_tls: bool,
        gate: Arc<Gate>,
        places: Arc<Places>,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            is_tls,
            gate,
            number,
            places,
            busy: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            refused: OnceLock::new(),
            given_up: Notify::new(),
            owner: Mutex::new(None),
            refusals_in_a_row: AtomicU32::new(0),
        })
    }

    /// The request of this number (the first is 1) is a stand-in for one that is refused.
    pub(super) fn refuse(&self, number: u64, refusal: Refusal) {
        // There is one refusal a connection: nothing is read behind it.
        let _ = self.refused.set((number, refusal));
    }

    /// Counts a request that the HTTP server hands over, and tells whether it is the stand-in for a refused one.
    pub(super) fn next_request(&self) -> Option<Refusal> {
        let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let refused = self.refused.get().filter(|(refused, _)| *refused == number);
        refused.map(|(_, refusal)| *refusal)
    }

    /// An answer is on its way from now on.
    pub(in crate::api) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Whether an answer is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Tells whoever serves it to close it.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until it is given up.
    pub(super) async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// A caller whose token is known asks here: from now on the connection counts as his, and no longer as its
    /// address's. `None` if he has too many.
    pub(in crate::api) fn belong_to(&self, token: &TokenId) -> Option<Arc<Account>> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owner.as_ref().filter(|owner| owner.token == *token) {
            return Some(Arc::clone(&owner.account));
        }
        let account = self.gate.account(token);
        let place = Arc::clone(&account.connections).try_acquire_owned().ok()?;
        let before = owner.replace(Owner {
            token: token.clone(),
            account: Arc::clone(&account),
            _place: place,
        });
        if before.is_none() {
            self.places.leave(self);
        }
        Some(account)
    }

    /// A request was admitted.
    pub(in crate::api) fn note_admitted(&self) {
        self.refusals_in_a_row.store(0, Ordering::Release);
    }

    /// A request was not admitted; tells how many were not before it, one after the other.
    pub(in crate::api) fn note_refused(&self) -> u32 {
        self.refusals_in_a_row.fetch_add(1, Ordering::AcqRel)
    }
}
