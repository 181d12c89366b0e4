//! What goes wrong in a world, when, and whether it did: a seed promises some kinds, and each of them has to happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dotmac_protocol::time::Timestamp;

use crate::{
    genesis::START,
    network::{AGENTS, Place},
    random::Random,
    world::Cast,
};

mod replaced_disk;

use replaced_disk::ReplacedDisk;

/// Milliseconds for which new faults begin.
const SEASON_MS: u64 = 14_000;
/// Milliseconds by which a clock is off at most: what signers and witnesses still bear.
const CLOCK_OFF_MS: u64 = 25_000;
/// How often faults that had no effect are tried again.
const ROUNDS_MAX: u32 = 5;
/// Controllers.
const NODES: [Place; 3] = [1, 2, 3];

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A controller's process ends.
    Kill,
    /// A controller's power goes.
    PowerLoss,
    /// The power of all controllers goes at once.
    Blackout,
    /// Ways between places are cut in both directions.
    Partition,
    /// Ways are cut in one direction.
    OneWay,
    /// Each sync of a controller takes long.
    SlowDisk,
    /// A controller's clock jumps, forwards or back.
    ClockJump,
    /// An agent's process ends, or its power goes.
    AgentCrash,
    /// Letters come twice.
    Twice,
    /// Letters overtake each other.
    Late,
    /// A controller comes back with an empty disk, just when that is worst.
    ReplacedDisk,
}

/// All but the last, which needs calm around it.
const MIXED: [Kind; 10] = [
    Kind::Kill,
    Kind::PowerLoss,
    Kind::Blackout,
    Kind::Partition,
    Kind::OneWay,
    Kind::SlowDisk,
    Kind::ClockJump,
    Kind::AgentCrash,
    Kind::Twice,
    Kind::Late,
];

#[derive(Debug, Clone)]
enum Action {
    Begin(Kind),
    Start(usize),
    StartAgent(usize),
    Mend(Vec<(Place, Place)>),
    SpeedUp(usize),
    SetClock(usize),
    Clear(Kind),
}

/// See the module's text.
pub(crate) struct Faults {
    random: Random,
    promised: BTreeSet<Kind>,
    injected: BTreeMap<Kind, u64>,
    plan: BTreeMap<(u64, u64), Action>,
    number: u64,
    rounds: u32,
    replaced_disk: Option<ReplacedDisk>,
}

impl Faults {
    pub(crate) fn new(mut random: Random) -> Self {
        let mut promised = BTreeSet::new();
        while promised.len() < 5 {
            promised.insert(*random.pick(&MIXED));
        }
        let replaces_disk = random.chance(250);
        Self {
            random,
            promised,
            injected: BTreeMap::new(),
            plan: BTreeMap::new(),
            number: 0,
            rounds: 0,
            replaced_disk: replaces_disk.then(ReplacedDisk::default),
        }
    }

