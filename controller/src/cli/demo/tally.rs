//! The counting: which writes were acknowledged, the longest time without one, and what was lost. Pure.

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// What to ask for it by.
    pub(crate) id: String,
    /// Milliseconds from the start of the writing to the request.
    pub(crate) asked_ms: u64,
    /// Milliseconds to the acknowledgement, if there was one.
    pub(crate) acknowledged_ms: Option<u64>,
}

/// What the writes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Writes asked for.
    pub(crate) asked: usize,
    /// Writes acknowledged.
    pub(crate) acknowledged: usize,
    /// The longest time between two acknowledgements, in milliseconds.
    pub(crate) longest_gap_ms: u64,
    /// Acknowledged writes that are not there afterwards.
    pub(crate) lost: usize,
}

impl Tally {
    /// Counts; `lost` was found out by asking.
    pub(crate) fn of(writes: &[Write], lost: usize) -> Self {
        let mut times: Vec<_> = writes
            .iter()
            .filter_map(|write| write.acknowledged_ms)
            .collect();
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        Self {
            asked: writes.len(),
            acknowledged: times.len(),
            longest_gap_ms: gaps.max().unwrap_or_default(),
            lost,
        }
    }

    /// In words.
    pub(crate) fn describe(self) -> String {
        format!(
            "writes: {} asked, {} acknowledged, longest pause {} ms, {} lost",
            self.asked, self.acknowledged, self.longest_gap_ms, self.lost
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, Write};

    fn write(asked_ms: u64, acknowledged_ms: Option<u64>) -> Write {
        Write {
            id: asked_ms.to_string(),
            asked_ms,
            acknowledged_ms,
        }
    }

    #[test]
    fn the_pause_is_the_longest_time_between_two_acknowledgements() {
        let writes = [
            write(0, Some(5)),
            write(100, Some(104)),
            write(200, None),
            write(300, Some(1_450)),
        ];
        let tally = Tally::of(&writes, 0);
        assert_eq!(
            tally,
            Tally {
                asked: 4,
                acknowledged: 3,
                longest_gap_ms: 1_346,
                lost: 0
            }
        );
        assert_eq!(
            tally.describe(),
            "writes: 4 asked, 3 acknowledged, longest pause 1346 ms, 0 lost"
        );
        assert_eq!(Tally::of(&[], 0).longest_gap_ms, 0);
    }
}
