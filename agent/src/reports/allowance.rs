//! How many reports a unit may make: a steady rate, and after a pause as many as gather in [`BURST_S`]. It bounds what one
//! instance can write into the ledgers of all controllers; whatever was taken before is not charged again.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dotmac_runtime::{
    clock::Clock,
    rate::{Bucket, Rate, whole_seconds},
};

/// Seconds whose allowance gathers while nothing is reported.
const BURST_S: u32 = 200;

/// What one unit may report. It lives as long as the process: a restart fills it.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: Rate,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    uptime_ms: u64,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(per_second: NonZeroU32, clock: &Clock) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::new(BURST_S).expect("it is not zero"));
        let rate = Rate::new(per_second, burst);
        let state = State {
            bucket: rate.full(),
            uptime_ms: clock.uptime_ms(),
        };
        Self {
            rate,
            state: Mutex::new(state),
        }
    }

    /// Charges so many reports, or gives the seconds after which there is enough for them, at least one. A call
    /// with more than ever gather is charged what gathers at most.
    pub(super) fn charge(&self, reports: usize, clock: &Clock) -> Result<(), u64> {
        let now_ms = clock.uptime_ms();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_ms = now_ms.saturating_sub(state.uptime_ms);
        state.uptime_ms = now_ms;
        state
            .bucket
            .fill(&self.rate, Duration::from_millis(passed_ms));
        let reports = u32::try_from(reports).unwrap_or(u32::MAX);
        let taken = state.bucket.take(&self.rate, reports);
        taken.map_err(whole_seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use dotmac_protocol::time::Timestamp;
    use dotmac_runtime::clock::Clock;

    use super::{Allowance, BURST_S};

    #[test]
    fn a_burst_is_spent_once_and_comes_back_at_the_rate() {
        let (clock, hand) = Clock::manual(Timestamp(0));
        let allowance = Allowance::new(NonZeroU32::new(5).unwrap(), &clock);
        let burst = usize::try_from(BURST_S).unwrap() * 5;
        assert_eq!(allowance.charge(burst, &clock), Ok(()));
        assert_eq!(allowance.charge(1, &clock), Err(1));
        assert_eq!(allowance.charge(11, &clock), Err(3));
        hand.advance_millis(2_200);
        assert_eq!(allowance.charge(11, &clock), Ok(()));
        assert_eq!(allowance.charge(1, &clock), Err(1));
        hand.advance_millis(3_600_000);
        assert_eq!(allowance.charge(burst, &clock), Ok(()), "no more gathers");
        assert_eq!(allowance.charge(1, &clock), Err(1));
    }

    #[test]
    fn one_call_with_more_than_ever_gathers_is_not_refused_for_ever() {
        let (clock, hand) = Clock::manual(Timestamp(0));
        let allowance = Allowance::new(NonZeroU32::MIN, &clock);
        assert_eq!(allowance.charge(500, &clock), Ok(()));
        assert_eq!(allowance.charge(500, &clock), Err(BURST_S.into()));
        hand.set(Timestamp(u64::MAX / 2));
        assert_eq!(
            allowance.charge(1, &clock),
            Err(1),
            "a wall clock that is set gives nothing"
        );
    }
}
