//! The check of a presented chain, for both ends of a handshake. webpki checks signatures, dates and usages with the
//! presented issuer as the only anchor, after that issuer was found among the pinned ones.

use std::{fmt, sync::Arc};

use dotmac_protocol::{digest::Digest, time::Timestamp};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use thiserror::Error;

use super::PinnedIssuers;
use crate::pki::{self, PeerName, PkiError, SpiffeName};

/// Why a chain is refused, beyond what webpki says.
#[derive(Error)]
pub(super) enum ChainError {
    #[error("the chain has {0} certificates instead of 2")]
    Length(usize),
    #[error("the issuer {0} is not pinned")]
    NotPinned(Digest),
    #[error("the issuer {issuer} may not vouch for {name}")]
    MayNotVouch { issuer: Digest, name: SpiffeName },
    #[error("{0} is no controller")]
    NoController(SpiffeName),
    #[error(transparent)]
    Unreadable(#[from] PkiError),
}

/// The TLS library logs and sends the debug form, so it is the one for people.
impl fmt::Debug for ChainError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Whose issuers count.
#[derive(Debug)]
pub(super) enum Pins {
    /// Those of the trust root.
    Pinned(PinnedIssuers),
    /// Any, before enrolment has pinned one: the caller checks later.
    AnyIssuer,
}

#[derive(Debug)]
pub(super) struct ChainVerifier {
    pins: Pins,
    provider: Arc<CryptoProvider>,
}

impl ChainVerifier {
    pub(super) fn new(pins: Pins, provider: Arc<CryptoProvider>) -> Self {
        Self { pins, provider }
    }

    /// Checks issuer and name, and gives the issuer as the anchor to verify the certificate against.
    fn anchor(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(SpiffeName, RootCertStore), Error> {
        let [issuer] = rest else {
            return Err(refused(ChainError::Length(rest.len() + 1)));
        };
        let digest = Digest::of(issuer);
        let pinned = match &self.pins {
            Pins::Pinned(pinned) => Some(pinned),
            Pins::AnyIssuer => None,
        };
        if pinned.is_some_and(|pinned| !pinned.knows(&digest)) {
            return Err(refused(ChainError::NotPinned(digest)));
        }
        let name = pki::name_of(leaf).map_err(|error| refused(error.into()))?;
        if pinned.is_some_and(|pinned| !pinned.may_vouch(&digest, &name)) {
            return Err(refused(ChainError::MayNotVouch {
                issuer: digest,
                name,
            }));
        }
        check_dates(issuer, now)?;
        let mut anchor = RootCertStore::empty();
        anchor.add(CertificateDer::from(issuer.as_ref()))?;
        Ok((name, anchor))
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (name, anchor) = self.anchor(leaf, rest, now)?;
        if !matches!(name.name, PeerName::Controller { .. }) {
            return Err(refused(ChainError::NoController(name)));
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &anchor, &[], now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for ChainVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (_, anchor) = self.anchor(leaf, rest, now)?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(anchor), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_client_cert(leaf, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// webpki does not look at an anchor's dates.
fn check_dates(issuer: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let window = pki::validity(issuer).map_err(|error| refused(error.into()))?;
    let now = Timestamp(now.as_secs().saturating_mul(1000));
    if now < window.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now >= window.not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

fn refused(error: ChainError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}
