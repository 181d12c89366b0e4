//! The agent's connection to the controllers: dial any of them, stay while it answers, go to another when it does not.
//!
//! ```text
//!   Link::run: certificate over? recover : connect -> session -> (why it ended) -> another controller, backing off
//! ```
//! It decides nothing about units. While there is no controller everything else goes on without it (law 5).

pub mod enrol;
pub mod identity;
mod questions;
mod renew;
mod rounds;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_protocol::{
    frame::{ALPN_AGENT, JoinToken, Question},
    ids::{NodeId, RegionId, UnitId},
    record::HealthStatus,
    time::Timestamp,
};
use dotmac_runtime::{
    causes,
    clock::Clock,
    entropy::Entropy,
    quic,
    tls::{self, Identity, IdentityCell, IdentityError},
};
use futures::future::BoxFuture;
use quinn::Endpoint;
use tokio::sync::{mpsc, watch};

use self::{
    enrol::{EnrolError, Enrolment},
    identity::{Certificate, IdentityStore, Keys},
    rounds::Rounds,
};
use crate::{chain::Chain, intake::Intake};

/// How long a connection may take; a dead controller costs no more.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A session that lasted so long proves that the way is good: the next pause is short again.
const SETTLED: Duration = Duration::from_secs(5);

/// What the link asks other parts of the agent.
pub trait Host: Send + Sync + 'static {
    /// How a unit is, for the inventory.
    fn health(&self, unit: &UnitId) -> HealthStatus;

    /// The answer to a question, piece by piece, or why there is none: that text is for the asker, and not sealed.
    /// Dropping the receiver ends it.
    fn answer(&self, question: Question) -> BoxFuture<'_, Result<mpsc::Receiver<String>, String>>;
}

/// What a link works with.
#[allow(missing_debug_implementations, reason = "it holds keys")]
pub struct LinkParts {
    /// Dials.
    pub endpoint: Endpoint,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// The agent's keys.
    pub keys: Keys,
    /// Where renewed certificates are kept.
    pub store: IdentityStore,
    /// Takes orders in.
    pub intake: Arc<Intake>,
    /// Gives the records to send.
    pub chain: Arc<Chain>,
    /// Answers for the rest of the agent.
    pub host: Arc<dyn Host>,
    /// Version of this program.
    pub software: String,
}

/// Whether there is a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// With this controller.
    Connected(NodeId),
    /// With none, and why.
    Disconnected(String),
}

/// The link of an admitted agent.
#[allow(missing_debug_implementations, reason = "it holds keys")]
pub struct Link {
    parts: LinkParts,
    certificate: Mutex<Certificate>,
    shown: IdentityCell,
    state: watch::Sender<LinkState>,
}

impl Link {
    /// The link of an agent with a certificate, which may have run out.
    ///
    /// # Errors
    /// When the certificate cannot be shown.
    pub fn new(parts: LinkParts, certificate: Certificate) -> Result<Self, IdentityError> {
        let shown = IdentityCell::new(&identity_of(&certificate))?;
        Ok(Self {
            parts,
            certificate: Mutex::new(certificate),
            shown,
            state: watch::Sender::new(LinkState::Disconnected("not connected yet".to_owned())),
        })
    }

