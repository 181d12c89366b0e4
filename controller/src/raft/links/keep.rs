//! One connection, kept up: connecting survives the questions that wait for it, and a peer that went silent is dropped
//! long before the transport notices.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dotmac_protocol::ids::IncarnationId;
use dotmac_runtime::{causes, quic, supervise};
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::who;

/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// First pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// A connection on which a question was followed by so long a silence is dead.
const SILENCE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
enum State {
    Connecting,
    Up(Connection),
    Down(String),
}

/// A kept connection; dropping it ends it.
#[derive(Debug)]
pub(super) struct Link {
    address: String,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
    /// When a question was sent, and how many datagrams had come until then.
    probe: Mutex<Option<(Instant, u64)>>,
}

impl Link {
    pub(super) fn start(
        endpoint: Endpoint,
        config: ClientConfig,
        node: u64,
        address: &str,
        expected: Option<IncarnationId>,
    ) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let target = address.to_owned();
        let task = supervise::spawn("peer link", async move {
            keep(
                &endpoint,
                &config,
                node,
                &target,
                expected.as_ref(),
                &sender,
            )
            .await;
        });
        Self {
            address: address.to_owned(),
            state,
            task,
            probe: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
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
        if let State::Up(connection) = &*self.state.borrow() {
            connection.close(0_u32.into(), b"closed");
        }
    }
}

async fn keep(
    endpoint: &Endpoint,
    config: &ClientConfig,
    node: u64,
    address: &str,
    expected: Option<&IncarnationId>,
    state: &watch::Sender<State>,
) {
    let mut pause = PAUSE_FIRST;
    loop {
        match connect(endpoint, config, node, address, expected).await {
            Ok(connection) => {
                tracing::info!(node, address, "connected to controller");
                pause = PAUSE_FIRST;
                state.send_replace(State::Up(connection.clone()));
                let reason = connection.closed().await;
                tracing::info!(node, %reason, "connection to controller ended");
                state.send_replace(State::Connecting);
            }
            Err(detail) => {
                tracing::debug!(node, address, detail, "no connection to controller");
                state.send_replace(State::Down(detail));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn connect(
    endpoint: &Endpoint,
    config: &ClientConfig,
    node: u64,
    address: &str,
    expected: Option<&IncarnationId>,
) -> Result<Connection, String> {
    let connection = quic::connect(endpoint, config, address, CONNECT_PATIENCE)
        .await
        .map_err(|error| causes::in_full(&error))?;
    let refuse = |detail: String| {
        connection.close(1_u32.into(), detail.as_bytes());
        detail
    };
    let found =
        who(&connection, |_| expected.cloned()).map_err(|error| refuse(error.to_string()))?;
    if found != node {
        return Err(refuse(format!("controller {found} answers at {address}")));
    }
    quic::widen(&connection);
    Ok(connection)
}
