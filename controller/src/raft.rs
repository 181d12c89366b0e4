//! One replicated log for all controllers: proposals in, the applied State and its facts out.
//!
//! ```text
//!   propose -> batcher -> (leader's batcher ->) Raft -> log_store      on disk on a majority
//!                                                |
//!                                          state_machine -> State, ledger, snapshots
//!   barrier -> read                links -> server                    streams between controllers
//! ```
//! It refuses to decide what an entry means: that is `dotmac_domain`.

pub mod batcher;
mod config;
mod elections;
mod leadership;
pub mod links;
pub mod lives;
pub mod log_store;
pub mod mark;
pub mod membership;
pub mod network;
pub mod read;
pub mod restored;
mod roster;
pub mod rpc;
pub mod runtime;
pub mod server;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod state_machine;
mod stores;
pub mod types;
pub mod welcome;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod store_tests;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use dotmac_domain::{
    Envelope, Reply, State,
    audit::{Fact, Stream},
};
use dotmac_protocol::ids::NodeId;
use dotmac_runtime::{causes, disk::SharedDisk, entropy::Entropy, supervise};
use futures::future::BoxFuture;
use openraft::error::{InitializeError, RaftError};
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::{sync::watch, task::JoinHandle};

pub use config::{RaftConfig, SNAPSHOT_EVERY, StartError};

use crate::{
    log::{Changes, Figures, Leadership, Log, LogError, Moment},
    peers::{PeerAnswer, PeerCall, PeerHandler},
    storage::{
        engine::{Engine, OnFatal},
        ledger::Ledger,
        pace::Pace,
    },
};
use batcher::{Batcher, Proposer};
use config::{Timing, nodes, settings};
use elections::Elections;
pub use leadership::End;
use leadership::watch_raft;
use links::{AskError, Links, ends_at};
use lives::Lives;
use log_store::LogStore;
use network::Network;
use read::Reader;
use roster::Roster;
use rpc::{PeerReply, PeerRequest, Refusal};
use server::{PeerServer, Shared};
use state_machine::View;
use stores::Stores;
use types::Raft;
use welcome::{Unwelcome, watch_welcome};

/// What a controller logs unless told otherwise. The Raft library calls every beat that a peer misses an error; who leads, who
/// is connected and why Raft stopped is said here.
pub const LOG_FILTER: &str = "warn,openraft=off,dotmac=info";

/// The replicated log on one controller.
pub struct RaftLog {
    raft: Raft,
    engine: Engine,
    ledger: Ledger,
    pace: Pace,
    lease_ms: u64,
    links: Links,
    entries: LogStore,
    view: View,
    leadership: watch::Receiver<Leadership>,
    ended: watch::Receiver<Option<End>>,
    batcher: Batcher,
    reader: Reader,
    server: PeerServer,
    node: NodeId,
    roster: Roster,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for RaftLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RaftLog({:?})", *self.leadership.borrow())
    }
}

impl RaftLog {
    /// Opens the storage and starts to take part. `endpoint` dials the peers with `client`, which shows this node's
    /// certificate; whoever accepts connections hands those of controllers to [`RaftLog::serve`].
    pub async fn start(
        config: RaftConfig,
        endpoint: Endpoint,
        client: ClientConfig,
        disk: SharedDisk,
        on_fatal: OnFatal,
        entropy: &Entropy,
    ) -> Result<Arc<Self>, StartError> {
        let pace = Pace::default();
        if let Some(mark) = &config.mark {
            mark.check_there(&config.directory)?;
        }
        let stores = Stores::open(&config, pace.observe(Arc::clone(&disk)), on_fatal).await?;
        let lives = Lives::open(stores.engine.clone(), entropy).await?;
        if let Some(mark) = &config.mark
            && let Err(wiped) = mark.check_life(&config.directory, lives.own(), disk.as_ref())
        {
            stores.engine.close().await;
            return Err(wiped);
        }
        let links = Links::new(endpoint, client, lives, Roster::of(&config.members));
        Self::join(config, stores, links, pace).await
    }

