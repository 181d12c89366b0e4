//! One message to one key: HPKE (RFC 9180) base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305. It proves
//! nothing about the sender; what must be authentic is signed elsewhere.

use std::fmt;

use dotmac_protocol::{digest::Digest, unit::Sealed};
use hpke::{
    Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _, aead::ChaCha20Poly1305,
    kdf::HkdfSha256, kem::X25519HkdfSha256, single_shot_open, single_shot_seal_with_rng,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::entropy::Entropy;

type Kem = X25519HkdfSha256;

/// The secret half of an X25519 key that messages are sealed to. Wiped when dropped.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; 32]>);

/// Why a message cannot be sealed or opened.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// The public key is no usable X25519 key (such as a point of small order).
    #[error("the public key to seal to is not a usable X25519 key")]
    PublicKey,
    /// The message is sealed to another key.
    #[error("the message is sealed to another key")]
    OtherKey,
    /// The message was changed, or sealed in another context.
    #[error("the sealed message does not open in this context")]
    Open,
}

impl SealKey {
    /// A new key.
    #[must_use]
    pub fn generate(entropy: &Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes()))
    }

    /// A key from its 32 secret bytes.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// The 32 secret bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        Kem::sk_to_pk(&self.private()).to_bytes().into()
    }

    /// Opens a message that was sealed to this key in this context.
    ///
    /// # Errors
    /// When it names another key, was changed, or belongs to another context.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if sealed.to != Digest::of(&self.public()) {
            return Err(SealError::OtherKey);
        }
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&sealed.encapsulated)
            .map_err(|_| SealError::Open)?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private(),
            &encapsulated,
            context.as_bytes(),
            &sealed.ciphertext,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::Open)
    }

    fn private(&self) -> <Kem as hpke::Kem>::PrivateKey {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(self.0.as_slice())
            .expect("any 32 bytes are an X25519 secret")
    }
}

/// Shows the public half only.
impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealKey(to {})", hex::encode(self.public()))
    }
}

/// Seals `clear` to the X25519 public key `to`. `context` names what the message is for; opening needs the same one.
///
/// # Errors
/// When `to` is not a usable key.
pub fn seal(
    to: &[u8; 32],
    context: &str,
    clear: &[u8],
    entropy: &Entropy,
) -> Result<Sealed, SealError> {
    let recipient =
        <Kem as hpke::Kem>::PublicKey::from_bytes(to).map_err(|_| SealError::PublicKey)?;
    let (encapsulated, ciphertext) =
        single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeS::Base,
            &recipient,
            context.as_bytes(),
            clear,
            &[],
            &mut entropy.clone(),
        )
        .map_err(|_| SealError::PublicKey)?;
    Ok(Sealed {
        to: Digest::of(to),
        encapsulated: encapsulated.to_bytes().into(),
        ciphertext,
    })
}

#[cfg(test)]
mod tests {
    use super::{SealError, SealKey, seal};
    use crate::entropy::Entropy;

    #[test]
    fn a_sealed_message_opens_with_its_key_in_its_context_only() {
        let entropy = Entropy::seeded(1);
        let (key, other) = (SealKey::generate(&entropy), SealKey::generate(&entropy));
        let sealed = seal(&key.public(), "credential", b"hidden", &entropy).unwrap();
        assert_eq!(
            key.open("credential", &sealed).unwrap().as_slice(),
            b"hidden"
        );
        assert_eq!(other.open("credential", &sealed), Err(SealError::OtherKey));
        assert_eq!(key.open("answer", &sealed), Err(SealError::Open));
        let mut renamed = sealed.clone();
        renamed.to = dotmac_protocol::digest::Digest::of(&other.public());
        assert_eq!(other.open("credential", &renamed), Err(SealError::Open));
        let mut changed = sealed;
        changed.ciphertext[0] ^= 1;
        assert_eq!(key.open("credential", &changed), Err(SealError::Open));
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time() {
        let entropy = Entropy::seeded(1);
        let key = SealKey::generate(&entropy);
        let first = seal(&key.public(), "x", b"hidden", &entropy).unwrap();
        assert_ne!(
            first,
            seal(&key.public(), "x", b"hidden", &entropy).unwrap()
        );
        assert!(!first.ciphertext.windows(6).any(|part| part == b"hidden"));
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let sealed = seal(&[0; 32], "x", b"hidden", &Entropy::seeded(1));
        assert_eq!(sealed, Err(SealError::PublicKey));
    }

    #[test]
    fn a_key_survives_its_bytes() {
        let key = SealKey::generate(&Entropy::seeded(3));
        assert_eq!(SealKey::from_bytes(&key.to_bytes()).public(), key.public());
    }
}
