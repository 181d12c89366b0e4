//! What controllers sign together, as one State has it: the bytes, their domain, and the role whose keys count.

use dotmac_domain::{State, clock::SealedClock, desired::decode_header};
use dotmac_protocol::{
    clock::CLOCK_DOMAIN,
    keys::{KeyId, Signature},
    trust::Role,
    wave::WAVE_DOMAIN,
};

use crate::peers::Subject;

/// One thing to be signed.
pub(super) struct Signable<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) domain: &'static str,
    pub(super) role: &'a Role,
}

/// Everything of a State that is to be signed.
pub(super) fn subjects(state: &State) -> impl Iterator<Item = Subject> + '_ {
    let waves = state.waves.keys().copied().map(Subject::Wave);
    let clock = state.clock.iter().map(|clock| Subject::Clock(clock.number));
    waves.chain(clock)
}

impl<'a> Signable<'a> {
    /// What there is to be signed of a subject; `None` when this State does not have it, or not any more, or has it for
    /// another trust root than the one in force.
    pub(super) fn find(state: &'a State, subject: Subject) -> Option<Self> {
        let trust = state.trust.as_ref()?;
        match subject {
            Subject::Wave(number) => {
                let wave = state.waves.get(&number);
                let header = wave.and_then(decode_header)?;
                // What was sealed for another trust root is sealed again.
                let is_for_trust = header.trust_version == trust.version;
                wave.filter(|_| is_for_trust).map(|wave| Self {
                    bytes: &wave.header,
                    domain: WAVE_DOMAIN,
                    role: &trust.controller,
                })
            }
            Subject::Clock(number) => {
                let clock = state.clock.as_ref().filter(|clock| clock.number == number);
                let statement = clock.and_then(SealedClock::statement)?;
                let is_for_trust = statement.trust_version == trust.version;
                clock.filter(|_| is_for_trust).map(|clock| Self {
                    bytes: &clock.body,
                    domain: CLOCK_DOMAIN,
                    role: &trust.timestamp,
                })
            }
        }
    }

    /// Whether this is a signature under it by a key of its role.
    pub(super) fn is_signed_by(&self, signature: &Signature) -> bool {
        let mut keys = self.role.keys.iter();
        keys.any(|key| {
            let verified = || key.verify(self.domain, self.bytes, signature);
            key.id() == signature.key && verified().is_ok()
        })
    }

    /// Whether the key of this name may sign it.
    pub(super) fn is_for(&self, key: KeyId) -> bool {
        self.role.contains(key)
    }
}
