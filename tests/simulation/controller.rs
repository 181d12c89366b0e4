//! One simulated controller: the real log, signers and planners on a runtime of their own whose time only the world moves.
//! Its disk and its clock outlive it. Dropping the runtime is a crash: nothing is closed, nobody is told.

mod sessions;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use dotmac_controller::{
    dispatch::{self, Answering},
    leader,
    leader::Liveness,
    log::Log as _,
    metrics::Metrics,
    node::{Node, NodeParts},
    raft::{End, RaftConfig, RaftLog, simulation::granted},
    storage::engine::{EngineConfig, FatalError, MemoryRecords},
    traces::Traces,
};
use dotmac_domain::{command::Genesis, rules::RULES_VERSION};
use dotmac_protocol::{ids::NodeId, time::Timestamp};
use dotmac_runtime::{
    clock::{Clock, ManualClock},
    entropy::Entropy,
    supervise,
};
use tokio::{
    runtime::{Builder, RngSeed, Runtime},
    time::Instant,
};

use crate::{
    genesis::{START, key},
    network::{Cargo, Network, Place},
};
use sessions::Sessions;

/// Snapshots so rare that a world never sees one.
const NEVER: u64 = 1_000_000;

/// What went wrong by itself: nobody may stop unless a fault stopped it.
pub(crate) type Troubles = Arc<Mutex<Vec<String>>>;

/// See the module's text.
pub(crate) struct Controller {
    pub(crate) place: Place,
    pub(crate) records: MemoryRecords,
    pub(crate) hand: ManualClock,
    clock: Clock,
    genesis: Arc<Genesis>,
    home: PathBuf,
    network: Network,
    troubles: Troubles,
    seed: u64,
    /// How often it was started.
    pub(crate) starts: u64,
    /// Whether its disk was replaced: the others must not take it back.
    pub(crate) is_wiped: bool,
    running: Option<Running>,
}

pub(crate) struct Running {
    pub(crate) log: Arc<RaftLog>,
    pub(crate) node: Arc<Node>,
    sessions: Sessions,
    until: Instant,
    pub(crate) runtime: Runtime,
}

impl Controller {
    pub(crate) fn new(
        place: Place,
        seed: u64,
        home: PathBuf,
        genesis: Arc<Genesis>,
        network: Network,
        troubles: Troubles,
    ) -> Self {
        let (clock, hand) = Clock::manual(Timestamp(START));
        let records = MemoryRecords::default();
        records.slow_down(Duration::from_millis(1));
        Self {
            place,
            records,
            hand,
            clock,
            genesis,
            home,
            network,
            troubles,
            seed,
            starts: 0,
            is_wiped: false,
            running: None,
        }
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Starts it with what its disk holds.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.starts += 1;
        let life = self.seed ^ (self.place << 32) ^ (self.starts << 40);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&life.to_be_bytes()))
            .build()
            .unwrap();
        let entropy = Entropy::seeded(life);
        let (log, node, until) = runtime.block_on(self.open(&entropy));
        let sessions = Sessions::default();
        self.running = Some(Running {
            log,
            node,
            sessions,
            until,
            runtime,
        });
    }

    async fn open(&self, entropy: &Entropy) -> (Arc<RaftLog>, Arc<Node>, Instant) {
        let metrics = Metrics::new(&self.clock);
        let config = RaftConfig {
            node: NodeId(self.place),
            cluster: self.genesis.cluster.clone(),
            members: self.genesis.nodes.clone(),
            founds: true,
            directory: self.home.clone(),
            mark: None,
            engine: EngineConfig::default(),
            snapshot_every: NEVER,
            traces: Traces::default(),
            metrics: metrics.raft.clone(),
        };
        let (troubles, place) = (Arc::clone(&self.troubles), self.place);
        let on_fatal = Arc::new(move |error: &FatalError| {
            let text = format!("the storage of controller {place} failed: {error}");
            troubles.lock().unwrap().push(text);
        });
        let carrier = self.network.carrier(self.place);
        let log = RaftLog::simulate(config, self.records.clone(), carrier, on_fatal, entropy);
        let log = log.await.unwrap();
        let node = Arc::new(Node::new(NodeParts {
            card: self.genesis.card(NodeId(place)).unwrap().clone(),
            genesis: Arc::clone(&self.genesis),
            founding_rules: RULES_VERSION,
            clock: self.clock.clone(),
            entropy: entropy.clone(),
            log: log.clone(),
            signing_key: key(u8::try_from(place).unwrap()),
            traces: Traces::default(),
            metrics,
            backup: None,
        }));
        log.set_handler(Arc::new(Answering {
            node: Arc::clone(&node),
            liveness: Liveness::default(),
        }));
        supervise::spawn("dispatch", dispatch::run(Arc::clone(&node)));
        supervise::spawn("planners", leader::run_planners(Arc::clone(&node)));
        let (watched, troubles) = (log.clone(), Arc::clone(&self.troubles));
        let is_wiped = self.is_wiped;
        supervise::spawn("watch", async move {
            let end = watched.ended().await;
            // Whoever lost its disk has to end when the others tell it so.
            if !(is_wiped && matches!(end, End::Refused(_))) {
                let text = format!("controller {place} stopped by itself: {end:?}");
                troubles.lock().unwrap().push(text);
            }
        });
        (log, node, Instant::now())
    }

    /// Ends it where it is. What no sync made durable is lost with the power, and stays otherwise.
    pub(crate) fn crash(&mut self, loses_power: bool) {
        self.running = None;
        if loses_power {
            self.records.lose_power();
        }
    }

    /// Gives it an empty disk.
    pub(crate) fn wipe(&mut self) {
        assert!(self.running.is_none(), "it still runs");
        self.records.wipe();
        self.is_wiped = true;
    }

    /// Lets time pass for it.
    pub(crate) fn step(&mut self, millis: u64) {
        self.hand.advance_millis(millis);
        if let Some(running) = &mut self.running {
            running.until += Duration::from_millis(millis);
            let until = running.until;
            running
                .runtime
                .block_on(async { tokio::time::sleep_until(until).await });
            running
                .sessions
                .deliver(&running.node, self.place, &self.network);
        }
    }

    /// Takes a letter; nobody does while it does not run.
    pub(crate) fn take(&mut self, from: Place, cargo: Cargo) {
        let Some(running) = &mut self.running else {
            return;
        };
        match cargo {
            Cargo::Ask { asked, answer } => {
                let (log, network, place) = (running.log.clone(), self.network.clone(), self.place);
                let _entered = running.runtime.enter();
                supervise::spawn("question", async move {
                    if let Some(answered) = log.hear(from, &asked).await {
                        if let Some(granted) = granted(&asked, &answered) {
                            network.note_vote(place, granted);
                        }
                        network.send(place, from, Cargo::Answer { answered, answer });
                    }
                });
            }
            Cargo::Answer { answered, answer } => {
                if let Some(waiting) = answer.lock().unwrap().take() {
                    // Whoever asked may have given up.
                    let _ = waiting.send(answered);
                }
            }
            Cargo::Up { session, frame } => {
                let _entered = running.runtime.enter();
                let from = (from, session);
                running
                    .sessions
                    .take(&running.node, (self.place, &self.network), from, frame);
            }
            Cargo::Down { .. } => {}
        }
    }

    /// Whether it leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        let leads = |running: &Running| {
            running.log.leadership().borrow().leader == Some(NodeId(self.place))
        };
        self.running.as_ref().is_some_and(leads)
    }
}
