//! One world: three controllers, two agents, two clients, a network, and time that passes step by step for all of them.
//! One thread, one seed: everything in it happens again when the seed does.

use std::sync::{Arc, Mutex};

use dotmac_controller::{log::Log as _, raft::simulation::seed_elections};
use dotmac_protocol::{ids::NodeId, time::Timestamp};
use dotmac_runtime::entropy::Entropy;

use crate::{
    agent::Agent,
    clients::Clients,
    controller::{Controller, Troubles},
    faults::{Faults, Kind},
    genesis::genesis,
    invariants::{self, AgentView, ControllerView, Invariant, View},
    network::{AGENTS, Network},
    random::Random,
    trace::Trace,
};

/// Milliseconds that pass at once.
const STEP_MS: u64 = 4;
/// Steps between two looks at the invariants.
const LOOK_EVERY: u64 = 10;
/// Milliseconds in which the cluster has to be ready for faults.
const READY_MS: u64 = 20_000;
/// Milliseconds of faults at most; each has a moment at which it can happen well before.
const FAULTS_MS: u64 = 90_000;
/// Milliseconds after the faults in which everything has to be well.
const SETTLE_MS: u64 = 60_000;

/// How a world came out.
pub(crate) struct Outcome {
    /// Which invariant broke and how; none when all held.
    pub(crate) broken: Option<(&'static str, String)>,
    /// Equal for equal runs.
    pub(crate) digest: String,
    /// What happened last, in words.
    pub(crate) tail: Vec<String>,
    /// Kinds of faults that happened.
    pub(crate) faults: Vec<Kind>,
    /// Requests that were answered.
    pub(crate) acknowledged: usize,
    /// Events in the story.
    pub(crate) events: u64,
}

/// Those to whom faults happen.
pub(crate) struct Cast<'a> {
    pub(crate) controllers: &'a mut [Controller],
    pub(crate) agents: &'a mut [Agent],
    pub(crate) network: &'a Network,
    pub(crate) trace: &'a mut Trace,
    /// How many requests were answered so far.
    pub(crate) acknowledged: usize,
}

struct World {
    now_ms: u64,
    steps: u64,
    controllers: Vec<Controller>,
    agents: Vec<Agent>,
    clients: Clients,
    network: Network,
    faults: Faults,
    invariants: Vec<Box<dyn Invariant>>,
    troubles: Troubles,
    trace: Trace,
    seen: Vec<(u64, u64, bool)>,
    _home: tempfile::TempDir,
}

/// Runs one seed. `only` looks at a single invariant; `is_loud` prints the story.
pub(crate) fn run(seed: u64, only: Option<&str>, is_loud: bool) -> Outcome {
    let mut world = World::new(seed, only, is_loud);
    let broken = world.live().err();
    if let Some((name, why)) = &broken {
        world
            .trace
            .note(world.now_ms, &format!("BROKEN {name}: {why}"));
    }
    let (faults, _) = world.account();
    Outcome {
        broken,
        digest: world.trace.digest(),
        tail: world.trace.tail(60),
        faults,
        acknowledged: world.clients.acknowledged.len(),
        events: world.trace.events(),
    }
}

