//! Agents' connections: who may come in, what they are told, what they report. It decides nothing about units: it
//! delivers what is signed and proposes what is reported.

use std::{sync::Arc, time::Duration};

use dotmac_domain::State;
use dotmac_protocol::{
    ids::{AgentId, TrustVersion},
    trust::SignedTrustRoot,
};
use dotmac_runtime::{
    causes,
    pki::{Issuer, PeerName},
    tls::{self, PeerError},
};
use quinn::Connection;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::node::Node;

mod enrol;
mod registry;
mod reports;
mod session;

pub use registry::{QuestionError, Registry};

/// Enrolments under way at most; further ones are closed and come back later.
const ENROLMENTS_MAX: usize = 32;
/// Trust roots in one frame at most; agents take no more.
const TRUST_ROOTS_MAX: usize = 64;
/// Bytes of the trust roots in one frame at most: half of what a frame may have.
const TRUST_ROOT_BYTES_MAX: usize = 512 * 1024;
/// Bytes of one encoded signature at most.
const SIGNATURE_BYTES: usize = 128;
/// How long the other side may take for the next step of an introduction.
const STEP_DEADLINE: Duration = Duration::from_secs(5);
/// How long a gateway's proposal may take before it is tried again.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Application close code: the controller stops or the session is replaced; come back.
pub const CLOSE_AGAIN: u32 = 1;
/// Application close code: this agent is not admitted.
pub const CLOSE_REFUSED: u32 = 2;

/// Takes in agents for one controller.
#[derive(Debug)]
pub struct Gateway {
    node: Arc<Node>,
    issuer: Arc<Issuer>,
    certificate_ms: u64,
    enrolments: Semaphore,
}

/// Why an agent's connection ended.
#[derive(Debug, Error)]
enum SessionError {
    #[error("the agent cannot be identified")]
    Peer(#[from] PeerError),
    #[error("a controller connected as an agent")]
    NotAnAgent,
    #[error("agent {0} is not admitted with this certificate")]
    NotAdmitted(AgentId),
    #[error("the introduction took too long")]
    Slow,
    #[error("the hello is not the certificate's agent, or of an earlier life")]
    Hello,
    #[error("the connection ended")]
    Connection(#[from] quinn::ConnectionError),
    #[error("a frame could not be exchanged")]
    Frame(#[from] dotmac_runtime::quic::FrameError),
    #[error("the stream ended")]
    Closed,
}

impl Gateway {
    /// A gateway whose certificates for agents live `certificate_ms` milliseconds.
    #[must_use]
    pub fn new(node: Arc<Node>, issuer: Arc<Issuer>, certificate_ms: u64) -> Self {
        let enrolments = Semaphore::new(ENROLMENTS_MAX);
        Self {
            node,
            issuer,
            certificate_ms,
            enrolments,
        }
    }

    /// Serves one connection of an agent until it ends.
    pub async fn serve_agent(self: Arc<Self>, connection: Connection) {
        let remote = connection.remote_address();
        match self.session(&connection).await {
            Ok(()) => {}
            Err(error @ (SessionError::NotAdmitted(_) | SessionError::Hello)) => {
                tracing::warn!(address = %remote, error = %causes::in_full(&error), "agent refused");
                connection.close(CLOSE_REFUSED.into(), error.to_string().as_bytes());
            }
            Err(error) => {
                tracing::info!(address = %remote, error = %causes::in_full(&error), "agent's session ended");
                connection.close(CLOSE_AGAIN.into(), b"the session ended");
            }
        }
    }

    /// Serves one enrolment.
    pub async fn serve_enrolment(self: Arc<Self>, connection: Connection) {
        let remote = connection.remote_address();
        let Ok(_permit) = self.enrolments.try_acquire() else {
            connection.close(CLOSE_AGAIN.into(), b"too many enrolments at once");
            return;
        };
        let served = tokio::time::timeout(4 * STEP_DEADLINE, self.enrol(&connection)).await;
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(address = %remote, error = %causes::in_full(&error), "enrolment ended")
            }
            Err(_) => connection.close(CLOSE_AGAIN.into(), b"the enrolment took too long"),
        }
    }

    /// The agent that a certificate names, if the State admits it. A State that lags is asked again with a barrier.
    async fn admitted(&self, connection: &Connection) -> Result<AgentId, SessionError> {
        let peer = tls::peer(connection)?;
        let PeerName::Agent(agent) = peer.name else {
            return Err(SessionError::NotAnAgent);
        };
        if self.node.state().admits(&agent, peer.key) {
            return Ok(agent);
        }
        match self.node.read(STEP_DEADLINE).await {
            Ok(state) if state.admits(&agent, peer.key) => Ok(agent),
            Ok(_) => Err(SessionError::NotAdmitted(agent)),
            Err(_) => Err(SessionError::Slow),
        }
    }

    /// Addresses of the controllers that agents may talk to.
    fn addresses(&self) -> Vec<String> {
        addresses(&self.node.state())
    }
}

/// Addresses of the controllers that agents may talk to: those of the trust root in force.
fn addresses(state: &State) -> Vec<String> {
    let controllers = state.signing_controllers();
    controllers
        .map(|one| one.card.link_address.clone())
        .collect()
}

/// The trust roots after a version, as many as one frame may carry: what is left comes with the next one.
fn trust_roots_after(state: &State, version: TrustVersion) -> Vec<SignedTrustRoot> {
    let mut bytes = 0;
    let mut roots = state.trust_roots_after(version, TRUST_ROOTS_MAX);
    roots.retain(|root| {
        bytes += root.body.len() + root.signatures.len() * SIGNATURE_BYTES;
        bytes <= TRUST_ROOT_BYTES_MAX
    });
    roots
}

/// Ends the sessions that no longer count, as soon as the State says so.
pub async fn run_revocation(node: Arc<Node>) {
    let mut applied = node.log.applied();
    while applied.changed().await.is_ok() {
        node.registry.end_outdated(&node.state(), node.card.node);
    }
}