    /// Takes part with what is on the disk, over these links.
    async fn join(
        config: RaftConfig,
        stores: Stores,
        links: Links,
        pace: Pace,
    ) -> Result<Arc<Self>, StartError> {
        let timing = Timing::of_disk(&pace);
        let nodes = nodes(&config.members);
        for (node, place) in nodes.iter().filter(|(node, _)| **node != config.node.0) {
            links.keep(*node, &place.link_address);
        }
        let elections = Elections::default();
        let network = Network::new(links.clone(), stores.ledger.clone(), elections.clone());
        let settings = Arc::new(settings(&config, timing)?);
        let entries = stores.log.clone();
        let raft = Raft::new(config.node.0, settings, network, stores.log, stores.machine)
            .await
            .map_err(|error| StartError::Raft(causes::in_full(&error)))?;
        if config.founds {
            match raft.initialize(nodes).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(StartError::Raft(causes::in_full(&error))),
            }
        }
        let roster = links.roster().clone();
        let node = config.node.0;
        let (batcher, proposing) = Batcher::start(Proposer {
            node,
            raft: raft.clone(),
            links: links.clone(),
            engine: stores.engine.clone(),
            traces: config.traces.clone(),
            metrics: config.metrics.clone(),
        });
        let (reader, reading) =
            Reader::start(node, raft.clone(), links.clone(), stores.view.applied());
        let server = PeerServer::new(Shared {
            raft: raft.clone(),
            links: links.clone(),
            engine: stores.engine.clone(),
            ledger: stores.ledger.clone(),
            snapshots: stores.snapshots,
            batcher: batcher.clone(),
            roster: roster.clone(),
            elections: elections.clone(),
            handler: OnceLock::new(),
            receiving: tokio::sync::Mutex::default(),
        });
        let (leadership_sender, leadership) = watch::channel(Leadership::default());
        let (ended_sender, ended) = watch::channel(None);
        let watching = supervise::spawn(
            "leadership",
            watch_raft(
                raft.clone(),
                leadership_sender,
                ended_sender.clone(),
                config.metrics.leader_changes,
            ),
        );
        let patience = timing.patience(config.node);
        let standing = elections.clone().run(raft.clone(), patience);
        let standing = supervise::spawn("elections", standing);
        let welcomed = watch_welcome(
            raft.clone(),
            elections,
            links.welcome().clone(),
            links.connected(),
            ended_sender,
        );
        let welcomed = supervise::spawn("welcome", welcomed);
        Ok(Arc::new(Self {
            raft,
            engine: stores.engine,
            ledger: stores.ledger,
            pace,
            lease_ms: timing.lease_ms(),
            links,
            entries,
            view: stores.view,
            leadership,
            ended,
            batcher,
            reader,
            server,
            node: config.node,
            roster,
            tasks: Mutex::new(vec![proposing, reading, watching, standing, welcomed]),
        }))
    }

    /// Whom the product's own calls of peers go to. Until then they are refused.
    pub fn set_handler(&self, handler: Arc<dyn PeerHandler>) {
        self.server.set_handler(handler);
    }

    /// Serves a connection that another controller opened, until it ends.
    pub async fn serve(&self, connection: Connection) {
        self.server.serve(connection).await;
    }

    /// Resolves when this controller takes part no longer, with the reason: the process should end.
    pub async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        let end = end.ok().and_then(|end| end.clone());
        end.unwrap_or_else(|| End::Broken("raft was shut down".into()))
    }

    /// Stops taking part and closes the storage; it is free once the last handle is dropped.
    pub async fn shutdown(&self) {
        let tasks = std::mem::take(&mut *self.lock_tasks());
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // Aborted on purpose.
            let _ = task.await;
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft ended by a panic");
        }
        self.links.close();
        self.engine.close().await;
    }

    /// Raft itself, for tests and membership.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The facts.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for RaftLog {
    fn state(&self) -> Arc<State> {
        self.view.state()
    }

    fn moment(&self) -> Moment {
        self.view.moment()
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.view.applied()
    }

    fn changes(&self) -> Changes {
        self.view.changes()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn connected(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.links.connected()
    }

    fn propose(
        &self,
        envelope: Envelope,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Reply, LogError>> {
        Box::pin(async move {
            let answer = self.batcher.propose(envelope, ends_at(deadline)).await;
            answer.map_err(|refusal| log_error(refusal, deadline))
        })
    }

    fn barrier(&self, deadline: Duration) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let reached = self.reader.barrier(ends_at(deadline)).await;
            reached.map_err(|refusal| match refusal {
                Refusal::TimedOut | Refusal::NotLeader => {
                    LogError::Unavailable("no leader answered in time".into())
                }
                refusal => log_error(refusal, deadline),
            })
        })
    }

    fn call(
        &self,
        node: NodeId,
        call: PeerCall,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<PeerAnswer, LogError>> {
        Box::pin(async move {
            let asked = self
                .links
                .ask(node.0, PeerRequest::Call(call), deadline)
                .await;
            let refused = |reason: String| LogError::Refused { node, reason };
            match asked {
                Ok(PeerReply::Answer(answer)) => match *answer {
                    PeerAnswer::Refused(reason) => Err(refused(reason)),
                    answer => Ok(answer),
                },
                Ok(PeerReply::Refused(refusal)) => Err(log_error(refusal, deadline)),
                Ok(_) => Err(refused("an answer to another question".into())),
                Err(AskError::Late { .. }) => Err(LogError::TimedOut(deadline)),
                Err(error) => Err(LogError::Unavailable(causes::in_full(&error))),
            }
        })
    }

    fn storage(&self) -> Result<(), String> {
        let checked = self.engine.check_reserve();
        checked.map_err(|error| causes::in_full(&error))
    }

    fn figures(&self) -> Figures {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let (free_bytes, reserve_bytes) = self.engine.free_and_reserve();
        Figures {
            last_log: metrics.last_log_index.unwrap_or(0),
            committed: self.entries.committed(),
            applied: *self.view.applied().borrow(),
            snapshot: metrics.snapshot.map_or(0, |last| last.index),
            free_bytes,
            reserve_bytes,
            sync: self.pace.median().unwrap_or_default(),
            is_confirmed: metrics
                .millis_since_quorum_ack
                .is_some_and(|since_ms| since_ms <= self.lease_ms),
        }
    }

    fn facts(&self, stream: &Stream, after: u64, limit: usize) -> Result<Vec<Fact>, LogError> {
        let facts = self.ledger.read(stream, after, limit);
        facts.map_err(|error| LogError::Storage(causes::in_full(&error)))
    }
}

fn log_error(refusal: Refusal, deadline: Duration) -> LogError {
    match refusal {
        Refusal::NotLeader => LogError::Unavailable("there is no leader".into()),
        Refusal::Overloaded => LogError::Overloaded,
        Refusal::Reserve(detail) => LogError::LeaderStorage(detail),
        Refusal::TimedOut => LogError::TimedOut(deadline),
        Refusal::Other(detail) => LogError::Unavailable(detail),
        Refusal::Reborn => LogError::Unavailable(Unwelcome::Reborn.to_string()),
    }
}
