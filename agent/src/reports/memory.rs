//! What is remembered of one unit's reports: which ones were taken, the subscribers, and how often plugins were used.
//! Pure, and the same however often the same records are taken.

use std::collections::{BTreeMap, HashSet, VecDeque};

use dotmac_protocol::{digest::Digest, record::reports::Report, time::Timestamp};
use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
pub(super) const DAY_MS: u64 = 24 * 3_600_000;
/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;
/// Minutes for which a report is known again: 7 days.
const MINUTES_KNOWN: u64 = 7 * DAY_MS / MINUTE_MS;
/// Reports that are known again at most; the oldest go first. At 50 a second they are those of 87 minutes.
const KNOWN_MAX: usize = 256 * 1024;
/// Days for which the use of plugins is summed up.
const PLUGIN_DAYS: u64 = 400;
/// Sums by plugin, metric and day at most; when there are so many, the oldest day's go first, never the present one's.
const SUMS_MAX: usize = 8 * 1024;

/// Plugin, metric and day since 1970 (UTC) by the instance's clock.
type PluginDay = (String, String, u64);

/// What is remembered of one unit's reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Memory {
    through: u64,
    known: HashSet<u64>,
    /// The known ones in the order in which they came, with the minute in which that was.
    order: VecDeque<(u64, u64)>,
    highest_active: Option<u64>,
    last: Option<(Timestamp, u64)>,
    sums: BTreeMap<PluginDay, u64>,
}

/// What one record adds, as one line of the unit's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The life of the agent whose chain `through` counts in; on the first line alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<String>,
    /// Sequence of the record.
    pub(super) through: u64,
    /// Minute since 1970 in which the reports were taken.
    #[serde(default)]
    pub(super) minute: u64,
    /// Their identities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) known: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    highest_active: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<(Timestamp, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sums: Vec<(String, String, u64, u64)>,
}

/// What a report is known again by; `None` for what the agent measured itself.
pub(super) fn identity(report: &Report) -> Option<u64> {
    let text = match report {
        Report::Usage(usage) => format!("usage\0{}", usage.reported_at.0),
        Report::Event(event) => format!("event\0{}", event.event_id),
        Report::Claim(claim) => format!("claim\0{}", claim.reported_at.0),
        Report::Plugin(used) => format!(
            "plugin\0{}\0{}\0{}",
            used.plugin_id, used.metric_name, used.timestamp.0
        ),
        Report::Minute(_) => return None,
    };
    let digest = Digest::tagged("dotmac/report/v1", text.as_bytes());
    let first = digest.as_bytes().first_chunk::<8>();
    Some(u64::from_le_bytes(*first.expect("a digest is longer")))
}

impl Memory {
    /// Sequence of the last record that was taken.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// Counts records from anew: those on disk are taken again, and what is known stays known.
    pub(super) fn restart(&mut self) {
        self.through = 0;
    }

    /// The subscribers of the newest count.
    pub(super) fn active(&self) -> Option<u64> {
        self.last.map(|(_, active)| active)
    }

    /// The most subscribers that were reported while the licence let them grow.
    pub(super) fn highest_active(&self) -> Option<u64> {
        self.highest_active
    }

    /// Whether a report was taken already.
    pub(super) fn knows(&self, report: &Report) -> bool {
        identity(report).is_some_and(|identity| self.knows_identity(identity))
    }

    /// Whether the sums that the reports add can be kept.
    pub(super) fn has_room(&self, reports: &[Report]) -> bool {
        let mut days = self.sums.keys().map(|(_, _, day)| *day);
        let newest = || self.sums.keys().map(|(_, _, day)| *day).max();
        let is_spent = self.sums.len() >= SUMS_MAX
            && newest().is_some_and(|newest| days.all(|day| day == newest));
        let adds_sum = |report: &Report| match report {
            Report::Plugin(used) => !self.sums.contains_key(&plugin_day(used)),
            _ => false,
        };
        !(is_spent && reports.iter().any(adds_sum))
    }

