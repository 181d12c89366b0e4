//! One simulated agent: the real link, enrolment, trust, journal, chain and intake of the agent's crate, wired as its
//! `app` wires them. In place of reconciler and driver it keeps units in memory and says that they run.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use dotmac_agent::{
    chain::{Chain, ChainLimits, Owner},
    intake::Intake,
    journal::Journal,
    license_time::LicenseTime,
    link::{
        self, Host, Link, LinkParts, LinkState,
        enrol::Enrolment,
        identity::{Certificate, IdentityStore, Keys},
    },
    signed_clock::ClockStore,
    stations::Stations,
    trust::TrustStore,
    unit::{About, Desired, Order, Wanted},
};
use dotmac_protocol::{
    frame::{JoinToken, Question},
    ids::{Generation, NodeId, Sequence, UnitId},
    record::{Event, Health, HealthStatus, Limits, Outcome, Receipt},
};
use dotmac_runtime::{clock::Clock, disk::SystemDisk, entropy::Entropy, quic, supervise};
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, watch};

use super::Seen;

/// Enrols and lives until its record chain fails.
pub(super) async fn live(
    home: &Path,
    token: JoinToken,
    enrolments: &Semaphore,
    seen: &Arc<watch::Sender<Seen>>,
) -> Result<()> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let endpoint = quic::endpoint(None, None, &entropy.bytes(), &entropy)?;
    let store = IdentityStore::open(&home.join("identity"))?;
    let keys = store.keys(&entropy)?;
    let certificate = {
        let _slot = enrolments.acquire().await?;
        let enrolment = Enrolment {
            endpoint: &endpoint,
            clock: &clock,
            entropy: &entropy,
            keys: &keys,
            store: &store,
        };
        link::join(&enrolment, &token, &token.region, &home.join("trust")).await?
    };
    seen.send_modify(|seen| seen.enrolled += 1);
    let (intake, chain) = open(home, &keys, &certificate, &clock)?;
    let host = Arc::new(MemoryDriver::default());
    let desired = intake.desired();
    let driver = Arc::clone(&host).run(desired, Arc::clone(&chain), Arc::clone(seen));
    let driver = supervise::spawn("bench driver", driver);
    let mut failure = chain.failure();
    let parts = LinkParts {
        endpoint,
        clock,
        entropy,
        keys,
        store,
        intake,
        chain,
        host,
        software: dotmac_agent::app::VERSION.to_owned(),
    };
    let link = Link::new(parts, certificate)?;
    let sessions = note_sessions(link.state(), seen);
    tokio::select! {
        () = link.run() => {}
        () = sessions => {}
        _ = failure.wait_for(Option::is_some) => {}
    }
    driver.abort();
    Ok(())
}

/// Everything on disk, as an agent's start opens it.
fn open(
    home: &Path,
    keys: &Keys,
    certificate: &Certificate,
    clock: &Clock,
) -> Result<(Arc<Intake>, Arc<Chain>)> {
    let trust = TrustStore::open(&home.join("trust"))?.context("no trust root was pinned")?;
    let agent = certificate.agent.clone();
    let owner = Owner {
        agent: agent.clone(),
        incarnation: keys.incarnation.clone(),
        key: keys.identity.clone(),
    };
    let (disk, limits) = (SystemDisk::shared(), ChainLimits::default());
    let opened = Chain::open(&home.join("chain"), owner, disk, clock.clone(), limits)?;
    let (journal, _) = Journal::open(&home.join("journal"), agent.clone(), [].into(), &trust)?;
    let (clocks, _) = ClockStore::open(&home.join("trust"), agent, &trust);
    let chain = Arc::new(opened.chain);
    let recorded = Arc::clone(&chain);
    let stations = Stations::default();
    let (time, _) = LicenseTime::open(home.join("license_time"), clocks.at(), clock.clone());
    let intake = Intake::new(
        journal,
        trust,
        clocks,
        recorded,
        stations,
        time,
        clock.clone(),
    );
    Ok((Arc::new(intake), chain))
}

/// Counts sessions as they begin and end.
async fn note_sessions(mut state: watch::Receiver<LinkState>, seen: &watch::Sender<Seen>) {
    let mut with: Option<NodeId> = None;
    loop {
        let now = match &*state.borrow_and_update() {
            LinkState::Connected(node) => Some(*node),
            LinkState::Disconnected(_) => None,
        };
        if now != with {
            seen.send_modify(|seen| {
                if let Some(left) = with.and_then(|node| seen.connected.get_mut(&node.0)) {
                    *left = left.saturating_sub(1);
                }
                if let Some(node) = now {
                    *seen.connected.entry(node.0).or_default() += 1;
                    seen.sessions += 1;
                }
            });
            with = now;
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Units that are only said to run.
#[derive(Debug, Default)]
struct MemoryDriver {
    done: Mutex<BTreeMap<UnitId, (Generation, Sequence)>>,
}

impl MemoryDriver {
    /// Records of every new order that it was carried out and is healthy, or gone.
    async fn run(
        self: Arc<Self>,
        mut desired: watch::Receiver<Arc<Desired>>,
        chain: Arc<Chain>,
        seen: Arc<watch::Sender<Seen>>,
    ) {
        loop {
            let wanted = Arc::clone(&desired.borrow_and_update());
            for one in wanted.values() {
                let order = (one.generation, one.sequence);
                if self.lock().get(&one.unit) == Some(&order) {
                    continue;
                }
                let (chain, about) = (Arc::clone(&chain), About::wanted(one));
                let events = events(one);
                let recording = tokio::task::spawn_blocking(move || {
                    events
                        .into_iter()
                        .try_for_each(|event| chain.append(&about, event).map(|_| ()))
                });
                if !matches!(recording.await, Ok(Ok(()))) {
                    // The chain says so itself, and the agent ends with it.
                    return;
                }
                self.lock().insert(one.unit.clone(), order);
                seen.send_modify(|seen| seen.accepted += 1);
            }
            if desired.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<UnitId, (Generation, Sequence)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reconciler would record.
fn events(wanted: &Wanted) -> Vec<Event> {
    let receipt = |outcome| {
        Event::Receipt(Receipt {
            leaf: wanted.leaf,
            generation: wanted.generation,
            sequence: wanted.sequence,
            outcome,
            hops: Vec::new(),
        })
    };
    match wanted.order {
        Order::Remove => vec![receipt(Outcome::Removed)],
        Order::Keep(_) => {
            let limits = Limits::NotEnforced {
                reason: "simulated".into(),
            };
            let health = Health {
                generation: wanted.generation,
                status: HealthStatus::Healthy,
                reason: String::new(),
                components: Vec::new(),
                hops: Vec::new(),
            };
            vec![receipt(Outcome::Applied { limits }), Event::Health(health)]
        }
    }
}

impl Host for MemoryDriver {
    fn health(&self, unit: &UnitId) -> HealthStatus {
        match self.lock().get(unit) {
            Some(_) => HealthStatus::Healthy,
            None => HealthStatus::Unknown,
        }
    }

    fn answer(&self, _: Question) -> BoxFuture<'_, Result<mpsc::Receiver<String>, String>> {
        Box::pin(async { Err("a simulated agent runs nothing".to_owned()) })
    }
}