    /// Sets out what happens from now on.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        for kind in self.promised.clone() {
            for _ in 0..self.random.between(1, 4) {
                let at = now_ms + self.random.below(SEASON_MS);
                self.put(at, Action::Begin(kind));
            }
        }
    }

    /// Does what is due. `false` once everything is over.
    pub(crate) fn step(&mut self, now_ms: u64, cast: &mut Cast<'_>) -> bool {
        while let Some((&(at, number), _)) = self.plan.first_key_value() {
            if at > now_ms {
                return true;
            }
            let action = self.plan.remove(&(at, number)).expect("it is the first");
            cast.trace.note(now_ms, &format!("fault {action:?}"));
            self.act(action, now_ms, cast);
        }
        // What had no effect, because nobody was there to feel it, is done again.
        let missing = self.account(cast).1;
        if !missing.is_empty() && self.rounds < ROUNDS_MAX {
            self.rounds += 1;
            for kind in missing {
                self.put(now_ms + 100, Action::Begin(kind));
            }
            return true;
        }
        match &mut self.replaced_disk {
            Some(replaced) => {
                let goes_on = replaced.step(now_ms, cast);
                if !goes_on {
                    self.injected.insert(Kind::ReplacedDisk, 1);
                    self.promised.insert(Kind::ReplacedDisk);
                    self.replaced_disk = None;
                }
                goes_on
            }
            None => false,
        }
    }

    /// The kinds that were promised, and those of them that had no effect.
    pub(crate) fn account(&self, cast: &Cast<'_>) -> (Vec<Kind>, Vec<Kind>) {
        let done = cast.network.done();
        let has_effect = |kind: &Kind| {
            let injected = self.injected.contains_key(kind);
            injected
                && match kind {
                    Kind::Twice => done.twice > 0,
                    Kind::Late => done.late > 0,
                    Kind::Partition | Kind::OneWay => done.cut > 0,
                    _ => true,
                }
        };
        let promised: Vec<Kind> = self.promised.iter().copied().collect();
        let missing = promised.iter().filter(|kind| !has_effect(kind));
        (promised.clone(), missing.copied().collect())
    }

    fn act(&mut self, action: Action, now_ms: u64, cast: &mut Cast<'_>) {
        match action {
            Action::Begin(kind) => {
                if self.inject(kind, now_ms, cast) {
                    *self.injected.entry(kind).or_default() += 1;
                } else {
                    self.put(now_ms + 200, Action::Begin(kind));
                }
            }
            Action::Start(index) => cast.controllers[index].start(),
            Action::StartAgent(index) => cast.agents[index].start(),
            Action::Mend(ways) => cast.network.mend(&ways),
            Action::SpeedUp(index) => {
                let records = &cast.controllers[index].records;
                records.slow_down(Duration::from_millis(1));
            }
            Action::SetClock(index) => {
                cast.controllers[index].hand.set(Timestamp(START + now_ms));
            }
            Action::Clear(kind) => cast.network.change_weather(|weather| match kind {
                Kind::Twice => weather.twice = 0,
                _ => weather.late = 0,
            }),
        }
    }

    /// Lets it happen; `false` when there is nothing to do it to at the moment.
    fn inject(&mut self, kind: Kind, now_ms: u64, cast: &mut Cast<'_>) -> bool {
        let lasts = now_ms + self.random.between(300, 4_000);
        let index = usize::try_from(self.random.below(3)).unwrap();
        match kind {
            Kind::Kill | Kind::PowerLoss => {
                if cast.controllers[index].running().is_none() {
                    return false;
                }
                cast.controllers[index].crash(kind == Kind::PowerLoss);
                self.put(lasts, Action::Start(index));
            }
            Kind::Blackout => {
                if cast.controllers.iter().any(|one| one.running().is_none()) {
                    return false;
                }
                for index in 0..3 {
                    cast.controllers[index].crash(true);
                    let at = lasts + self.random.below(1_000);
                    self.put(at, Action::Start(index));
                }
            }
            Kind::Partition | Kind::OneWay => {
                let ways = self.ways(kind == Kind::OneWay);
                cast.network.cut(ways.clone());
                self.put(lasts, Action::Mend(ways));
            }
            Kind::SlowDisk => {
                let takes_ms = self.random.between(30, 600);
                let records = &cast.controllers[index].records;
                records.slow_down(Duration::from_millis(takes_ms));
                self.put(lasts, Action::SpeedUp(index));
            }
            Kind::ClockJump => {
                let off_ms = self.random.between(1_000, CLOCK_OFF_MS);
                let true_now = START + now_ms;
                let wrong = if self.random.chance(500) {
                    true_now + off_ms
                } else {
                    true_now - off_ms
                };
                cast.controllers[index].hand.set(Timestamp(wrong));
                self.put(lasts, Action::SetClock(index));
            }
            Kind::AgentCrash => {
                let index = usize::try_from(self.random.below(2)).unwrap();
                if !cast.agents[index].is_running() {
                    return false;
                }
                cast.agents[index].crash(self.random.chance(500));
                self.put(lasts, Action::StartAgent(index));
            }
            Kind::Twice => {
                let twice = self.random.between(50, 400);
                cast.network.change_weather(|weather| weather.twice = twice);
                self.put(lasts + 3_000, Action::Clear(kind));
            }
            Kind::Late => {
                let late = self.random.between(50, 300);
                cast.network.change_weather(|weather| weather.late = late);
                self.put(lasts + 3_000, Action::Clear(kind));
            }
            Kind::ReplacedDisk => return false,
        }
        true
    }

    /// The ways of a partition of some shape.
    fn ways(&mut self, one_way: bool) -> Vec<(Place, Place)> {
        let lone = *self.random.pick(&NODES);
        let others: Vec<Place> = NODES.into_iter().filter(|one| *one != lone).collect();
        let agents = [AGENTS, AGENTS + 1];
        let mut ways: Vec<(Place, Place)> = match self.random.below(4) {
            // One controller apart, alone or with the agents' ways to it.
            0 => others.iter().map(|one| (lone, *one)).collect(),
            1 => {
                let all = others.iter().chain(&agents);
                all.map(|one| (lone, *one)).collect()
            }
            // A single way: the others still hear both.
            2 => vec![(lone, others[0])],
            // Nobody hears anybody, or each hears one.
            _ => vec![(1, 2), (2, 3), (3, 1)],
        };
        if one_way {
            if self.random.chance(500) {
                ways = ways.into_iter().map(|(from, to)| (to, from)).collect();
            }
        } else {
            let back: Vec<_> = ways.iter().map(|(from, to)| (*to, *from)).collect();
            ways.extend(back);
        }
        ways
    }

    fn put(&mut self, at: u64, action: Action) {
        self.number += 1;
        self.plan.insert((at, self.number), action);
    }
}