    /// Takes the reports of a record; gives what is to be written down. While `is_frozen` (restricted) the most
    /// subscribers do not rise, unless none were ever reported.
    pub(super) fn take(
        &mut self,
        sequence: u64,
        at: Timestamp,
        is_frozen: bool,
        reports: &[Report],
    ) -> Entry {
        let mut entry = Entry {
            through: sequence,
            minute: at.0 / MINUTE_MS,
            ..Entry::default()
        };
        let mut taken = HashSet::new();
        for report in reports {
            let Some(identity) = identity(report) else {
                continue;
            };
            if self.knows_identity(identity) || !taken.insert(identity) {
                continue;
            }
            entry.known.push(identity);
            match report {
                Report::Usage(usage) => {
                    let highest = entry.highest_active.or(self.highest_active);
                    let rises = !is_frozen && highest < Some(usage.active_subscribers);
                    if highest.is_none() || rises {
                        entry.highest_active = Some(usage.active_subscribers);
                    }
                    let last = entry.last.or(self.last).map(|(last, _)| last);
                    // What was kept back and comes late is history; only a count from a clock that ran ahead gives
                    // way to it.
                    if last.is_none_or(|last| last < usage.reported_at || last > at) {
                        entry.last = Some((usage.reported_at, usage.active_subscribers));
                    }
                }
                Report::Plugin(used) => {
                    let (plugin, metric, day) = plugin_day(used);
                    entry.sums.push((plugin, metric, day, used.usage_count));
                }
                Report::Event(_) | Report::Claim(_) | Report::Minute(_) => {}
            }
        }
        self.merge(entry.clone());
        self.forget_before(entry.minute);
        entry
    }

    /// Takes what was written down.
    pub(super) fn merge(&mut self, entry: Entry) {
        self.through = self.through.max(entry.through);
        for identity in entry.known {
            if self.known.insert(identity) {
                self.order.push_back((entry.minute, identity));
            }
        }
        self.forget_beyond_most();
        self.highest_active = entry.highest_active.or(self.highest_active);
        self.last = entry.last.or(self.last);
        for (plugin, metric, day, count) in entry.sums {
            self.add((plugin, metric, day), count);
        }
    }

    /// All of it, as entries that merge to the same.
    pub(super) fn entries(&self, incarnation: &str) -> Vec<Entry> {
        let sums = self.sums.iter();
        let first = Entry {
            incarnation: Some(incarnation.to_owned()),
            through: self.through,
            highest_active: self.highest_active,
            last: self.last,
            sums: sums
                .map(|((plugin, metric, day), count)| {
                    (plugin.clone(), metric.clone(), *day, *count)
                })
                .collect(),
            ..Entry::default()
        };
        let order: Vec<(u64, u64)> = self.order.iter().copied().collect();
        let minutes = order.chunk_by(|(left, _), (right, _)| left == right);
        let minutes = minutes.map(|run| Entry {
            through: self.through,
            minute: run[0].0,
            known: run.iter().map(|(_, identity)| *identity).collect(),
            ..Entry::default()
        });
        std::iter::once(first).chain(minutes).collect()
    }

