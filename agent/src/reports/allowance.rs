//! How many reports a unit may make: a steady rate, and after a pause as many as gather in [`BURST_S`]. It bounds what one
//! instance can write into the ledgers of all controllers; whatever was taken before is not charged again.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
};

use dotmac_runtime::clock::Clock;

/// Seconds whose allowance gathers while nothing is reported.
const BURST_S: u64 = 200;
/// Thousandths of a report.
const UNIT: u64 = 1_000;

/// A token bucket of one unit, in thousandths of a report. It lives as long as the process: a restart fills it.
#[derive(Debug)]
pub(super) struct Allowance {
    per_second: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: u64,
    uptime_ms: u64,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(per_second: NonZeroU32, clock: &Clock) -> Self {
        let per_second = u64::from(per_second.get());
        let state = State {
            left: per_second * BURST_S * UNIT,
            uptime_ms: clock.uptime_ms(),
        };
        Self {
            per_second,
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
        let most = self.per_second * BURST_S * UNIT;
        let gathered = passed_ms.saturating_mul(self.per_second);
        state.left = most.min(state.left.saturating_add(gathered));
        let wanted = u64::try_from(reports).unwrap_or(u64::MAX);
        let wanted = most.min(wanted.saturating_mul(UNIT));
        let Some(left) = state.left.checked_sub(wanted) else {
            let missing = wanted - state.left;
            return Err(missing.div_ceil(self.per_second * UNIT).max(1));
        };
        state.left = left;
        Ok(())
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
        assert_eq!(allowance.charge(500, &clock), Err(BURST_S));
        hand.set(Timestamp(u64::MAX / 2));
        assert_eq!(
            allowance.charge(1, &clock),
            Err(1),
            "a wall clock that is set gives nothing"
        );
    }
}
