//! How long to wait after crashes, and which of them count. Numbers only; it plans nothing.

/// How restarts are slowed down, and when a crash counts as over. All in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first restart; doubles with every crash in a row.
    pub first_ms: u64,
    /// Between restarts at most.
    pub max_ms: u64,
    /// After so long a healthy time the row of crashes is over.
    pub healthy_ms: u64,
    /// Crashes in a row after which the unit counts as failed; it is still started again.
    pub crashes_max: u32,
    /// How long a unit shows that it was restarted.
    pub damping_ms: u64,
    /// How long a copy may take until it is ready for the first time.
    pub never_ready_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first_ms: 500,
            max_ms: 30_000,
            healthy_ms: 60_000,
            crashes_max: 5,
            damping_ms: 10_000,
            never_ready_ms: 60_000,
        }
    }
}

impl Backoff {
    /// How long to wait after so many crashes in a row.
    #[must_use]
    pub fn pause_ms(&self, crashes: u32) -> u64 {
        let doublings = crashes.saturating_sub(1).min(32);
        self.first_ms
            .saturating_mul(1_u64 << doublings)
            .min(self.max_ms)
    }
}
