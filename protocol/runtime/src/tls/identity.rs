//! One's own certificate and key, replaceable while connections are open, so that a renewal needs no restart.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;

use crate::pki::{self, KeyPair, PkiError};

/// A certificate chain and the key it is for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, then its issuer's; DER.
    pub chain: Vec<Vec<u8>>,
    /// The key of the first one.
    pub key: KeyPair,
}

/// Why an identity cannot be shown.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A chain here is a certificate and its issuer's.
    #[error("the certificate chain has {0} certificates instead of 2")]
    Length(usize),
    /// The certificate cannot be used with the key.
    #[error("the certificate chain cannot be used")]
    Chain(#[from] PkiError),
    /// The key cannot sign.
    #[error("the certificate's key cannot be used")]
    Key(#[source] rustls::Error),
}

/// What is shown in the next handshake. Clones share it.
#[derive(Debug, Clone)]
pub struct IdentityCell(Arc<RwLock<Arc<CertifiedKey>>>);

impl IdentityCell {
    /// A cell that shows `identity`.
    ///
    /// # Errors
    /// When chain and key do not fit. Dates are not checked: the other side does.
    pub fn new(identity: &Identity) -> Result<Self, IdentityError> {
        Ok(Self(Arc::new(RwLock::new(certified(identity)?))))
    }

    /// Shows `identity` from now on; on an error the one before stays.
    ///
    /// # Errors
    /// As [`IdentityCell::new`].
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        let next = certified(identity)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The certificate shown at present, DER.
    ///
    /// # Panics
    /// Never: a cell without a certificate cannot be made.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.shown();
        shown
            .cert
            .first()
            .expect("a cell holds a chain of two")
            .to_vec()
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn for_schemes(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes
            .contains(&SignatureScheme::ED25519)
            .then(|| self.shown())
    }
}

impl ResolvesServerCert for IdentityCell {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_schemes(hello.signature_schemes())
    }
}

impl ResolvesClientCert for IdentityCell {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.for_schemes(schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, IdentityError> {
    let [leaf, _] = identity.chain.as_slice() else {
        return Err(IdentityError::Length(identity.chain.len()));
    };
    if pki::key_digest(leaf)? != identity.key.digest() {
        return Err(PkiError::OtherKey.into());
    }
    let secret = identity.key.to_pkcs8();
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(secret.as_slice())).clone_key();
    let key = super::provider()
        .key_provider
        .load_private_key(secret)
        .map_err(IdentityError::Key)?;
    let chain = identity
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
