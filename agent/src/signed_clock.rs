//! The newest signed clock that this agent saw, on its disk: the time that never goes back, whatever the agent's own
//! clock or a controller says. It refuses statements that are not signed by enough timestamp keys, or not newer.

mod doubts;

use std::{
    io,
    path::{Path, PathBuf},
};

use dotmac_protocol::{
    clock::{ClockError, ClockStatement, SignedClock, VerifiedClock},
    codec,
    ids::{AgentId, Epoch},
    time::Timestamp,
    trust::TrustRoot,
};
use dotmac_runtime::disk;
use thiserror::Error;

pub(crate) use self::doubts::{Doubts, Finding, Sight};
use crate::trust::TrustStore;

const FILE: &str = "newest.clock";

/// The newest signed clock of one agent.
#[derive(Debug)]
pub struct ClockStore {
    file: PathBuf,
    me: AgentId,
    newest: Option<Newest>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    /// A restored cluster counts from anew, under a higher epoch.
    place: (Epoch, u64),
    at: Timestamp,
}

/// What a believed statement is to this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The newest; it is on disk.
    Newer(VerifiedClock),
    /// The newest one again.
    Known,
    /// It lies before the newest one: rolled back, and without effect.
    Older,
}

/// Why a statement has no effect.
#[derive(Debug, Error)]
pub enum HearError {
    /// It is not to be believed.
    #[error("the signed clock is not to be believed")]
    Unverified(#[from] ClockError),
    /// The disk fails; the one before stays the newest.
    #[error("the signed clock cannot be written to {}", file.display())]
    Disk {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ClockStore {
    /// Reads the newest statement to agent `me` from the directory of its trust roots, and checks it again, against
    /// the trust root it was signed under. A damaged file counts as none, and what is wrong with it comes back too.
    #[must_use]
    pub fn open(directory: &Path, me: AgentId, trust: &TrustStore) -> (Self, Option<String>) {
        let file = directory.join(FILE);
        let (newest, damage) = match load(&file, &me, trust) {
            Ok(newest) => (newest, None),
            Err(detail) => (None, Some(format!("{}: {detail}", file.display()))),
        };
        (Self { file, me, newest }, damage)
    }

    /// The highest signed time.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.newest.map(|newest| newest.at)
    }

    /// Checks a statement and writes it down if it is the newest. Waits for the disk.
    ///
    /// # Errors
    /// When it is not believed, or cannot be written.
    pub fn hear(&mut self, clock: &SignedClock, trust: &TrustRoot) -> Result<Heard, HearError> {
        let verified = clock.verify(trust, &self.me)?;
        let found = Newest::of(&verified);
        if let Some(newest) = self.newest {
            if found.place == newest.place {
                return Ok(Heard::Known);
            }
            if found.place < newest.place || found.at < newest.at {
                return Ok(Heard::Older);
            }
        }
        let bytes = codec::encode(clock).expect("a clock that was received can be encoded");
        disk::write_atomic(&self.file, &bytes, 0o600).map_err(|source| HearError::Disk {
            file: self.file.clone(),
            source,
        })?;
        self.newest = Some(found);
        Ok(Heard::Newer(verified))
    }
}

impl Newest {
    fn of(verified: &VerifiedClock) -> Self {
        let statement = verified.statement();
        Self {
            place: (statement.epoch, statement.number),
            at: statement.at,
        }
    }
}

fn load(file: &Path, me: &AgentId, trust: &TrustStore) -> Result<Option<Newest>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let bytes = match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| text(&error))?,
    };
    let clock: SignedClock = codec::decode(&bytes).map_err(|error| text(&error))?;
    let statement: ClockStatement = codec::decode(&clock.body).map_err(|error| text(&error))?;
    let version = statement.trust_version;
    let signed_under = trust
        .version(version)
        .ok_or_else(|| format!("trust root {version} of its signatures is not on disk"))?;
    let verified = clock
        .verify(signed_under, me)
        .map_err(|error| text(&error))?;
    Ok(Some(Newest::of(&verified)))
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{clock::ClockError, digest::Digest, trust::TrustError};

    use super::{ClockStore, FILE, HearError, Heard};
    use crate::{
        fixture::{NOW, agent, clock, sign_clock, sign_trust, trust_root},
        trust::TrustStore,
    };

    struct Site {
        directory: tempfile::TempDir,
        trust: TrustStore,
    }

    impl Site {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let root = sign_trust(&trust_root(1), &[10]);
            let trust = TrustStore::pin(directory.path(), root.digest(), &[root]).unwrap();
            Self { directory, trust }
        }

        fn open(&self) -> ClockStore {
            let (store, damage) = ClockStore::open(self.directory.path(), agent(), &self.trust);
            assert_eq!(damage, None);
            store
        }
    }

    #[test]
    fn law_3_a_rolled_back_clock_is_ignored_even_after_a_restart() {
        let site = Site::new();
        let trust = site.trust.current();
        let mut store = site.open();
        assert_eq!(store.at(), None);
        let later = NOW.plus_millis(60_000);
        let newer = store.hear(&clock(2, later), &trust).unwrap();
        assert!(matches!(newer, Heard::Newer(one) if one.statement().number == 2));
        for mut store in [store, site.open()] {
            for (number, at, expected) in [
                (1, NOW, Heard::Older),
                (1, later.plus_millis(1), Heard::Older),
                (3, NOW, Heard::Older),
                (2, later, Heard::Known),
            ] {
                assert_eq!(store.hear(&clock(number, at), &trust).unwrap(), expected);
                assert_eq!(store.at(), Some(later));
            }
        }
    }

    #[test]
    fn law_3_one_timestamp_signature_does_not_count() {
        let site = Site::new();
        let mut store = site.open();
        let lone = sign_clock(1, NOW, Digest::ZERO, &[3, 3]);
        let refused = store.hear(&lone, &site.trust.current());
        assert!(matches!(
            refused,
            Err(HearError::Unverified(ClockError::Signatures(
                TrustError::Signatures {
                    found: 1,
                    needed: 2,
                    ..
                }
            )))
        ));
        assert_eq!((store.at(), site.open().at()), (None, None));
    }

    #[test]
    fn a_damaged_file_is_reported_and_counts_as_none() {
        let site = Site::new();
        let mut store = site.open();
        store.hear(&clock(1, NOW), &site.trust.current()).unwrap();
        let file = site.directory.path().join(FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[12] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (store, damage) = ClockStore::open(site.directory.path(), agent(), &site.trust);
        assert_eq!(store.at(), None);
        assert!(damage.unwrap().contains("newest.clock"));
    }
}
