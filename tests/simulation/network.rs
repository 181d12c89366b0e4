//! The network between all places of a world: letters that take their time, overtake each other, come twice, and find
//! ways cut, in one direction or both.
//!
//! A letter on a cut way is kept a while and tried again, as a transport would, or lost, as a broken connection loses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use dotmac_controller::raft::simulation::{Carrier, Granted};
use dotmac_protocol::frame::{AgentFrame, ControllerFrame, Delivery, Report};
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::random::Random;

/// Who writes and is written to: controllers from 1, agents from [`AGENTS`].
pub(crate) type Place = u64;
/// The first agent's place.
pub(crate) const AGENTS: Place = 101;
/// How often a letter on a cut way is tried again.
const TRIES_MAX: u32 = 8;

/// Where an answer is awaited; empty once it came.
pub(crate) type Slot = Arc<Mutex<Option<oneshot::Sender<Vec<u8>>>>>;

/// What a letter holds.
#[derive(Clone)]
pub(crate) enum Cargo {
    /// A controller's question to another one.
    Ask { asked: Vec<u8>, answer: Slot },
    /// Its answer.
    Answer { answered: Vec<u8>, answer: Slot },
    /// From an agent, in a session.
    Up { session: u64, frame: Up },
    /// To an agent, in a session.
    Down { session: u64, frame: Down },
}

/// From an agent.
#[derive(Clone)]
pub(crate) enum Up {
    Control(Box<AgentFrame>),
    Report(Report),
}

/// To an agent.
#[derive(Clone)]
pub(crate) enum Down {
    Control(Box<ControllerFrame>),
    Order(Box<Delivery>),
}

/// A letter that arrived.
pub(crate) struct Letter {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) cargo: Cargo,
    tries: u32,
}

/// What the network does to letters at present.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weather {
    /// So many letters in a thousand come twice.
    pub(crate) twice: u64,
    /// So many letters in a thousand come late, behind later ones.
    pub(crate) late: u64,
}

/// What it did to letters so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Done {
    pub(crate) twice: u64,
    pub(crate) late: u64,
    pub(crate) cut: u64,
}

/// The network; clones share it.
#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    now_ms: u64,
    number: u64,
    random: Random,
    under_way: BTreeMap<(u64, u64), Letter>,
    cut: BTreeSet<(Place, Place)>,
    weather: Weather,
    done: Done,
    votes: Vec<(Place, Granted)>,
}

impl Network {
    pub(crate) fn new(random: Random) -> Self {
        let inner = Inner {
            now_ms: 0,
            number: 0,
            random,
            under_way: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            done: Done::default(),
            votes: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(crate) fn send(&self, from: Place, to: Place, cargo: Cargo) {
        self.lock().send(from, to, cargo);
    }

    /// The letters that arrive by now.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<Letter> {
        let mut inner = self.lock();
        inner.now_ms = now_ms;
        let later = inner.under_way.split_off(&(now_ms + 1, 0));
        let due = std::mem::replace(&mut inner.under_way, later);
        let mut arrived = Vec::new();
        for letter in due.into_values() {
            if !inner.cut.contains(&(letter.from, letter.to)) {
                arrived.push(letter);
                continue;
            }
            inner.done.cut += 1;
            if letter.tries < TRIES_MAX && inner.random.chance(700) {
                let at = now_ms + inner.random.between(50, 400);
                let tries = letter.tries + 1;
                inner.put(at, Letter { tries, ..letter });
            }
        }
        arrived
    }

    /// Cuts these ways, each in its one direction.
    pub(crate) fn cut(&self, ways: impl IntoIterator<Item = (Place, Place)>) {
        self.lock().cut.extend(ways);
    }

    /// Mends these ways.
    pub(crate) fn mend(&self, ways: &[(Place, Place)]) {
        self.lock().cut.retain(|way| !ways.contains(way));
    }

    /// Mends everything.
    pub(crate) fn calm(&self) {
        let mut inner = self.lock();
        inner.cut.clear();
        inner.weather = Weather::default();
    }

    pub(crate) fn change_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.lock().weather);
    }

    pub(crate) fn done(&self) -> Done {
        self.lock().done
    }

    /// Notes that somebody gave its vote.
    pub(crate) fn note_vote(&self, voter: Place, granted: Granted) {
        self.lock().votes.push((voter, granted));
    }

    /// The votes given since this was asked last.
    pub(crate) fn take_votes(&self) -> Vec<(Place, Granted)> {
        std::mem::take(&mut self.lock().votes)
    }

    /// The way out of one controller.
    pub(crate) fn carrier(&self, from: Place) -> Arc<dyn Carrier> {
        Arc::new(Way {
            from,
            network: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn send(&mut self, from: Place, to: Place, cargo: Cargo) {
        let mut takes_ms = self.random.between(1, 12);
        let Weather { twice, late } = self.weather;
        if self.random.chance(late) {
            self.done.late += 1;
            takes_ms += self.random.between(20, 600);
        }
        if self.random.chance(twice) {
            self.done.twice += 1;
            let again_ms = self.random.between(1, 800);
            let cargo = cargo.clone();
            let tries = 0;
            self.put(
                self.now_ms + again_ms,
                Letter {
                    from,
                    to,
                    cargo,
                    tries,
                },
            );
        }
        let tries = 0;
        self.put(
            self.now_ms + takes_ms,
            Letter {
                from,
                to,
                cargo,
                tries,
            },
        );
    }

    fn put(&mut self, at: u64, letter: Letter) {
        self.number += 1;
        self.under_way.insert((at, self.number), letter);
    }
}

struct Way {
    from: Place,
    network: Network,
}

impl Carrier for Way {
    fn carry(&self, node: u64, asked: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        let (answer, receiver) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        self.network
            .send(self.from, node, Cargo::Ask { asked, answer });
        Box::pin(async move { receiver.await.ok() })
    }
}
