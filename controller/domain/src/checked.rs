//! What this process found out about a warrant's signatures: they are checked when it is applied, when its order is
//! sealed, and when each wave it is in is signed, and checking costs more than all else of these. It refuses to be part
//! of the State: it is never written or sent, equals every other one, and answers for exactly the bytes it was asked
//! about, so that a changed warrant or other keys are checked anew.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use dotmac_protocol::{digest::Digest, keys::Signature, trust::Role};

/// The digest of what was checked and held.
#[derive(Debug, Clone, Default)]
pub struct Checked(OnceLock<Digest>);

impl PartialEq for Checked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Checked {}

impl Checked {
    /// Checks once. `message` is what was signed.
    ///
    /// # Errors
    /// What the check said; a failure is not remembered.
    pub(crate) fn once<E>(
        &self,
        role: &Role,
        message: &[u8],
        signatures: &[Signature],
        check: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let over = over(role, message, signatures);
        if self.0.get() == Some(&over) {
            return Ok(());
        }
        check()?;
        // Under other keys than the first time it is checked every time: that lasts until the next restart.
        let _ = self.0.set(over);
        Ok(())
    }
}

/// Batches whose signatures are remembered at most; the oldest go first. Requests of one batch are applied close together.
const BATCHES_MAX: usize = 64;

/// The same for batches that controllers attested together: many warrants rest on the same signatures. Copies share it.
#[derive(Debug, Clone, Default)]
pub struct CheckedBatches(Arc<Mutex<VecDeque<Digest>>>);

impl PartialEq for CheckedBatches {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for CheckedBatches {}

impl CheckedBatches {
    /// Checks once. `message` is what was signed.
    ///
    /// # Errors
    /// What the check said; a failure is not remembered.
    pub(crate) fn once<E>(
        &self,
        role: &Role,
        message: &[u8],
        signatures: &[Signature],
        check: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let over = over(role, message, signatures);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&over) {
            return Ok(());
        }
        check()?;
        let mut known = known();
        known.push_back(over);
        if known.len() > BATCHES_MAX {
            known.pop_front();
        }
        Ok(())
    }
}

fn over(role: &Role, message: &[u8], signatures: &[Signature]) -> Digest {
    let mut bytes =
        Vec::with_capacity(message.len() + 64 + role.keys.len() * 32 + signatures.len() * 96);
    bytes.extend(role.threshold.to_be_bytes());
    bytes.extend(
        u64::try_from(role.keys.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes(),
    );
    role.keys.iter().for_each(|key| bytes.extend(key.0));
    bytes.extend(
        u64::try_from(signatures.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes(),
    );
    for signature in signatures {
        bytes.extend(signature.key.0.as_bytes());
        signature.halves.iter().for_each(|half| bytes.extend(half));
    }
    bytes.extend(message);
    Digest::tagged("dotmac/checked/v1", &bytes)
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        digest::Digest,
        keys::{KeyId, PublicKey, Signature},
        trust::Role,
    };

    use super::{BATCHES_MAX, Checked, CheckedBatches};

    #[test]
    fn law_3_a_batch_is_known_by_its_bytes_signatures_and_keys_and_not_for_ever() {
        let role = |key| Role {
            threshold: 1,
            keys: vec![PublicKey([key; 32])],
        };
        let batches = CheckedBatches::default();
        let is_asked = |role: &Role, message: &[u8], result: Result<(), ()>| {
            let mut is_asked = false;
            let _ = batches.once(role, message, &[], || {
                is_asked = true;
                result
            });
            is_asked
        };
        assert!(is_asked(&role(1), b"batch", Err(())));
        assert!(is_asked(&role(1), b"batch", Ok(())), "a failure is kept");
        assert!(!is_asked(&role(1), b"batch", Ok(())));
        assert!(is_asked(&role(2), b"batch", Ok(())), "other keys");
        assert!(is_asked(&role(1), b"another", Ok(())));
        for number in 0..BATCHES_MAX {
            assert!(is_asked(&role(1), &number.to_be_bytes(), Ok(())));
        }
        assert!(is_asked(&role(1), b"batch", Ok(())), "it was forgotten");
    }

    #[test]
    fn law_3_only_the_very_same_bytes_signatures_and_keys_are_not_checked_again() {
        let role = |key| Role {
            threshold: 1,
            keys: vec![PublicKey([key; 32])],
        };
        let signature = |half| Signature {
            key: KeyId(Digest::ZERO),
            halves: [[half; 32]; 2],
        };
        let checked = Checked::default();
        let is_asked = |checked: &Checked, role: &Role, message: &[u8], half| {
            let mut is_asked = false;
            let _ = checked.once(role, message, &[signature(half)], || {
                is_asked = true;
                Err(())
            });
            is_asked
        };
        assert!(
            is_asked(&checked, &role(1), b"message", 1),
            "nothing was checked yet"
        );
        assert!(
            is_asked(&checked, &role(1), b"message", 1),
            "a failure is not remembered"
        );
        let good = checked.once(&role(1), b"message", &[signature(1)], || Ok::<(), ()>(()));
        assert_eq!(good, Ok(()));
        assert!(!is_asked(&checked, &role(1), b"message", 1));
        assert!(
            !is_asked(&checked.clone(), &role(1), b"message", 1),
            "a copy knows it, too"
        );
        assert!(is_asked(&checked, &role(2), b"message", 1), "other keys");
        assert!(
            is_asked(&checked, &role(1), b"another", 1),
            "another message"
        );
        assert!(
            is_asked(&checked, &role(1), b"message", 2),
            "another signature"
        );
    }
}
