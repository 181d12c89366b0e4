//! Certificates as this product uses them: Ed25519 keys, one issuer per controller, SPIFFE names. It issues and reads
//! them; whether one is believed is decided in [`crate::tls`].

mod issuer;
mod name;

use std::fmt;

use dotmac_protocol::{
    digest::Digest,
    keys::PublicKey,
    time::{Timestamp, Window},
};
use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _},
};
pub use issuer::{CLOCK_TOLERANCE_MS, Issuer};
pub use name::{PeerName, SpiffeName};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer as _, X509Certificate},
    x509::SubjectPublicKeyInfo,
};
use zeroize::Zeroizing;

use crate::entropy::Entropy;

/// Why a key, certificate or request cannot be made or used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum PkiError {
    /// Not an Ed25519 key in PKCS #8.
    #[error("the private key is not an Ed25519 key in PKCS #8")]
    Key,
    /// Not a PKCS #10 request that its own Ed25519 key signed.
    #[error("the certificate request is not signed by its own Ed25519 key")]
    Request,
    /// Not an X.509 certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The certificate and the key do not belong together.
    #[error("the certificate belongs to another key")]
    OtherKey,
    /// The certificate does not carry exactly one name, or none of the known forms.
    #[error("the certificate names {found:?}, not one controller or agent of a cluster")]
    Name {
        /// What it names.
        found: String,
    },
    /// The certificate could not be put together.
    #[error("the certificate cannot be issued: {detail}")]
    Issue {
        /// Why.
        detail: String,
    },
}

/// A private Ed25519 key for a certificate. Wiped when dropped.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// A new key.
    #[must_use]
    pub fn generate(entropy: &Entropy) -> Self {
        Self(entropy.signing_key())
    }

    /// A key from PKCS #8, DER.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PkiError> {
        SigningKey::from_pkcs8_der(der)
            .map(Self)
            .map_err(|_| PkiError::Key)
    }

    /// The key as PKCS #8, DER.
    ///
    /// # Panics
    /// Never: any Ed25519 key has that form.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let document = self
            .0
            .to_pkcs8_der()
            .expect("an Ed25519 key has a PKCS #8 form");
        Zeroizing::new(document.as_bytes().to_vec())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::of(&self.0)
    }

    /// What [`key_digest`] gives for every certificate and request of this key.
    #[must_use]
    pub fn digest(&self) -> Digest {
        /// DER of a `SubjectPublicKeyInfo` with id-Ed25519 (RFC 8410, section 4) up to the key.
        const PREFIX: [u8; 12] = [
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ];
        Digest::of(&[PREFIX.as_slice(), &self.public().0].concat())
    }
}

/// Shows the public half only.
impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyPair({:?})", self.public())
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        let key: &VerifyingKey = self.0.as_ref();
        key.as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_vec())
    }
}

/// A request for a certificate for this key: PKCS #10, DER. It asks for no name: the issuer gives one.
///
/// # Panics
/// Never: the request's form does not depend on the key.
#[must_use]
pub fn csr(key: &KeyPair) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params
        .serialize_request(key)
        .expect("an empty request can be encoded");
    request.der().to_vec()
}

/// Digest of the public key (`SubjectPublicKeyInfo`, DER) of a certificate or a certificate request.
///
/// # Errors
/// When it is neither.
pub fn key_digest(der: &[u8]) -> Result<Digest, PkiError> {
    parse_certificate(der)
        .map(|certificate| Digest::of(certificate.tbs_certificate.subject_pki.raw))
        .or_else(|_| requested_key(der).map(|key| Digest::of(&key)))
}

/// When a certificate is valid, to the second.
///
/// # Errors
/// When it is none.
pub fn validity(certificate: &[u8]) -> Result<Window, PkiError> {
    let parsed = parse_certificate(certificate)?;
    let millis = |time: x509_parser::time::ASN1Time| {
        Timestamp(
            u64::try_from(time.timestamp())
                .unwrap_or(0)
                .saturating_mul(1000),
        )
    };
    Ok(Window {
        not_before: millis(parsed.validity().not_before),
        not_after: millis(parsed.validity().not_after),
    })
}

/// The one name in a certificate.
///
/// # Errors
/// When it has none, several, or one of another form.
pub fn name_of(certificate: &[u8]) -> Result<SpiffeName, PkiError> {
    name::of_certificate(&parse_certificate(certificate)?)
}

fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PkiError::Certificate),
    }
}

/// The `SubjectPublicKeyInfo` of a request, once its signature shows that the asker holds the key.
fn requested_key(der: &[u8]) -> Result<Vec<u8>, PkiError> {
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Err(PkiError::Request);
    };
    let info = &request.certification_request_info;
    let key = ed25519_key(&info.subject_pki).ok_or(PkiError::Request)?;
    let signature =
        Signature::from_slice(&request.signature_value.data).map_err(|_| PkiError::Request)?;
    key.verify_strict(info.raw, &signature)
        .map_err(|_| PkiError::Request)?;
    Ok(info.subject_pki.raw.to_vec())
}

fn ed25519_key(info: &SubjectPublicKeyInfo<'_>) -> Option<VerifyingKey> {
    if info.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
        return None;
    }
    let bytes = info.subject_public_key.data.as_ref().try_into().ok()?;
    VerifyingKey::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::digest::Digest;

    use super::{KeyPair, PkiError, csr, key_digest};
    use crate::entropy::Entropy;

    #[test]
    fn a_key_survives_its_pkcs8_form() {
        let key = KeyPair::generate(&Entropy::seeded(1));
        let read = KeyPair::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(KeyPair::from_pkcs8(b"none").err(), Some(PkiError::Key));
    }

    #[test]
    fn a_request_names_its_key() {
        let key = KeyPair::generate(&Entropy::seeded(1));
        assert_eq!(key_digest(&csr(&key)), Ok(key.digest()));
        assert_ne!(key.digest(), Digest::of(&key.public().0));
    }

    #[test]
    fn a_changed_request_proves_nothing() {
        let request = csr(&KeyPair::generate(&Entropy::seeded(1)));
        let other = KeyPair::generate(&Entropy::seeded(2)).public();
        let own = KeyPair::generate(&Entropy::seeded(1)).public();
        let start = request.windows(32).position(|part| part == own.0).unwrap();
        let mut swapped = request.clone();
        swapped[start..start + 32].copy_from_slice(&other.0);
        assert_eq!(key_digest(&swapped), Err(PkiError::Request));
        let mut longer = request;
        longer.push(0);
        assert_eq!(key_digest(&longer), Err(PkiError::Request));
    }
}
