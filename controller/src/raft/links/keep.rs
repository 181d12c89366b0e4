//! One connection, kept up: connecting survives the questions that wait for it, and a peer that went silent is dropped
//! long before the transport notices.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dotmac_protocol::ids::NodeId;
use dotmac_runtime::{causes, quic, supervise};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportErrorCode};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{Roster, who};
use crate::raft::{
    rpc::CLOSE_UNKNOWN,
    welcome::{Unwelcome, Welcome},
};

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// First pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// How long an attempt is left alone when the node is heard of meanwhile. An attempt from before the node was there would send
/// its next datagram only after a second.
const ATTEMPT_MIN: Duration = Duration::from_millis(100);
/// A connection that ends sooner was refused: TLS lets the one who connects go on before the other has looked at his
/// certificate.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// A connection on which a question was followed by so long a silence is dead.
const SILENCE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
enum State {
    Connecting,
    Up(Connection),
    Down(String),
}

/// Whom a link leads to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) config: ClientConfig,
    pub(super) node: u64,
    pub(super) address: String,
    /// Whom its certificate may name.
    pub(super) roster: Roster,
    /// Where it is noted that it refuses this controller.
    pub(super) welcome: Welcome,
}

/// A kept connection; dropping it ends it.
#[derive(Debug)]
pub(super) struct Link {
    node: NodeId,
    address: String,
    state: watch::Receiver<State>,
    connected: Arc<watch::Sender<BTreeSet<NodeId>>>,
    task: JoinHandle<()>,
    /// Told when the node is there for sure.
    is_there: Arc<Notify>,
    /// When a question was sent, and how many datagrams had come until then.
    probe: Mutex<Option<(Instant, u64)>>,
}

impl Link {
    pub(super) fn start(target: Target, connected: Arc<watch::Sender<BTreeSet<NodeId>>>) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let (node, address) = (NodeId(target.node), target.address.clone());
        let noted = Arc::clone(&connected);
        let is_there = Arc::new(Notify::new());
        let told = Arc::clone(&is_there);
        let task = supervise::spawn("peer link", async move {
            keep(&target, &sender, &noted, &told).await;
        });
        Self {
            node,
            address,
            state,
            connected,
            task,
            is_there,
            probe: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The node is there: a link that waits connects at once.
    pub(super) fn is_there(&self) {
        if !matches!(*self.state.borrow(), State::Up(_)) {
            self.is_there.notify_one();
        }
    }

    /// The connection; waits while one is being made, fails at once while the peer is known to be away.
    pub(super) async fn connection(&self) -> Result<Connection, String> {
        let mut state = self.state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Up(connection) if self.is_silent(&connection) => {
                    connection.close(0_u32.into(), b"silent for too long");
                }
                State::Up(connection) if connection.close_reason().is_none() => {
                    return Ok(connection);
                }
                State::Down(detail) => return Err(detail),
                State::Connecting | State::Up(_) => {}
            }
            if state.changed().await.is_err() {
                return Err("the link is closed".into());
            }
        }
    }

    /// Whether a question went out a while ago and nothing at all came back since.
    fn is_silent(&self, connection: &Connection) -> bool {
        let received = connection.stats().udp_rx.datagrams;
        let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        match *probe {
            Some((at, before)) if before == received => {
                let silent = at.elapsed() > SILENCE_MAX;
                if silent {
                    *probe = None;
                }
                silent
            }
            Some(_) | None => {
                *probe = Some((Instant::now(), received));
                false
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        let node = self.node;
        self.connected.send_if_modified(|nodes| nodes.remove(&node));
        let state = self.state.borrow().clone();
        if let State::Up(connection) = state {
            connection.close(0_u32.into(), b"closed");
        }
    }
}

async fn keep(
    target: &Target,
    state: &watch::Sender<State>,
    connected: &watch::Sender<BTreeSet<NodeId>>,
    is_there: &Notify,
) {
    let (node, address) = (target.node, target.address.as_str());
    let mut pause = PAUSE_FIRST;
    loop {
        let attempt = tokio::select! {
            biased;
            attempt = target.connect() => attempt,
            () = later(is_there) => {
                pause = PAUSE_FIRST;
                continue;
            }
        };
        let refused = match attempt {
            Ok(connection) => {
                tracing::info!(node, address, "connected to controller");
                let since = Instant::now();
                state.send_replace(State::Up(connection.clone()));
                connected.send_if_modified(|nodes| nodes.insert(NodeId(node)));
                let lasting = tokio::time::timeout(REFUSED_WITHIN, connection.closed()).await;
                let reason = match lasting {
                    Ok(reason) => reason,
                    Err(_) => {
                        target.welcome.is_known_to(NodeId(node));
                        connection.closed().await
                    }
                };
                target.note_refusal(&reason);
                connected.send_if_modified(|nodes| nodes.remove(&NodeId(node)));
                tracing::info!(node, %reason, "connection to controller ended");
                (since.elapsed() < REFUSED_WITHIN).then(|| reason.to_string())
            }
            Err(detail) => {
                tracing::debug!(node, address, detail, "no connection to controller");
                Some(detail)
            }
        };
        if let Some(detail) = refused {
            state.send_replace(State::Down(detail));
            pause = match tokio::time::timeout(pause, is_there.notified()).await {
                Ok(()) => PAUSE_FIRST,
                Err(_) => (pause * 2).min(PAUSE_MAX),
            };
        } else {
            state.send_replace(State::Connecting);
            pause = PAUSE_FIRST;
        }
    }
}

/// Waits until the node is there, and no less than [`ATTEMPT_MIN`].
async fn later(is_there: &Notify) {
    tokio::time::sleep(ATTEMPT_MIN).await;
    is_there.notified().await;
}

/// First and last alert of TLS (RFC 8446, section 6) by which a certificate is refused; that it expired is none of them, for
/// that mends itself.
const CERTIFICATE_REFUSED: [u8; 6] = [42, 43, 44, 46, 48, 49];

impl Target {
    /// Notes that a connection ended because its other end knows no such controller.
    fn note_refusal(&self, reason: &ConnectionError) {
        let is_unknown = match reason {
            ConnectionError::ApplicationClosed(close) => close.error_code == CLOSE_UNKNOWN.into(),
            ConnectionError::ConnectionClosed(close) => CERTIFICATE_REFUSED
                .iter()
                .any(|alert| close.error_code == TransportErrorCode::crypto(*alert)),
            _ => false,
        };
        if is_unknown {
            self.welcome.refused(NodeId(self.node), Unwelcome::Unknown);
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let address = &self.address;
        let connection = quic::connect(&self.endpoint, &self.config, address, CONNECT_PATIENCE)
            .await
            .map_err(|error| causes::in_full(&error))?;
        let refuse = |detail: String| {
            connection.close(1_u32.into(), detail.as_bytes());
            detail
        };
        let found = who(&connection, &self.roster).map_err(|error| refuse(error.to_string()))?;
        if found != self.node {
            return Err(refuse(format!("controller {found} answers at {address}")));
        }
        quic::widen(&connection);
        Ok(connection)
    }
}
