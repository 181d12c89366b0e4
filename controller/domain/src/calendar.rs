//! The calendar in UTC, by whole numbers alone: months, and moments as people write them.

use std::fmt;

use dotmac_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600_000;
/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: u64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: u64 = 146_097;

/// A month of a year; prints `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Month {
    year: u64,
    /// From 1.
    month: u8,
}

impl Month {
    /// The month of a moment.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        date(at).0
    }
}

/// A moment as RFC 3339, to the second: `2026-11-23T12:45:00Z`.
#[must_use]
pub fn moment(at: Timestamp) -> String {
    let (month, day) = date(at);
    let seconds = at.0 % DAY_MS / 1_000;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!(
        "{month}-{day:02}T{hours:02}:{minutes:02}:{:02}Z",
        seconds % 60
    )
}

/// Month and day of a moment, by the proleptic Gregorian calendar. Years are counted from March, so that the leap day
/// is the last one.
fn date(at: Timestamp) -> (Month, u64) {
    let days = at.0 / DAY_MS + DAYS_TO_1970;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let (month, next_year) = match from_march {
        0..=9 => (from_march + 3, 0),
        _ => (from_march - 9, 1),
    };
    let month = Month {
        year: era * 400 + year_of_era + next_year,
        month: u8::try_from(month).unwrap_or(12),
    };
    (month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::{DAY_MS, Month, moment};

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        let of = |at| Month::of(Timestamp(at)).to_string();
        let cases = [
            (0, "1970-01"),
            (951_782_399_999, "2000-02"),
            (951_868_799_999, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_700_000_000_000, "2023-11"),
            (1_704_067_199_999, "2023-12"),
            (1_704_067_200_000, "2024-01"),
            (1_709_251_199_999, "2024-02"),
            (4_107_542_399_999, "2100-02"),
            (4_107_542_400_000, "2100-03"),
        ];
        for (at, month) in cases {
            assert_eq!(of(at), month, "{at}");
        }
        // No day leads back, and none is too late.
        let months = (0..100_000).map(|day| Month::of(Timestamp(day * DAY_MS)));
        assert!(months.is_sorted());
        assert!(Month::of(Timestamp(u64::MAX)) > Month::of(Timestamp(1)));
    }

    #[test]
    fn moments_are_written_as_answers_write_them() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20Z"),
            (1_704_067_199_999, "2023-12-31T23:59:59Z"),
            (253_370_764_800_000, "9999-01-01T00:00:00Z"),
        ];
        for (at, text) in cases {
            assert_eq!(moment(Timestamp(at)), text);
        }
    }
}
