//! The used tokens that outlive a restart: those whose issue lies ahead of the agent's clock. One small file holds the
//! highest such second of each unit; after a start, nothing that a unit issued up to it counts.
//!
//! It holds no more entries than units, each for no longer than clocks may be apart: tokens of now are not in it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use dotmac_protocol::{ids::UnitId, time::Timestamp};
use dotmac_runtime::disk;

use super::TOLERANCE_MS;

/// The highest second ahead of the clock in which each unit issued a token that was used.
type Seconds = BTreeMap<UnitId, u64>;

/// What the file says, and what it said at the start.
#[derive(Debug)]
pub(super) struct Ahead {
    file: PathBuf,
    at_start: Seconds,
    /// For units that were not in the file: only a damaged one says anything about them.
    others_at_start: Option<u64>,
    kept: Mutex<Seconds>,
}

impl Ahead {
    /// Reads the file. In place of a damaged one stands the highest second that it could have held.
    pub(super) fn open(file: PathBuf, now: Timestamp) -> Self {
        let (at_start, others_at_start) = match read(&file) {
            Ok(seconds) => (seconds, None),
            Err(error) => {
                let path = file.display();
                tracing::warn!(%error, %path, "used tokens cannot be read: for a minute none counts");
                (Seconds::new(), Some(highest_s(now)))
            }
        };
        Self {
            file,
            kept: Mutex::new(at_start.clone()),
            at_start,
            others_at_start,
        }
    }

    /// The second from which on a unit's tokens may be new, as far as the time before the start goes. A clock that was
    /// set back so far that none of those tokens could be accepted shuts nobody out.
    pub(super) fn floor_s(&self, unit: &UnitId, now: Timestamp) -> Option<u64> {
        let used_s = self.at_start.get(unit).copied().or(self.others_at_start)?;
        (used_s <= highest_s(now)).then_some(used_s + 1)
    }

    /// Notes the second of a token that is used. Synced when this returns; a second that is not ahead needs no note.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn keep(&self, unit: &UnitId, issued_s: u64, now: Timestamp) -> io::Result<()> {
        let now_s = now.0 / 1_000;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if issued_s <= now_s || kept.get(unit).is_some_and(|known| *known >= issued_s) {
            return Ok(());
        }
        let mut seconds = kept.clone();
        // A start from now on refuses what is past without being told.
        seconds.retain(|_, second| *second >= now_s);
        seconds.insert(unit.clone(), issued_s);
        let bytes = serde_json::to_vec(&seconds).map_err(io::Error::other)?;
        disk::write_atomic(&self.file, &bytes, 0o600)?;
        *kept = seconds;
        Ok(())
    }
}

/// The highest second in which a token may be issued.
fn highest_s(now: Timestamp) -> u64 {
    now.plus_millis(TOLERANCE_MS).0 / 1_000
}

fn read(file: &Path) -> io::Result<Seconds> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seconds::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::Ahead;
    use crate::fixture::{NOW, unit};

    #[test]
    fn the_highest_second_ahead_of_each_unit_is_kept_until_it_is_past() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let open = |now| Ahead::open(file.clone(), now);
        let (demo, other, now_s) = (unit("demo"), unit("other"), NOW.0 / 1_000);
        let ahead = open(NOW);
        ahead.keep(&demo, now_s, NOW).unwrap();
        assert!(!file.exists(), "what is not ahead costs no write");
        for issued_s in [now_s + 20, now_s + 55, now_s + 30] {
            ahead.keep(&demo, issued_s, NOW).unwrap();
        }
        let own = ahead.floor_s(&demo, NOW);
        assert_eq!(own, None, "this agent remembers the tokens themselves");
        let again = open(NOW);
        assert_eq!(again.floor_s(&demo, NOW), Some(now_s + 56));
        let others = again.floor_s(&other, NOW);
        assert_eq!(others, None, "nobody moves another's floor");
        let before = Timestamp(NOW.0 - 6_000);
        assert_eq!(again.floor_s(&demo, before), None, "a clock set back");
        let later = NOW.plus_millis(56_000);
        again.keep(&other, now_s + 60, later).unwrap();
        assert_eq!(open(later).at_start, [(other, now_s + 60)].into());
    }

    #[test]
    fn of_a_damaged_file_the_worst_is_believed_for_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        std::fs::write(&file, b"{\"instance/de").unwrap();
        let ahead = Ahead::open(file, NOW);
        let floor_s = ahead.floor_s(&unit("demo"), NOW);
        assert_eq!(floor_s, Some(NOW.0 / 1_000 + 61));
    }
}
