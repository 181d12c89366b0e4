//! Places for connections: so many in total, and fewer for one address as long as nobody has shown a token there.
//! Whoever comes last is let in; the oldest connection without a token makes room for it. So silence keeps no place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{connection::Connection, peer::Peer};

/// All places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    total: u32,
    per_peer: usize,
    guests: Mutex<Guests>,
}

/// Connections on which nobody has shown a token that is known, by age.
#[derive(Debug, Default)]
struct Guests {
    by_age: BTreeMap<u64, Arc<Connection>>,
    by_peer: HashMap<Peer, BTreeSet<u64>>,
}

impl Places {
    /// So many places in total, and for one address.
    pub(super) fn new(total: u32, per_peer: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(total as usize)),
            total,
            per_peer: per_peer as usize,
            guests: Mutex::default(),
        }
    }

    /// A place in total; when there is none, the oldest guest loses its own.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return place;
        }
        self.guests(|guests| guests.give_up_oldest(None));
        let place = Arc::clone(&self.free).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// A new connection, a guest so far.
    pub(super) fn enter(&self, connection: &Arc<Connection>) {
        let peer = connection.peer;
        self.guests(|guests| {
            if guests
                .by_peer
                .get(&peer)
                .is_some_and(|own| own.len() >= self.per_peer)
            {
                guests.give_up_oldest(Some(peer));
            }
            guests
                .by_peer
                .entry(peer)
                .or_default()
                .insert(connection.number);
            guests
                .by_age
                .insert(connection.number, Arc::clone(connection));
        });
    }

    /// A connection is gone, or no guest any more.
    pub(super) fn leave(&self, connection: &Connection) {
        self.guests(|guests| guests.remove(connection.number, connection.peer));
    }

    /// Waits until every connection is gone.
    pub(super) async fn all_gone(&self) {
        // An error would mean that the semaphore is closed, which it never is.
        drop(self.free.acquire_many(self.total).await);
    }

    fn guests<T>(&self, change: impl FnOnce(&mut Guests) -> T) -> T {
        change(&mut self.guests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Guests {
    /// Tells the oldest guest (of an address) to close, and forgets it.
    fn give_up_oldest(&mut self, of: Option<Peer>) {
        let oldest = match of {
            Some(peer) => self.by_peer.get(&peer).and_then(|own| own.first()).copied(),
            None => self.by_age.keys().next().copied(),
        };
        let Some(oldest) = oldest.and_then(|number| self.by_age.get(&number).cloned()) else {
            return;
        };
        oldest.give_up();
        self.remove(oldest.number, oldest.peer);
    }

    fn remove(&mut self, number: u64, peer: Peer) {
        self.by_age.remove(&number);
        if let Some(own) = self.by_peer.get_mut(&peer) {
            own.remove(&number);
            if own.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }
}
