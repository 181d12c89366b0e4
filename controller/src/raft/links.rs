//! Connections to the other controllers: one each, kept up by a task, a stream a question, every question with a deadline.
//!
//! It refuses a peer that is not the node it dialled, and tells whether an unanswered question may have been heard.

mod keep;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dotmac_protocol::ids::NodeId;
use dotmac_runtime::{
    pki::PeerName,
    quic::{self, FrameError},
    tls,
};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use thiserror::Error;
use tokio::{sync::watch, time::Instant};

use super::{
    lives::{Life, Lives, LivesError},
    roster::Roster,
    rpc::{Answered, Asked, PeerReply, PeerRequest, Refusal},
    welcome::{Unwelcome, Welcome},
};
use keep::{Link, Target};

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no such node.
    #[error("controller {0} is not known")]
    Unknown(u64),
    /// It was never sent.
    #[error("controller {node} cannot be reached: {detail}")]
    NotSent {
        /// Whom.
        node: u64,
        /// Why.
        detail: String,
    },
    /// The stream or connection broke; it may have been heard.
    #[error("the connection to controller {node} broke")]
    Lost {
        /// Whom.
        node: u64,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// It ended without an answer; it may have been heard.
    #[error("controller {node} gave no answer")]
    NoAnswer {
        /// Whom.
        node: u64,
    },
    /// Time ran out; it may have been heard.
    #[error("controller {node} did not answer within {budget_ms} ms")]
    Late {
        /// Whom.
        node: u64,
        /// How long was waited.
        budget_ms: u128,
    },
    /// The answer came from another life of the node.
    #[error(transparent)]
    Life(#[from] LivesError),
}

impl AskError {
    /// Whether the question was surely not heard.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::NotSent { .. })
    }
}

/// The connections of one controller; clones share them.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    way: Way,
    lives: Lives,
    roster: Roster,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    connected: Arc<watch::Sender<BTreeSet<NodeId>>>,
    welcome: Welcome,
}

/// How questions travel.
enum Way {
    /// Over connections of our own.
    Quic {
        endpoint: Endpoint,
        config: ClientConfig,
    },
    /// As somebody else carries them.
    #[cfg(feature = "simulation")]
    Carried(Arc<dyn super::simulation::Carrier>),
}

impl std::fmt::Debug for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Way")
    }
}

impl Links {
    /// No connections yet. `roster` says whom certificates may name.
    #[must_use]
    pub fn new(endpoint: Endpoint, config: ClientConfig, lives: Lives, roster: Roster) -> Self {
        Self {
            shared: Arc::new(Shared {
                way: Way::Quic { endpoint, config },
                lives,
                roster,
                links: Mutex::default(),
                connected: Arc::new(watch::Sender::new(BTreeSet::new())),
                welcome: Welcome::default(),
            }),
        }
    }

