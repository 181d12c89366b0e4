//! The only source of randomness. Whoever needs random bytes takes an [`Entropy`]; a seeded one makes tests repeatable
//! and is refused nowhere, so only tests may make one.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use hpke::rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Random bytes: the kernel's, or a sequence that a seed repeats. Clones of a seeded one draw from one sequence.
#[derive(Clone)]
pub struct Entropy(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded { seed: u64, drawn: Arc<AtomicU64> },
}

impl Entropy {
    /// The kernel's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A repeatable sequence, for tests and simulation.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let drawn = Arc::new(AtomicU64::new(0));
        Self(Source::Seeded { seed, drawn })
    }

    /// Fills `bytes`.
    ///
    /// # Panics
    /// When the kernel gives no randomness: nothing safe can be done then.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.0 {
            Source::System => {
                getrandom::fill(bytes).expect("the kernel provides randomness");
            }
            Source::Seeded { seed, drawn } => {
                for part in bytes.chunks_mut(32) {
                    let number = drawn.fetch_add(1, Ordering::SeqCst);
                    let block = Sha256::new()
                        .chain_update(b"dotmac/entropy")
                        .chain_update(seed.to_be_bytes())
                        .chain_update(number.to_be_bytes())
                        .finalize();
                    part.copy_from_slice(&block[..part.len()]);
                }
            }
        }
    }

    /// `N` random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// `bytes` random bytes as lower-case hexadecimal digits, two each.
    #[must_use]
    pub fn hex(&self, bytes: usize) -> String {
        let mut random = vec![0; bytes];
        self.fill(&mut random);
        hex::encode(random)
    }

    /// A new Ed25519 key.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&Zeroizing::new(self.bytes::<32>()))
    }

    /// A number below `bound` (0 when `bound` is 0), for jitter: the bias of at most `bound` / 2^64 does not matter there.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        u64::from_be_bytes(self.bytes())
            .checked_rem(bound)
            .unwrap_or(0)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::System => formatter.write_str("Entropy(system)"),
            Source::Seeded { .. } => formatter.write_str("Entropy(seeded)"),
        }
    }
}

/// So that cryptographic libraries draw from here too.
impl TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_be_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_be_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Entropy {}

#[cfg(test)]
mod tests {
    use super::Entropy;

    #[test]
    fn a_seed_repeats_its_sequence_and_never_a_block() {
        let (first, again) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!(first.bytes::<80>(), again.bytes::<80>());
        let blocks = [first.bytes::<32>(), first.bytes::<32>()];
        assert_ne!(blocks[0], blocks[1]);
        assert_ne!(
            Entropy::seeded(8).bytes::<32>(),
            Entropy::seeded(7).bytes::<32>()
        );
    }

    #[test]
    fn the_system_never_repeats() {
        let entropy = Entropy::system();
        assert_ne!(entropy.bytes::<32>(), entropy.bytes::<32>());
        assert_eq!(entropy.hex(16).len(), 32);
    }

    #[test]
    fn a_bound_is_kept() {
        let entropy = Entropy::seeded(1);
        assert!((0..100).all(|_| entropy.below(10) < 10));
        assert_eq!(entropy.below(0), 0);
    }
}
