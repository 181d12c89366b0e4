//! The only source of wall-clock time. Whoever needs time takes a [`Clock`]; nothing here sleeps or measures durations.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dotmac_protocol::time::Timestamp;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// A wall clock: the system's, or one that a test turns by hand. Clones show the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

/// Turns the clock that was made together with it.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl Clock {
    /// The system's wall clock. A time before 1970 reads as 0.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is turned.
    #[must_use]
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let time = Arc::new(AtomicU64::new(start.0));
        (Self(Source::Manual(Arc::clone(&time))), ManualClock(time))
    }

    /// The present time. May go backwards when the system's clock is set.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(time) => Timestamp(time.load(Ordering::SeqCst)),
        }
    }
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance_millis(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::System => formatter.write_str("Clock(system)"),
            Source::Manual(_) => write!(formatter, "Clock({})", self.now()),
        }
    }
}

/// Certificates are checked against the same clock as everything else.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(
            self.now().0,
        )))
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clock"
)]
fn system_now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::Clock;

    #[test]
    fn clones_of_a_manual_clock_turn_together() {
        let (clock, hand) = Clock::manual(Timestamp(1_000));
        let clone = clock.clone();
        hand.advance_millis(500);
        assert_eq!(
            (clock.now(), clone.now()),
            (Timestamp(1_500), Timestamp(1_500))
        );
        hand.set(Timestamp(7));
        assert_eq!(clone.now(), Timestamp(7));
    }

    #[test]
    fn the_system_clock_counts_milliseconds_since_1970() {
        let year_2024_ms = 1_704_067_200_000;
        assert!(Clock::system().now() > Timestamp(year_2024_ms));
    }
}
