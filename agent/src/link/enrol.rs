//! How an agent gets its certificate: with a join token once, or with its identity key when the certificate ran out
//! while it was cut off.
//!
//! The trust root that the token names is pinned, and the controller checked against it, before the token is shown.
//! A join that is repeated asks with the same keys, so a lost reply costs nothing.

use std::{path::Path, time::Duration};

use dotmac_protocol::{
    codec,
    digest::Digest,
    frame::{ALPN_ENROL, EnrolGreeting, EnrolReply, EnrolRequest, JoinToken, RECOVER_DOMAIN},
    ids::RegionId,
    keys::Signature,
    trust::SignedTrustRoot,
};
use dotmac_runtime::{
    clock::Clock,
    entropy::Entropy,
    pki::{self, KeyPair},
    quic::{self, ConnectError, FrameError, read_frame},
    tls::{self, PeerError, PinnedIssuers},
};
use quinn::{Connection, Endpoint};
use thiserror::Error;

use super::identity::{Certificate, IdentityStore, IdentityStoreError, Keys, usable_addresses};
use crate::trust::{TrustStore, TrustStoreError};

/// How long one step of an enrolment may take; the last one waits for a majority of the controllers.
const STEP: Duration = Duration::from_secs(10);

/// What an enrolment needs.
#[allow(missing_debug_implementations, reason = "it holds secrets")]
pub struct Enrolment<'a> {
    /// Dials.
    pub endpoint: &'a Endpoint,
    /// The time.
    pub clock: &'a Clock,
    /// Randomness.
    pub entropy: &'a Entropy,
    /// The agent's keys.
    pub keys: &'a Keys,
    /// Where the certificate will lie.
    pub store: &'a IdentityStore,
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// No connection.
    #[error("controller {address} cannot be reached")]
    Connect {
        address: String,
        #[source]
        source: ConnectError,
    },
    /// The connection ended.
    #[error("the connection to the controller ended")]
    Connection(#[from] quinn::ConnectionError),
    /// A frame could not be exchanged.
    #[error("a frame of the enrolment could not be exchanged")]
    Frame(#[from] FrameError),
    /// The controller stopped answering.
    #[error("the controller sent no {0}")]
    Silent(&'static str),
    /// The trust root is refused.
    #[error("the controller's trust root is refused")]
    Trust(#[from] TrustStoreError),
    /// The controller is not one of those that the trust root names.
    #[error("the controller is not one that the trust root names")]
    Controller(#[from] PeerError),
    /// The controllers refuse.
    #[error("the controllers refuse the agent ({code}): {reason}")]
    Refused {
        code: String,
        reason: String,
        retry: bool,
    },
    /// The certificate is not for this agent's key, or cannot be read.
    #[error("the certificate that came is not the one that was asked for: {0}")]
    Certificate(String),
    /// The certificate cannot be kept.
    #[error("the certificate cannot be kept")]
    Store(#[from] IdentityStoreError),
}

impl EnrolError {
    /// Whether trying again, with the same token and keys, can help.
    #[must_use]
    pub fn can_be_repeated(&self) -> bool {
        match self {
            Self::Refused { retry, .. } => *retry,
            Self::Store(_) => false,
            // A wrong trust root or an impostor at one address says nothing about the others.
            Self::Connect { .. }
            | Self::Connection(_)
            | Self::Frame(_)
            | Self::Silent(_)
            | Self::Trust(_)
            | Self::Controller(_)
            | Self::Certificate(_) => true,
        }
    }
}

impl Enrolment<'_> {
    /// Joins with a token at one controller: pins the trust root in `trust_directory`, then shows the token, then keeps
    /// the certificate.
    ///
    /// # Errors
    /// When there is no certificate after it. The trust root may be pinned already; a repetition pins it again.
    pub async fn join(
        &self,
        address: &str,
        token: &JoinToken,
        region: &RegionId,
        trust_directory: &Path,
    ) -> Result<Certificate, EnrolError> {
        let request = EnrolRequest::Join {
            token: token.id.clone(),
            secret: token.secret,
            region: region.clone(),
            request: pki::csr(&self.keys.enrolment),
            identity: self.keys.public(),
            seal_key: self.keys.seal.public(),
            incarnation: self.keys.incarnation.clone(),
        };
        let expected = token.trust_root;
        let pin = |documents: &[SignedTrustRoot]| pin(trust_directory, expected, documents);
        let connection = self.connect(address).await?;
        let admitted = self.ask(&connection, &request, pin).await;
        connection.close(0_u32.into(), b"enrolled");
        self.accept(admitted?, self.keys.enrolment.clone())
    }

    /// Gets a new certificate for a new key with the identity key, at one controller. `follow` takes newer trust roots
    /// in and gives the issuers that count then.
    ///
    /// # Errors
    /// When there is no certificate after it.
    pub async fn recover(
        &self,
        address: &str,
        before: &Certificate,
        follow: impl FnOnce(&[SignedTrustRoot]) -> Result<PinnedIssuers, TrustStoreError>,
    ) -> Result<Certificate, EnrolError> {
        let key = KeyPair::generate(self.entropy);
        let (request, now) = (pki::csr(&key), self.clock.now());
        let signed = [now.0.to_be_bytes().as_slice(), &request].concat();
        let request = EnrolRequest::Recover {
            agent: before.agent.clone(),
            signature: Signature::make(&self.keys.identity, RECOVER_DOMAIN, &signed),
            request,
            now,
        };
        let connection = self.connect(address).await?;
        let admitted = self.ask(&connection, &request, follow).await;
        connection.close(0_u32.into(), b"recovered");
        let certificate = self.accept(admitted?, key)?;
        if certificate.agent == before.agent {
            Ok(certificate)
        } else {
            let detail = format!("it names agent {}", certificate.agent);
            Err(EnrolError::Certificate(detail))
        }
    }

    /// Takes in the trust roots that a controller greets with, when its issuer is none of the pinned ones: all that the
    /// agent knew may have been replaced while it was cut off. Nothing is told, and the root key's signatures decide.
    ///
    /// # Errors
    /// When there is no greeting, or the controller is none of the trust root after it.
    pub async fn learn(
        &self,
        address: &str,
        follow: impl FnOnce(&[SignedTrustRoot]) -> Result<PinnedIssuers, TrustStoreError>,
    ) -> Result<(), EnrolError> {
        let connection = self.connect(address).await?;
        let learned = self.greeting(&connection, follow).await;
        connection.close(0_u32.into(), b"learned");
        learned
    }

    async fn greeting(
        &self,
        connection: &Connection,
        follow: impl FnOnce(&[SignedTrustRoot]) -> Result<PinnedIssuers, TrustStoreError>,
    ) -> Result<(), EnrolError> {
        let (mut send, mut receive) = connection.open_bi().await?;
        // A stream without bytes is not seen by the other side.
        send.write_all(&[0]).await.map_err(FrameError::from)?;
        let greeting = tokio::time::timeout(STEP, read_frame::<EnrolGreeting>(&mut receive))
            .await
            .map_err(|_| EnrolError::Silent("greeting"))??
            .ok_or(EnrolError::Silent("greeting"))?;
        let pinned = follow(&greeting.trust_roots)?;
        tls::peer_after_greeting(connection, &pinned)?;
        Ok(())
    }

    async fn connect(&self, address: &str) -> Result<Connection, EnrolError> {
        let config = tls::client_config_unpinned(ALPN_ENROL, self.clock);
        quic::connect(self.endpoint, &config, address, super::CONNECT_PATIENCE)
            .await
            .map_err(|source| EnrolError::Connect {
                address: address.to_owned(),
                source,
            })
    }

    /// Exchanges the frames. Only the request's length is sent before the controller has proved itself: it opens
    /// the stream, for a stream without bytes is not seen by the other side.
    async fn ask(
        &self,
        connection: &Connection,
        request: &EnrolRequest,
        check: impl FnOnce(&[SignedTrustRoot]) -> Result<PinnedIssuers, TrustStoreError>,
    ) -> Result<(EnrolReply, Vec<String>), EnrolError> {
        let body = codec::encode(request).map_err(FrameError::from)?;
        let length = u32::try_from(body.len()).expect("a request is small");
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&length.to_be_bytes())
            .await
            .map_err(FrameError::from)?;
        let greeting = tokio::time::timeout(STEP, read_frame::<EnrolGreeting>(&mut receive))
            .await
            .map_err(|_| EnrolError::Silent("greeting"))??
            .ok_or(EnrolError::Silent("greeting"))?;
        let pinned = check(&greeting.trust_roots)?;
        tls::peer_after_greeting(connection, &pinned)?;
        send.write_all(&body).await.map_err(FrameError::from)?;
        let reply = tokio::time::timeout(STEP, read_frame::<EnrolReply>(&mut receive))
            .await
            .map_err(|_| EnrolError::Silent("reply"))??
            .ok_or(EnrolError::Silent("reply"))?;
        let addresses = match &reply {
            EnrolReply::Admitted { controllers, .. } => usable_addresses(controllers),
            EnrolReply::Refused { .. } => None,
        };
        let dialled = connection.remote_address().to_string();
        Ok((reply, addresses.unwrap_or_else(|| vec![dialled])))
    }

    fn accept(
        &self,
        (reply, controllers): (EnrolReply, Vec<String>),
        key: KeyPair,
    ) -> Result<Certificate, EnrolError> {
        match reply {
            EnrolReply::Refused {
                code,
                reason,
                retry,
            } => Err(EnrolError::Refused {
                code,
                reason,
                retry,
            }),
            EnrolReply::Admitted { agent, chain, .. } => {
                check_chain(&chain, &key).map_err(EnrolError::Certificate)?;
                let certificate = Certificate {
                    agent,
                    key,
                    chain,
                    obtained: self.clock.now(),
                    controllers,
                };
                self.store.keep(&certificate)?;
                Ok(certificate)
            }
        }
    }
}

/// Pins the document that the token names, and follows those behind it.
fn pin(
    trust_directory: &Path,
    expected: Digest,
    documents: &[SignedTrustRoot],
) -> Result<PinnedIssuers, TrustStoreError> {
    let named = documents
        .iter()
        .position(|document| document.digest() == expected);
    let documents = &documents[named.unwrap_or(0)..];
    let store = TrustStore::pin(trust_directory, expected, documents)?;
    Ok(PinnedIssuers::of(&store.current()))
}

/// Whether a chain is one certificate for this key and its issuer's.
pub(super) fn check_chain(chain: &[Vec<u8>], key: &KeyPair) -> Result<(), String> {
    let [leaf, _] = chain else {
        return Err(format!("it is a chain of {}", chain.len()));
    };
    let found = pki::key_digest(leaf).map_err(|error| error.to_string())?;
    if found == key.digest() {
        Ok(())
    } else {
        Err("it is for another key".to_owned())
    }
}
