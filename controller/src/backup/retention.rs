//! Which backups are kept and which go. Pure; the newest whole one always stays.

use std::collections::BTreeSet;

use dotmac_protocol::time::Timestamp;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600_000;
/// Milliseconds for which a backup without a manifest is left alone: it may be under way.
pub const UNFINISHED_KEPT_MS: u64 = DAY_MS;

/// How many backups are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones.
    pub last: u32,
    /// The newest one of each of so many days with a backup.
    pub daily: u32,
    /// The newest one of each of so many weeks (Monday to Sunday, UTC) with a backup.
    pub weekly: u32,
}

impl Retention {
    /// Names of the whole backups that go; `whole` are all of them with their times.
    #[must_use]
    pub fn expired(&self, whole: &[(String, Timestamp)]) -> Vec<String> {
        let mut newest_first: Vec<&(String, Timestamp)> = whole.iter().collect();
        newest_first.sort_by_key(|(name, at)| std::cmp::Reverse((*at, name.clone())));
        let mut kept: BTreeSet<&str> = newest_first
            .iter()
            .take(count(self.last.max(1)))
            .map(|(name, _)| name.as_str())
            .collect();
        let day = |at: Timestamp| at.0 / DAY_MS;
        // 1 January 1970 was a Thursday.
        let week = |at: Timestamp| (day(at) + 3) / 7;
        let periods: [(u32, &dyn Fn(Timestamp) -> u64); 2] =
            [(self.daily, &day), (self.weekly, &week)];
        for (most, period) in periods {
            let mut seen = BTreeSet::new();
            for (name, at) in &newest_first {
                if seen.len() < count(most) && seen.insert(period(*at)) {
                    kept.insert(name);
                }
            }
        }
        let gone = whole
            .iter()
            .filter(|(name, _)| !kept.contains(name.as_str()));
        gone.map(|(name, _)| name.clone()).collect()
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::{DAY_MS, Retention};

    /// Every six hours for 30 days, from a Monday on.
    fn month() -> Vec<(String, Timestamp)> {
        let monday = 4;
        (0..120_u64)
            .map(|one| {
                (
                    format!("{one:03}"),
                    Timestamp(monday * DAY_MS + one * DAY_MS / 4),
                )
            })
            .collect()
    }

    #[test]
    fn the_newest_of_each_period_stays() {
        let retention = Retention {
            last: 3,
            daily: 4,
            weekly: 3,
        };
        let all = month();
        let gone = retention.expired(&all);
        let kept: Vec<&str> = all
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !gone.iter().any(|one| one == name))
            .collect();
        // Sundays end at 83 and 111; the four newest days at 107, 111, 115 and 119.
        assert_eq!(kept, ["083", "107", "111", "115", "117", "118", "119"]);
    }

    #[test]
    fn the_newest_always_stays_and_nothing_goes_twice() {
        let none = Retention {
            last: 0,
            daily: 0,
            weekly: 0,
        };
        let all = month();
        assert_eq!(none.expired(&all).len(), all.len() - 1);
        assert!(none.expired(&all[..1]).is_empty());
        assert!(none.expired(&[]).is_empty());
    }
}
