//! Who is at the other end of a connection, as its certificate proved in the handshake.

use dotmac_protocol::{
    digest::Digest,
    frame::{ALPN_AGENT, ALPN_ENROL, ALPN_PEER},
    time::Timestamp,
};
use quinn::{Connection, Side, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::PinnedIssuers;
use crate::pki::{self, PeerName, PkiError, SpiffeName};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Digest of the certificate that vouches for it.
    pub issuer: Digest,
    /// Digest of its public key, as [`pki::key_digest`] gives it.
    pub key: Digest,
    /// When its certificate ends. A connection does not end with it by itself.
    pub not_after: Timestamp,
}

/// Why the other end counts as nobody.
#[derive(Debug, Error)]
pub enum PeerError {
    /// It showed no certificate: it may enrol, and nothing else.
    #[error("the other side showed no certificate")]
    NoCertificate,
    /// On an enrolment connection nobody is proved by the handshake alone.
    #[error("an enrolment connection proves nobody")]
    Enrolment,
    /// It is a controller where an agent should be, or an agent where a controller should be.
    #[error("{0} does not belong on this kind of connection")]
    WrongKind(PeerName),
    /// Its issuer is not pinned, or may not vouch for its name.
    #[error("the issuer {issuer} may not vouch for {name}")]
    MayNotVouch {
        /// Digest of the issuer's certificate.
        issuer: Digest,
        /// The name.
        name: SpiffeName,
    },
    /// Its certificate cannot be read; the handshake should have refused it.
    #[error("the other side's certificate cannot be read")]
    Unreadable(#[from] PkiError),
}

/// Who is at the other end: a controller on a peers' connection, a controller or an agent on an agents' one, by which end
/// it is.
///
/// # Errors
/// Without a certificate, on an enrolment connection, or when the name does not fit the kind of connection.
pub fn peer(connection: &Connection) -> Result<Peer, PeerError> {
    let protocol = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default();
    if protocol == ALPN_ENROL {
        return Err(PeerError::Enrolment);
    }
    let (_, peer) = presented(connection)?;
    let controller = matches!(peer.name, PeerName::Controller { .. });
    let fits = match connection.side() {
        Side::Client => controller,
        Side::Server if protocol == ALPN_PEER => controller,
        Side::Server if protocol == ALPN_AGENT => !controller,
        Side::Server => true,
    };
    if fits {
        Ok(peer)
    } else {
        Err(PeerError::WrongKind(peer.name))
    }
}

/// For the dialling end of an enrolment connection: who is at the other end, by the issuers that its greeting pinned.
///
/// # Errors
/// When the controller's issuer is not pinned there, or may not vouch for it.
pub fn peer_after_greeting(
    connection: &Connection,
    pinned: &PinnedIssuers,
) -> Result<Peer, PeerError> {
    let (name, peer) = presented(connection)?;
    if !pinned.may_vouch(&peer.issuer, &name) {
        return Err(PeerError::MayNotVouch {
            issuer: peer.issuer,
            name,
        });
    }
    match peer.name {
        PeerName::Controller { .. } => Ok(peer),
        PeerName::Agent(_) => Err(PeerError::WrongKind(peer.name)),
    }
}

/// The chain was verified in the handshake; here it is only read.
fn presented(connection: &Connection) -> Result<(SpiffeName, Peer), PeerError> {
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(PeerError::NoCertificate)?;
    let [leaf, issuer] = chain.as_slice() else {
        return Err(PeerError::NoCertificate);
    };
    let name = pki::name_of(leaf)?;
    let peer = Peer {
        name: name.name.clone(),
        issuer: Digest::of(issuer),
        key: pki::key_digest(leaf)?,
        not_after: pki::validity(leaf)?.not_after,
    };
    Ok((name, peer))
}