    /// Links whose questions somebody else carries.
    #[cfg(feature = "simulation")]
    pub(super) fn carried(
        carrier: Arc<dyn super::simulation::Carrier>,
        lives: Lives,
        roster: Roster,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                way: Way::Carried(carrier),
                lives,
                roster,
                links: Mutex::default(),
                connected: Arc::new(watch::Sender::new(BTreeSet::new())),
                welcome: Welcome::default(),
            }),
        }
    }

    /// Whom this controller speaks with.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.shared.roster
    }

    /// Who refuses this controller.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// The lives of disks, for whoever answers.
    #[must_use]
    pub fn lives(&self) -> &Lives {
        &self.shared.lives
    }

    /// Keeps a connection to a node from now on; a new address replaces the old one.
    pub fn keep(&self, node: u64, address: &str) {
        let mut links = self.lock();
        if links
            .get(&node)
            .is_some_and(|link| link.address() == address)
        {
            return;
        }
        let (endpoint, config) = match &self.shared.way {
            Way::Quic { endpoint, config } => (endpoint.clone(), config.clone()),
            #[cfg(feature = "simulation")]
            Way::Carried(_) => {
                let connected = |nodes: &mut BTreeSet<NodeId>| nodes.insert(NodeId(node));
                self.shared.connected.send_if_modified(connected);
                return;
            }
        };
        let target = Target {
            endpoint,
            config,
            node,
            address: address.to_owned(),
            roster: self.shared.roster.clone(),
            welcome: self.shared.welcome.clone(),
        };
        let link = Link::start(target, Arc::clone(&self.shared.connected));
        links.insert(node, Arc::new(link));
    }

    /// A node has connected to this one. Whoever starts reaches the others at once, and would stand for election before a
    /// leader that still waits to try again reached it.
    pub fn is_there(&self, node: u64) {
        if let Some(link) = self.lock().get(&node) {
            link.is_there();
        }
    }

    /// Ends the connections to nodes that are not known any more.
    pub fn end_unknown(&self) {
        let roster = &self.shared.roster;
        self.lock()
            .retain(|node, _| roster.incarnation(*node).is_some());
    }

    /// The nodes that there is a connection to.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.shared.connected.subscribe()
    }

    /// Ends all connections.
    pub fn close(&self) {
        self.lock().clear();
    }

    /// Asks a node and waits for its answer, within `budget`.
    pub async fn ask(
        &self,
        node: u64,
        request: PeerRequest,
        budget: Duration,
    ) -> Result<PeerReply, AskError> {
        #[cfg(feature = "simulation")]
        if let Way::Carried(carrier) = &self.shared.way {
            return self.ask_carried(carrier, node, request, budget).await;
        }
        let sent = AtomicBool::new(false);
        let asking = async {
            let (mut send, mut receive) = self.open(node).await?;
            sent.store(true, Ordering::Relaxed);
            let asked = self.asked(request, budget);
            let lost = |source| AskError::Lost { node, source };
            quic::write_frame(&mut send, &asked).await.map_err(lost)?;
            // Already finished when the peer stopped the stream; its answer tells.
            let _ = send.finish();
            self.answer(node, &mut receive).await
        };
        match tokio::time::timeout(budget, asking).await {
            Ok(answer) => answer,
            Err(_) if sent.load(Ordering::Relaxed) => Err(AskError::Late {
                node,
                budget_ms: budget.as_millis(),
            }),
            Err(_) => Err(AskError::NotSent {
                node,
                detail: "no connection in time".into(),
            }),
        }
    }

    /// Opens a stream to a node, waiting while it is being connected.
    pub async fn open(&self, node: u64) -> Result<(SendStream, RecvStream), AskError> {
        let link = self.lock().get(&node).cloned();
        let link = link.ok_or(AskError::Unknown(node))?;
        let not_sent = |detail: String| AskError::NotSent { node, detail };
        let connection = link.connection().await.map_err(not_sent)?;
        let opened = connection.open_bi().await;
        opened.map_err(|error| not_sent(error.to_string()))
    }

    /// A question as it travels.
    #[must_use]
    pub fn asked(&self, request: PeerRequest, budget: Duration) -> Asked {
        Asked {
            life: self.shared.lives.own(),
            budget_ms: u32::try_from(budget.as_millis()).unwrap_or(u32::MAX),
            request,
        }
    }

    /// Reads an answer and checks whose it is.
    pub async fn answer(&self, node: u64, receive: &mut RecvStream) -> Result<PeerReply, AskError> {
        let answered: Option<Answered> = quic::read_frame(receive)
            .await
            .map_err(|source| AskError::Lost { node, source })?;
        let answered = answered.ok_or(AskError::NoAnswer { node })?;
        self.heard(node, answered).await
    }

    /// Refuses what comes from another life of a node than the known one.
    pub(super) async fn admit(&self, node: u64, life: Life) -> Result<(), LivesError> {
        let admitted = self.shared.lives.admit(node, life).await;
        let is_reborn = matches!(admitted, Err(LivesError::Reborn { .. }));
        self.shared.welcome.refuses(NodeId(node), is_reborn);
        admitted
    }

    /// An answer, once it is clear whose it is.
    async fn heard(&self, node: u64, answered: Answered) -> Result<PeerReply, AskError> {
        let (welcome, by) = (&self.shared.welcome, NodeId(node));
        self.admit(node, answered.life).await?;
        match &answered.reply {
            PeerReply::Refused(Refusal::Reborn) => welcome.refused(by, Unwelcome::Reborn),
            _ => welcome.is_heard_by(by),
        }
        Ok(answered.reply)
    }

    #[cfg(feature = "simulation")]
    async fn ask_carried(
        &self,
        carrier: &Arc<dyn super::simulation::Carrier>,
        node: u64,
        request: PeerRequest,
        budget: Duration,
    ) -> Result<PeerReply, AskError> {
        let asked = self.asked(request, budget);
        let answered = super::simulation::ask(carrier, node, &asked, budget).await?;
        self.heard(node, answered).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Link>>> {
        self.shared
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection is not a controller's.
#[derive(Debug, Error)]
pub enum WhoError {
    /// Its certificate proves nobody.
    #[error(transparent)]
    Peer(#[from] tls::PeerError),
    /// It is an agent.
    #[error("{0} is no controller")]
    NotController(PeerName),
    /// It is another controller than expected, or another incarnation of it.
    #[error("{found} is not the controller that the cluster knows")]
    Other {
        /// Who it is.
        found: PeerName,
    },
}

/// Which of the known controllers is at the other end.
pub fn who(connection: &Connection, roster: &Roster) -> Result<u64, WhoError> {
    let found = tls::peer(connection)?.name;
    let PeerName::Controller { node, incarnation } = &found else {
        return Err(WhoError::NotController(found));
    };
    let known = roster.incarnation(node.0);
    if known.is_none_or(|known| known.as_str() != incarnation) {
        return Err(WhoError::Other { found });
    }
    Ok(node.0)
}

/// A point in time that a budget ends at.
pub(crate) fn ends_at(budget: Duration) -> Instant {
    Instant::now() + budget
}