type Broken = (&'static str, String);

impl World {
    fn new(seed: u64, only: Option<&str>, is_loud: bool) -> Self {
        let mut random = Random::new(seed);
        seed_elections(Entropy::seeded(random.next()));
        // Memory where there is a file system of it: nothing of a simulated world has to survive it.
        let memory = std::path::Path::new("/dev/shm");
        let home = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let home = home.unwrap();
        let network = Network::new(random.fork());
        let troubles: Troubles = Arc::new(Mutex::new(Vec::new()));
        let genesis = Arc::new(genesis());
        let controllers = (1..=3).map(|place| {
            let folder = home.path().join(format!("controller-{place}"));
            std::fs::create_dir(&folder).unwrap();
            Controller::new(
                place,
                seed,
                folder,
                Arc::clone(&genesis),
                network.clone(),
                Arc::clone(&troubles),
            )
        });
        let controllers: Vec<_> = controllers.collect();
        let agents = (0..2).map(|number| {
            Agent::new(
                number,
                home.path().join(format!("agent-{number}")),
                genesis.trust_root.clone(),
                network.clone(),
                Arc::clone(&troubles),
                random.fork(),
            )
        });
        let agents = agents.collect();
        let mut invariants = invariants::all();
        invariants.retain(|one| only.is_none_or(|only| only == one.name()));
        Self {
            now_ms: 0,
            steps: 0,
            controllers,
            agents,
            clients: Clients::new(random.fork()),
            network,
            faults: Faults::new(random.fork()),
            invariants,
            troubles,
            trace: Trace::new(is_loud),
            seen: vec![(0, 0, false); 3],
            _home: home,
        }
    }

    fn live(&mut self) -> Result<(), Broken> {
        for controller in &mut self.controllers {
            controller.start();
        }
        while !self.clients.is_prepared() {
            self.step()?;
            self.expect(READY_MS, "the cluster does not get ready")?;
        }
        for agent in &mut self.agents {
            agent.start();
        }
        self.faults.begin(self.now_ms);
        let begun = self.now_ms;
        while self.go_wrong() {
            self.step()?;
            self.expect(begun + FAULTS_MS, "the faults do not come to an end")?;
        }
        let (_, missing) = self.account();
        if !missing.is_empty() {
            return Err(("faults", format!("{missing:?} had no effect")));
        }
        self.settle()
    }

    fn go_wrong(&mut self) -> bool {
        let mut cast = Cast {
            controllers: &mut self.controllers,
            agents: &mut self.agents,
            network: &self.network,
            trace: &mut self.trace,
            acknowledged: self.clients.acknowledged.len(),
        };
        self.faults.step(self.now_ms, &mut cast)
    }

    fn account(&mut self) -> (Vec<Kind>, Vec<Kind>) {
        let cast = Cast {
            controllers: &mut self.controllers,
            agents: &mut self.agents,
            network: &self.network,
            trace: &mut self.trace,
            acknowledged: self.clients.acknowledged.len(),
        };
        self.faults.account(&cast)
    }

    /// Everything is mended; then everything has to become well.
    fn settle(&mut self) -> Result<(), Broken> {
        self.trace.note(self.now_ms, "faults are over");
        self.network.calm();
        self.clients.is_closing = true;
        for controller in &mut self.controllers {
            let true_now = crate::genesis::START + self.now_ms;
            controller.hand.set(Timestamp(true_now));
        }
        let until = self.now_ms + SETTLE_MS;
        loop {
            self.step()?;
            if !self.steps.is_multiple_of(LOOK_EVERY) {
                continue;
            }
            let unsettled = invariants::unsettled(&self.view());
            if unsettled.is_none() || self.now_ms >= until {
                break;
            }
        }
        let mut invariants = std::mem::take(&mut self.invariants);
        let view = self.view();
        for one in &mut invariants {
            one.conclude(&view).map_err(|why| (one.name(), why))?;
        }
        Ok(())
    }

    fn expect(&self, until: u64, what: &str) -> Result<(), Broken> {
        if self.now_ms < until {
            return Ok(());
        }
        Err(("faults", what.to_owned()))
    }

    fn step(&mut self) -> Result<(), Broken> {
        self.now_ms += STEP_MS;
        self.steps += 1;
        for letter in self.network.due(self.now_ms) {
            if letter.to >= AGENTS {
                let index = usize::try_from(letter.to - AGENTS).unwrap();
                self.agents[index].take(letter.from, letter.cargo, self.now_ms);
            } else {
                let index = usize::try_from(letter.to).unwrap() - 1;
                self.controllers[index].take(letter.from, letter.cargo);
            }
        }
        for controller in &mut self.controllers {
            controller.step(STEP_MS);
        }
        for agent in &mut self.agents {
            agent.step(self.now_ms, STEP_MS);
        }
        let (controllers, trace) = (&self.controllers, &mut self.trace);
        self.clients.step(self.now_ms, controllers, trace);
        self.note_progress();
        if !self.steps.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        let mut invariants = std::mem::take(&mut self.invariants);
        let view = self.view();
        for one in &mut invariants {
            one.observe(&view).map_err(|why| (one.name(), why))?;
        }
        drop(view);
        self.invariants = invariants;
        Ok(())
    }

    /// Writes down how far each controller is: what two runs have to agree on.
    fn note_progress(&mut self) {
        for (controller, seen) in self.controllers.iter().zip(&mut self.seen) {
            let Some(running) = controller.running() else {
                continue;
            };
            let term = running.log.leadership().borrow().term;
            let applied = *running.log.applied().borrow();
            let now = (term, applied, controller.leads());
            if *seen != now {
                *seen = now;
                let place = controller.place;
                let leads = if now.2 { " and leads" } else { "" };
                let text = format!("controller {place} is at {applied} in term {term}{leads}");
                self.trace.note(self.now_ms, &text);
            }
        }
    }

    fn view(&self) -> View<'_> {
        let running = self.controllers.iter();
        let running = running.filter_map(|one| Some((one, one.running()?)));
        let controllers = running.map(|(one, running)| {
            let leadership = *running.log.leadership().borrow();
            let leads = leadership.leader == Some(NodeId(one.place));
            ControllerView {
                place: one.place,
                starts: one.starts,
                is_wiped: one.is_wiped,
                applied: *running.log.applied().borrow(),
                state: running.log.state(),
                ledger: running.log.ledger().clone(),
                leads_in: leads.then_some(leadership.term),
            }
        });
        let agents = self.agents.iter().map(|one| AgentView {
            id: one.id.clone(),
            desired: one.desired(),
            instances: one.instances.clone(),
            power_losses: one.power_losses,
            is_heard: one.is_heard(),
        });
        View {
            controllers: controllers.collect(),
            agents: agents.collect(),
            votes: self.network.take_votes(),
            acknowledged: &self.clients.acknowledged,
            deleted: &self.clients.deleted,
            troubles: self.troubles.lock().unwrap().clone(),
            is_idle: self.clients.is_idle(),
        }
    }
}
