//! Token buckets: how much may be taken at a steady rate, with a burst after a pause. Time is an argument; who has which bucket
//! is its owner's business.

use std::{num::NonZeroU32, time::Duration};

/// Parts of one unit: with microseconds no rate is rounded.
const PARTS: i64 = 1_000_000;

/// How fast buckets fill, and how much they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst_parts: i64,
}

/// What may be taken of one sort by one who asks. It may owe as much as a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    parts: i64,
}

impl Rate {
    /// So many units a second, up to `burst`.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            per_second: per_second.get().into(),
            burst_parts: i64::from(burst.get()) * PARTS,
        }
    }

    /// A full bucket.
    #[must_use]
    pub fn full(&self) -> Bucket {
        Bucket {
            parts: self.burst_parts,
        }
    }
}

impl Bucket {
    /// Fills with what came in this time.
    pub fn fill(&mut self, rate: &Rate, elapsed: Duration) {
        let filled = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_mul(rate.per_second);
        let filled = i64::try_from(filled).unwrap_or(i64::MAX);
        self.parts = self.parts.saturating_add(filled).min(rate.burst_parts);
    }

    /// Takes so many units, the whole burst at most.
    ///
    /// # Errors
    /// How long it takes until they are there. Nothing was taken then.
    pub fn take(&mut self, rate: &Rate, units: u32) -> Result<(), Duration> {
        let wanted = (i64::from(units) * PARTS).min(rate.burst_parts);
        let missing = wanted.saturating_sub(self.parts);
        match u64::try_from(missing) {
            Ok(missing) if missing > 0 => {
                Err(Duration::from_micros(missing.div_ceil(rate.per_second)))
            }
            _ => {
                self.parts -= wanted;
                Ok(())
            }
        }
    }

    /// Takes units for what was done already, even if they are not there: then the next ones come later.
    pub fn charge(&mut self, rate: &Rate, units: u32) {
        let owed = i64::from(units) * PARTS;
        self.parts = self.parts.saturating_sub(owed).max(-rate.burst_parts);
    }
}

/// A wait as `Retry-After` tells it: in whole seconds, one at least.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + begun).max(1)
}
