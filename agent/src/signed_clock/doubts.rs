//! What an agent sees in a signed clock besides the time: that its own clock is off, or that what it keeps is not what
//! the controllers signed. Pure; each finding is told once, until it was over. It changes nothing: it only tells.

use dotmac_protocol::{digest::Digest, time::Timestamp};

/// Milliseconds by which the agent's clock may differ from the signed one before that is said.
pub(crate) const CLOCK_TOLERANCE_MS: u64 = 30_000;
/// Statements in a row that the agent's clock has to be ahead of: a single one may have been signed late.
const AHEAD_MIN: u32 = 2;
/// Statements in a row that have to name another set than the agent keeps, with no order taken in between.
const DIFFERING_MIN: u32 = 2;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    off: Option<String>,
    ahead: u32,
    differing: u32,
}

/// One newer statement, and what the agent had when it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    /// Its number.
    pub(crate) number: u64,
    /// The signed time.
    pub(crate) signed: Timestamp,
    /// The agent's clock.
    pub(crate) own: Timestamp,
    /// Whether it is the first of its session: then it was not signed just now.
    pub(crate) is_first: bool,
    /// The digest of what the agent has to keep.
    pub(crate) desired: Digest,
    /// The digest of what it keeps.
    pub(crate) kept: Digest,
}

/// Something to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Name of the audit event.
    pub(crate) action: &'static str,
    /// For people.
    pub(crate) detail: String,
}

impl Doubts {
    /// Judges a newer statement; gives what is new and wrong.
    pub(crate) fn judge(&mut self, sight: &Sight) -> Vec<Finding> {
        let found = [self.judge_clock(sight), self.judge_set(sight)];
        found.into_iter().flatten().collect()
    }

    /// An order was taken: the next statement may still be about the set before it.
    pub(crate) fn order_taken(&mut self) {
        self.differing = 0;
    }

    /// How the agent's clock is off, as a reason for what does not go on.
    pub(crate) fn clock_off(&self) -> Option<&str> {
        self.off.as_deref()
    }

    fn judge_clock(&mut self, sight: &Sight) -> Option<Finding> {
        let is_ahead = sight.own > sight.signed;
        if is_ahead && sight.is_first {
            // It may be as old as statements are apart.
            return None;
        }
        let off_ms = sight.own.distance_millis(sight.signed);
        if off_ms <= CLOCK_TOLERANCE_MS {
            (self.off, self.ahead) = (None, 0);
            return None;
        }
        self.ahead = if is_ahead {
            self.ahead.saturating_add(1)
        } else {
            0
        };
        if is_ahead && self.ahead < AHEAD_MIN {
            return None;
        }
        let side = if is_ahead { "ahead of" } else { "behind" };
        let detail = format!(
            "this agent's clock is {} s {side} the signed one",
            off_ms / 1_000
        );
        let is_news = self.off.replace(detail.clone()).is_none();
        is_news.then_some(Finding {
            action: "clock.off",
            detail,
        })
    }

    fn judge_set(&mut self, sight: &Sight) -> Option<Finding> {
        if sight.desired == sight.kept {
            self.differing = 0;
            return None;
        }
        self.differing = self.differing.saturating_add(1);
        (self.differing == DIFFERING_MIN).then(|| Finding {
            action: "desired.differs",
            detail: format!(
                "clock {} and the one before it name another set than this agent keeps: {} instead of {}",
                sight.number, sight.desired, sight.kept
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{digest::Digest, time::Timestamp};

    use super::{CLOCK_TOLERANCE_MS, Doubts, Sight};

    const HOUR_MS: u64 = 3_600_000;

    fn sight() -> Sight {
        Sight {
            number: 7,
            signed: Timestamp(HOUR_MS),
            own: Timestamp(HOUR_MS),
            is_first: false,
            desired: Digest::ZERO,
            kept: Digest::ZERO,
        }
    }

    fn actions(doubts: &mut Doubts, sight: &Sight) -> Vec<&'static str> {
        let found = doubts.judge(sight).into_iter();
        found.map(|finding| finding.action).collect()
    }

    #[test]
    fn a_clock_that_is_off_is_told_once_until_it_was_right_again() {
        let mut doubts = Doubts::default();
        let mut seen = sight();
        let mut told = Vec::new();
        for own in [
            HOUR_MS + CLOCK_TOLERANCE_MS,
            HOUR_MS + CLOCK_TOLERANCE_MS + 1,
            HOUR_MS + 2 * CLOCK_TOLERANCE_MS,
            HOUR_MS,
            HOUR_MS - CLOCK_TOLERANCE_MS - 1,
        ] {
            seen.own = Timestamp(own);
            told.push(actions(&mut doubts, &seen).len());
        }
        assert_eq!(told, [0, 0, 1, 0, 1]);
        let reason = doubts.clock_off().unwrap();
        assert_eq!(reason, "this agent's clock is 30 s behind the signed one");
    }

    #[test]
    fn the_first_statement_of_a_session_may_be_old_but_not_from_the_future() {
        let mut doubts = Doubts::default();
        let ahead = Sight {
            own: Timestamp(HOUR_MS + 59_000),
            is_first: true,
            ..sight()
        };
        assert_eq!(actions(&mut doubts, &ahead), [""; 0]);
        let behind = Sight {
            own: Timestamp(HOUR_MS - 59_000),
            ..ahead
        };
        assert_eq!(actions(&mut doubts, &behind), ["clock.off"]);
    }

    #[test]
    fn law_3_a_set_that_differs_twice_with_no_order_in_between_is_told_once() {
        let mut doubts = Doubts::default();
        let equal = sight();
        let other = Sight {
            kept: Digest::of(b"another set"),
            ..equal
        };
        let mut told = |sight: &Sight| actions(&mut doubts, sight);
        let none = [""; 0];
        assert_eq!((told(&other), told(&equal)), (vec![], vec![]));
        assert_eq!(told(&other), none);
        assert_eq!(told(&other), ["desired.differs"]);
        assert_eq!(told(&other), none);
        assert_eq!((told(&equal), told(&other)), (vec![], vec![]));
        doubts.order_taken();
        assert_eq!(actions(&mut doubts, &other), none);
        assert_eq!(actions(&mut doubts, &other), ["desired.differs"]);
    }
}
