//! The places of one listener's connections, and who loses its own when there is none left: first whoever proved
//! nothing, the oldest first; then whoever proved itself longest ago, one that is being answered last of all.
//!
//! A unit holds 64 places at most: one more closes its own connection that proved itself longest ago. An eighth of the places
//! is kept for those that proved nothing yet, so that many who have cannot keep others from it: beyond seven eighths they
//! lose places to newcomers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dotmac_protocol::ids::UnitId;
use dotmac_runtime::metrics::Counter;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections of one unit.
pub(crate) const UNIT_CONNECTIONS_MAX: usize = 64;
/// One of so many places is kept for connections that proved nothing yet.
const NEWCOMERS_SHARE: usize = 8;

/// All places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    newcomers_kept: usize,
    seats: Mutex<Seats>,
    closed: Counter,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

/// What handlers know of the connection that a request came on (an extension of it).
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    places: Arc<Places>,
    given_up: Notify,
    heads: AtomicU64,
    is_answering: AtomicBool,
}

/// A request is being answered as long as this lives.
#[derive(Debug)]
pub(super) struct Answering<'a>(&'a Connection);

#[derive(Debug, Default)]
struct Seats {
    /// Counts openings and proofs: a lower number was earlier.
    turn: u64,
    by_number: BTreeMap<u64, Seat>,
    proven: usize,
    by_unit: BTreeMap<UnitId, usize>,
}

#[derive(Debug)]
struct Seat {
    connection: Arc<Connection>,
    owner: Owner,
    /// The turn of its last proof, or of its opening.
    used: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Anybody,
    Unit(UnitId),
}

/// The least goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Unproven(u64),
    Proven(u64),
    Answering(u64),
}

impl Places {
    /// So many.
    pub(super) fn new(connections_max: usize, closed: Counter) -> Self {
        Self {
            free: Arc::new(Semaphore::new(connections_max)),
            newcomers_kept: connections_max / NEWCOMERS_SHARE,
            seats: Mutex::default(),
            closed,
        }
    }

    /// A place for a new connection. When all are taken, another connection is given up and its place waited for:
    /// its task does nothing but close it, so that this takes a turn of the scheduler, and at most one descriptor
    /// more is open than there are places.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.change(|seats| {
                    let least = seats.least(self.newcomers_kept);
                    self.give_up(seats, least);
                });
                let waiting = Arc::clone(&self.free).acquire_owned().await;
                waiting.expect("this semaphore is never closed")
            }
        };
        let connection = self.change(|seats| {
            let number = seats.next_turn();
            let connection = Arc::new(Connection {
                number,
                places: Arc::clone(self),
                given_up: Notify::new(),
                heads: AtomicU64::new(0),
                is_answering: AtomicBool::new(false),
            });
            let seat = Seat {
                connection: Arc::clone(&connection),
                owner: Owner::Nobody,
                used: number,
            };
            seats.by_number.insert(number, seat);
            connection
        });
        Place {
            connection,
            _permit: permit,
        }
    }

    /// Tells a connection to close, and forgets it.
    fn give_up(&self, seats: &mut Seats, number: Option<u64>) {
        if let Some(seat) = number.and_then(|number| seats.remove(number)) {
            seat.connection.given_up.notify_one();
            self.closed.inc();
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Seats) -> T) -> T {
        change(&mut self.seats.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.connection.number;
        drop(self.connection.places.change(|seats| seats.remove(number)));
    }
}

impl Connection {
    /// A caller proved himself on it, for his unit if he is one.
    pub(crate) fn prove(&self, unit: Option<&UnitId>) {
        self.places.change(|seats| {
            let excess = seats.prove(self.number, unit);
            self.places.give_up(seats, excess);
        });
    }

    /// The head of a request is complete.
    pub(super) fn answering(&self) -> Answering<'_> {
        self.heads.fetch_add(1, Ordering::AcqRel);
        self.is_answering.store(true, Ordering::Release);
        Answering(self)
    }

    pub(super) fn is_answering(&self) -> bool {
        self.is_answering.load(Ordering::Acquire)
    }

    /// Heads that were complete.
    pub(super) fn heads(&self) -> u64 {
        self.heads.load(Ordering::Acquire)
    }

    /// Waits until it has to close.
    pub(super) async fn given_up(&self) {
        self.given_up.notified().await;
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.is_answering.store(false, Ordering::Release);
    }
}

impl Seats {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Notes a proof; tells which connection of the same unit is one too many now.
    fn prove(&mut self, number: u64, unit: Option<&UnitId>) -> Option<u64> {
        let used = self.next_turn();
        // One that was given up has nothing left to prove.
        let seat = self.by_number.get_mut(&number)?;
        seat.used = used;
        if seat.owner.is(unit) {
            return None;
        }
        let owner = unit.map_or(Owner::Anybody, |unit| Owner::Unit(unit.clone()));
        let before = std::mem::replace(&mut seat.owner, owner);
        self.uncount(&before);
        self.proven += 1;
        let unit = unit?;
        let held = self.by_unit.entry(unit.clone()).or_default();
        *held += 1;
        let is_excess = *held > UNIT_CONNECTIONS_MAX;
        is_excess.then(|| self.least_of(|seat| seat.owner.is(Some(unit))))?
    }

    /// What makes room for a newcomer.
    fn least(&self, newcomers_kept: usize) -> Option<u64> {
        let unproven = self.by_number.len() - self.proven;
        if unproven <= newcomers_kept && self.proven > 0 {
            self.least_of(|seat| seat.owner != Owner::Nobody)
        } else {
            self.least_of(|_| true)
        }
    }

    fn least_of(&self, counts: impl Fn(&Seat) -> bool) -> Option<u64> {
        let seats = self.by_number.iter().filter(|(_, seat)| counts(seat));
        let least = seats.min_by_key(|(_, seat)| seat.worth());
        least.map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64) -> Option<Seat> {
        let seat = self.by_number.remove(&number)?;
        self.uncount(&seat.owner);
        Some(seat)
    }

    fn uncount(&mut self, owner: &Owner) {
        if *owner == Owner::Nobody {
            return;
        }
        self.proven -= 1;
        let Owner::Unit(unit) = owner else { return };
        if let Some(held) = self.by_unit.get_mut(unit) {
            *held -= 1;
            if *held == 0 {
                self.by_unit.remove(unit);
            }
        }
    }
}

impl Seat {
    fn worth(&self) -> Worth {
        match self.owner {
            Owner::Nobody => Worth::Unproven(self.used),
            _ if self.connection.is_answering() => Worth::Answering(self.used),
            _ => Worth::Proven(self.used),
        }
    }
}

impl Owner {
    /// Whether it is already whom somebody proved to be.
    fn is(&self, unit: Option<&UnitId>) -> bool {
        match self {
            Self::Nobody => false,
            Self::Anybody => unit.is_none(),
            Self::Unit(own) => Some(own) == unit,
        }
    }
}