    /// How often a plugin was used from one day to another, both included, by metric.
    pub(super) fn sums(&self, plugin: &str, from: u64, to: u64) -> BTreeMap<String, u64> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for ((of, metric, day), count) in &self.sums {
            if of == plugin && (from..=to).contains(day) {
                let sum = sums.entry(metric.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        sums
    }

    fn knows_identity(&self, identity: u64) -> bool {
        self.known.contains(&identity)
    }

    fn add(&mut self, row: PluginDay, count: u64) {
        if self.sums.len() >= SUMS_MAX && !self.sums.contains_key(&row) {
            let oldest = self.sums.keys().map(|(_, _, day)| *day).min();
            self.sums.retain(|(_, _, day), _| Some(*day) != oldest);
        }
        let sum = self.sums.entry(row).or_default();
        *sum = sum.saturating_add(count);
    }

    fn forget_before(&mut self, minute: u64) {
        while let Some((oldest, identity)) = self.order.front()
            && oldest + MINUTES_KNOWN < minute
        {
            self.known.remove(identity);
            self.order.pop_front();
        }
        let today = minute * MINUTE_MS / DAY_MS;
        self.sums
            .retain(|(_, _, day), _| day + PLUGIN_DAYS >= today);
    }

    fn forget_beyond_most(&mut self) {
        while self.order.len() > KNOWN_MAX {
            let oldest = self.order.pop_front();
            oldest.map(|(_, identity)| self.known.remove(&identity));
        }
    }
}

fn plugin_day(used: &dotmac_protocol::record::reports::PluginUsage) -> PluginDay {
    let day = used.timestamp.0 / DAY_MS;
    (used.plugin_id.clone(), used.metric_name.clone(), day)
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        record::reports::{PluginUsage, Report},
        time::Timestamp,
    };

    use super::{DAY_MS, Entry, KNOWN_MAX, Memory, SUMS_MAX};
    use crate::reports::tests::{event, usage};

    fn plugin(metric: &str, day: u64, count: u64) -> Report {
        Report::Plugin(PluginUsage {
            plugin_id: "crm".into(),
            metric_name: metric.into(),
            usage_count: count,
            timestamp: Timestamp(day * DAY_MS),
        })
    }

    #[test]
    fn a_report_is_known_for_seven_days_and_counted_once() {
        let mut memory = Memory::default();
        let day = |number: u64| Timestamp(number * DAY_MS);
        let reports = [event("e-1"), usage(5, 70), plugin("api_calls", 100, 3)];
        memory.take(1, day(100), false, &reports);
        let entry = memory.take(2, day(101), false, &reports);
        assert!(entry.known.is_empty(), "{entry:?}");
        assert_eq!(memory.active(), Some(70));
        assert_eq!(memory.sums("crm", 0, u64::MAX)["api_calls"], 3);
        memory.take(3, day(107), false, &[]);
        assert!(reports.iter().all(|report| memory.knows(report)));
        memory.take(4, day(108), false, &[]);
        assert!(!memory.knows(&reports[0]));
    }

    #[test]
    fn of_very_many_the_newest_are_known() {
        let mut memory = Memory::default();
        let most = u64::try_from(KNOWN_MAX).unwrap();
        memory.take(1, Timestamp(0), false, &[event("first"), event("second")]);
        memory.merge(Entry {
            known: (0..most - 1).collect(),
            ..Entry::default()
        });
        assert!(!memory.knows(&event("first")));
        assert!(memory.knows(&event("second")));
        assert_eq!(
            (memory.known.len(), memory.order.len()),
            (KNOWN_MAX, KNOWN_MAX)
        );
    }

    #[test]
    fn what_is_written_down_merges_to_the_same() {
        let mut memory = Memory::default();
        let mut replayed = Memory::default();
        for number in 0..20 {
            let reports = [
                event(&format!("e-{number}")),
                usage(number, number * 7 % 11),
                plugin("x", number, 1),
            ];
            let entry = memory.take(
                number + 1,
                Timestamp(number * DAY_MS),
                number > 10,
                &reports,
            );
            let text = serde_json::to_string(&entry).unwrap();
            replayed.merge(serde_json::from_str(&text).unwrap());
        }
        let mut again = Memory::default();
        for entry in memory.entries("0123") {
            again.merge(entry);
        }
        assert_eq!(again, memory);
        replayed.forget_before(19 * DAY_MS / super::MINUTE_MS);
        assert_eq!(replayed, memory);
        assert_eq!(memory.highest_active(), Some(10));
    }

    #[test]
    fn restricted_the_most_subscribers_stay_and_a_first_count_still_counts() {
        let mut memory = Memory::default();
        memory.take(1, Timestamp(0), true, &[usage(1, 30), usage(2, 40)]);
        assert_eq!(
            (memory.highest_active(), memory.active()),
            (Some(30), Some(40))
        );
        memory.take(2, Timestamp(0), false, &[usage(3, 50)]);
        memory.take(3, Timestamp(0), true, &[usage(4, 60)]);
        assert_eq!(
            (memory.highest_active(), memory.active()),
            (Some(50), Some(60))
        );
    }

    #[test]
    fn sums_are_bounded_and_the_oldest_day_goes_first() {
        let mut memory = Memory::default();
        let max = u64::try_from(SUMS_MAX).unwrap();
        let many: Vec<Report> = (0..max)
            .map(|number| plugin(&format!("m{number}"), number / 100, 1))
            .collect();
        memory.take(1, Timestamp(0), false, &many);
        assert_eq!(memory.sums.len(), SUMS_MAX);
        memory.take(2, Timestamp(0), false, &[plugin("one more", 50, 1)]);
        assert_eq!(memory.sums.len(), SUMS_MAX - 99);
        let mut spent = Memory::default();
        let today: Vec<Report> = (0..max)
            .map(|number| plugin(&format!("m{number}"), 9, 1))
            .collect();
        spent.take(1, Timestamp(0), false, &today);
        assert!(!spent.has_room(&[plugin("one more", 9, 1)]));
        assert!(spent.has_room(&[usage(1, 1)]));
    }
}
