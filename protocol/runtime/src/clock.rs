//! The only source of wall-clock time and of the host's uptime. Whoever needs time takes a [`Clock`]; nothing here sleeps.

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
    Manual(Arc<Hands>),
}

/// Turns the clock that was made together with it.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    time: AtomicU64,
    uptime: AtomicU64,
}

impl Clock {
    /// The system's wall clock. A time before 1970 reads as 0.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is turned.
    #[must_use]
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let hands = Arc::new(Hands {
            time: AtomicU64::new(start.0),
            uptime: AtomicU64::new(0),
        });
        (Self(Source::Manual(Arc::clone(&hands))), ManualClock(hands))
    }

    /// The present time. May go backwards when the system's clock is set.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(hands) => Timestamp(hands.time.load(Ordering::SeqCst)),
        }
    }

    /// The present time in nanoseconds since 1970, for the spans of traces alone: nothing is decided by it.
    #[must_use]
    pub fn now_nanos(&self) -> u64 {
        match &self.0 {
            Source::System => system_nanos(),
            Source::Manual(_) => self.now().0.saturating_mul(1_000_000),
        }
    }

    /// Milliseconds since the host was started, sleep included, in steps of a second. Setting the wall clock does not
    /// move it; it only goes forward while the host runs. A manual clock's starts at 0.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        match &self.0 {
            Source::System => system_uptime_ms(),
            Source::Manual(hands) => hands.uptime.load(Ordering::SeqCst),
        }
    }
}

impl ManualClock {
    /// Lets time pass.
    pub fn advance_millis(&self, millis: u64) {
        self.0.time.fetch_add(millis, Ordering::SeqCst);
        self.0.uptime.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock, also backwards; no time passes.
    pub fn set(&self, now: Timestamp) {
        self.0.time.store(now.0, Ordering::SeqCst);
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

fn system_now() -> Timestamp {
    Timestamp(u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX))
}

fn system_uptime_ms() -> u64 {
    let seconds = rustix::system::sysinfo().uptime;
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

fn system_nanos() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clock"
)]
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
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
        assert_eq!(clone.uptime_ms(), 500, "setting a clock lets no time pass");
    }

    #[test]
    fn the_host_runs_for_some_time_already() {
        let clock = Clock::system();
        let before = clock.uptime_ms();
        assert!(0 < before && before <= clock.uptime_ms());
    }

    #[test]
    fn the_system_clock_counts_milliseconds_since_1970() {
        let year_2024_ms = 1_704_067_200_000;
        assert!(Clock::system().now() > Timestamp(year_2024_ms));
    }
}