    /// Where its orders go, and the signed clock.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.parts.intake
    }

    /// The records that it sends.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.parts.chain
    }

    /// The agent's own time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// Whether there is a session.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(*self.state.borrow(), LinkState::Connected(_))
    }

    /// When the present certificate ends.
    #[must_use]
    pub fn certificate_ends(&self) -> Option<Timestamp> {
        let validity = self.certificate().validity();
        validity.ok().map(|validity| validity.not_after)
    }

    /// When the present certificate came; its life counts from here.
    #[must_use]
    pub fn certificate_obtained(&self) -> Timestamp {
        self.certificate().obtained
    }

    /// Whether there is a session, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Connects, again and again, until the future is dropped.
    pub async fn run(&self) {
        let mut rounds = Rounds::new(self.parts.entropy.clone());
        loop {
            let address = rounds.next(&self.certificate().controllers);
            let began = tokio::time::Instant::now();
            let reason = if self.has_certificate_in_date() {
                self.connect(&address).await
            } else {
                self.recover(&address).await
            };
            if began.elapsed() >= SETTLED {
                rounds.settled(&address);
            }
            let state = LinkState::Disconnected(reason.clone());
            if self.state.send_replace(state.clone()) == state {
                tracing::debug!(address, reason, "still no session");
            } else {
                tracing::info!(address, reason, "no session");
            }
            tokio::time::sleep(rounds.pause()).await;
        }
    }

    /// One connection and its session; says why it ended.
    async fn connect(&self, address: &str) -> String {
        let shown = Some(self.shown.clone());
        let pinned = self.parts.intake.pinned();
        let config = tls::client_config(shown, pinned, ALPN_AGENT, &self.parts.clock);
        let connected =
            quic::connect(&self.parts.endpoint, &config, address, CONNECT_PATIENCE).await;
        match connected {
            Err(error) if error.is_refused_certificate() => {
                let reason = causes::in_full(&error);
                match self.learn(address).await {
                    Ok(()) => "a newer trust root was learned".to_owned(),
                    Err(why) => format!(
                        "{reason}; and no newer trust root: {}",
                        causes::in_full(&why)
                    ),
                }
            }
            Err(error) => causes::in_full(&error),
            Ok(connection) => {
                let end = session::run(self, &connection).await;
                let is_refused = is_refused(&connection);
                connection.close(0_u32.into(), b"the agent left");
                let end = causes::in_full(&end);
                if is_refused {
                    // Controllers that were restored from a backup know an earlier certificate.
                    let recovered = self.recover(address).await;
                    return format!("{end}; {recovered}");
                }
                end
            }
        }
    }

    async fn learn(&self, address: &str) -> Result<(), EnrolError> {
        let intake = &self.parts.intake;
        let follow = |documents: &[_]| intake.follow(documents).map(|_| intake.pinned());
        self.parts.enrolment().learn(address, follow).await
    }

    async fn recover(&self, address: &str) -> String {
        let before = self.certificate().clone();
        let enrolment = self.parts.enrolment();
        let intake = &self.parts.intake;
        let follow = |documents: &[_]| intake.follow(documents).map(|_| intake.pinned());
        let recovered = enrolment.recover(address, &before, follow).await;
        match recovered {
            Err(error) => causes::in_full(&error),
            Ok(certificate) => {
                tracing::info!(agent = %certificate.agent, "the certificate was recovered");
                match self.replace(certificate) {
                    Ok(()) => "recovered".to_owned(),
                    Err(error) => causes::in_full(&error),
                }
            }
        }
    }

    fn has_certificate_in_date(&self) -> bool {
        let now = self.parts.clock.now();
        self.certificate()
            .validity()
            .is_ok_and(|validity| now < validity.not_after)
    }

    /// Shows a certificate from now on. It is on disk already.
    fn replace(&self, certificate: Certificate) -> Result<(), IdentityError> {
        self.shown.replace(&identity_of(&certificate))?;
        *self.certificate() = certificate;
        Ok(())
    }

    fn certificate(&self) -> MutexGuard<'_, Certificate> {
        self.certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkParts {
    fn enrolment(&self) -> Enrolment<'_> {
        Enrolment {
            endpoint: &self.endpoint,
            clock: &self.clock,
            entropy: &self.entropy,
            keys: &self.keys,
            store: &self.store,
        }
    }
}

/// Joins with a token: goes round the controllers until one admits the agent.
///
/// # Errors
/// When the controllers refuse for good, or the certificate cannot be kept.
pub async fn join(
    enrolment: &Enrolment<'_>,
    token: &JoinToken,
    region: &RegionId,
    trust_directory: &Path,
) -> Result<Certificate, EnrolError> {
    let mut rounds = Rounds::new(enrolment.entropy.clone());
    loop {
        let address = rounds.next(&token.controllers);
        match enrolment
            .join(&address, token, region, trust_directory)
            .await
        {
            Ok(certificate) => {
                tracing::info!(agent = %certificate.agent, "enrolled");
                return Ok(certificate);
            }
            Err(error) if error.can_be_repeated() => {
                tracing::warn!(address, error = causes::in_full(&error), "not enrolled yet");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(rounds.pause()).await;
    }
}

/// Whether the controller ended the connection because it does not admit this agent's certificate.
fn is_refused(connection: &quinn::Connection) -> bool {
    const REFUSED: u32 = 2;
    matches!(
        connection.close_reason(),
        Some(quinn::ConnectionError::ApplicationClosed(closed)) if closed.error_code == REFUSED.into()
    )
}

fn identity_of(certificate: &Certificate) -> Identity {
    Identity {
        chain: certificate.chain.clone(),
        key: certificate.key.clone(),
    }
}
