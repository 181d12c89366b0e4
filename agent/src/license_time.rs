//! The time by which licences are judged: it goes by what controllers signed and by what passed since, so that a clock
//! that was set back extends nothing. A wrong jump forward lasts until the next signed clock.
//!
//! With a signed clock of this process the time is the signed one and the host's uptime since; without one it is the
//! latest of the agent's own clock and the highest time known before (on disk, or of an older signed clock) with the
//! uptime since. It decides nothing but what time it is.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_protocol::time::Timestamp;
use dotmac_runtime::{clock::Clock, disk};

/// How often the highest time is written down. What a power cut may take back of it.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The time of licences. Clones share it.
#[derive(Debug, Clone)]
pub struct LicenseTime {
    clock: Clock,
    file: PathBuf,
    mark: Arc<Mutex<Mark>>,
}

/// A time that was, and the host's uptime at that moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Timestamp,
    uptime_ms: u64,
    /// Controllers signed it in the life of this process: the agent's own clock has no say.
    is_signed: bool,
}

impl LicenseTime {
    /// Goes on from what an earlier process wrote to `file`, and from the newest signed time on disk. A damaged file
    /// counts as none, and what is wrong with it comes back too.
    #[must_use]
    pub fn open(file: PathBuf, signed: Option<Timestamp>, clock: Clock) -> (Self, Option<String>) {
        let (kept, damage) = match read(&file) {
            Ok(kept) => (kept, None),
            Err(error) => (None, Some(format!("{}: {error}", file.display()))),
        };
        let mark = Mark {
            at: kept.max(signed).unwrap_or_default(),
            uptime_ms: clock.uptime_ms(),
            is_signed: false,
        };
        let mark = Arc::new(Mutex::new(mark));
        (Self { clock, file, mark }, damage)
    }

    /// What time it is for licences.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let uptime_ms = self.clock.uptime_ms();
        let mut mark = self.lock();
        let passed = mark
            .at
            .plus_millis(uptime_ms.saturating_sub(mark.uptime_ms));
        if mark.is_signed {
            return passed;
        }
        // From here on not even a clock that is set back right now takes the time back.
        mark.at = passed.max(self.clock.now());
        mark.uptime_ms = uptime_ms;
        mark.at
    }

    /// Takes the newest signed clock, which replaces all that was known before. Waits for the disk.
    pub fn hear(&self, signed: Timestamp) {
        let uptime_ms = self.clock.uptime_ms();
        *self.lock() = Mark {
            at: signed,
            uptime_ms,
            is_signed: true,
        };
        self.keep();
    }

    /// Writes the highest time down. A failing disk is told and tried again the next time.
    pub fn keep(&self) {
        let text = format!("{}\n", self.now().0);
        if let Err(error) = disk::write_atomic(&self.file, text.as_bytes(), 0o600) {
            let file = self.file.display();
            tracing::error!(%error, path = %file, "the time of licences cannot be written down");
        }
    }

    /// Writes the highest time down every minute, for ever.
    pub async fn keep_keeping(self) {
        loop {
            tokio::time::sleep(KEEP_EVERY).await;
            let time = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || time.keep()).await {
                tracing::error!(%error, "the time of licences was not written down");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &std::path::Path) -> io::Result<Option<Timestamp>> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(text) => {
            let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "it holds no time");
            let millis = text.trim().parse().map_err(damaged)?;
            Ok(Some(Timestamp(millis)))
        }
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;
    use dotmac_runtime::clock::Clock;

    use super::LicenseTime;
    use crate::fixture::NOW;

    const DAY_MS: u64 = 24 * 3_600_000;

    #[test]
    fn a_clock_set_back_extends_nothing_not_even_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("license_time");
        let (clock, hand) = Clock::manual(NOW);
        let open = |signed| LicenseTime::open(file.clone(), signed, clock.clone()).0;
        let time = open(None);
        assert_eq!(time.now(), NOW);
        hand.advance_millis(DAY_MS);
        let later = NOW.plus_millis(DAY_MS);
        assert_eq!(time.now(), later);
        hand.set(Timestamp(1));
        hand.advance_millis(DAY_MS);
        let later = later.plus_millis(DAY_MS);
        assert_eq!(
            time.now(),
            later,
            "what passed counts, not what the clock says"
        );
        time.keep();
        drop(time);
        assert_eq!(open(None).now(), later);
        let signed = later.plus_millis(1);
        assert_eq!(open(Some(signed)).now(), signed);
    }

    #[test]
    fn a_jump_forward_lasts_until_the_next_signed_clock_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("license_time");
        let (clock, hand) = Clock::manual(NOW);
        let open = || LicenseTime::open(file.clone(), None, clock.clone()).0;
        let time = open();
        hand.set(NOW.plus_millis(1_000 * DAY_MS));
        time.keep();
        hand.set(NOW);
        assert_eq!(time.now(), NOW.plus_millis(1_000 * DAY_MS));
        time.hear(NOW);
        hand.set(NOW.plus_millis(1_000 * DAY_MS));
        hand.advance_millis(DAY_MS);
        assert_eq!(
            time.now(),
            NOW.plus_millis(DAY_MS),
            "the own clock has no say"
        );
        drop(time);
        hand.set(NOW);
        assert_eq!(
            open().now(),
            NOW,
            "the signed clock is on disk in its place"
        );
    }

    #[test]
    fn a_damaged_file_is_told_and_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("license_time");
        std::fs::write(&file, "soon").unwrap();
        let (clock, _) = Clock::manual(NOW);
        let (time, damage) = LicenseTime::open(file, None, clock);
        assert!(damage.unwrap().contains("license_time"));
        assert_eq!(time.now(), NOW);
    }
}
