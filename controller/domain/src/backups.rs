//! Backups as the cluster remembers them: which one is asked for, how far the one under way is, how the last ones ended,
//! and when the next is due. It writes none and knows no target: that is the leader's work outside the State.

use dotmac_protocol::{ids::RequestId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    envelope::{Actor, Envelope},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

/// Milliseconds until a backup that failed is tried again; doubled with every further failure.
pub const RETRY_MIN_MS: u64 = 30_000;
/// Milliseconds until a backup that failed is tried again at most.
pub const RETRY_MAX_MS: u64 = 3_600_000;
/// Failures after which a backup that somebody asked for is given up; the scheduled ones go on.
pub const ASKED_FAILURES_MAX: u32 = 3;
/// Characters of a reason at most; longer ones are cut.
pub const REASON_CHARS_MAX: usize = 500;
/// Milliseconds without news after which a backup under way is taken for lost, with the leader that made it.
pub const SILENT_MAX_MS: u64 = 120_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600_000;

/// What is remembered of backups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backups {
    /// The one that somebody asked for and that has not ended.
    pub asked: Option<Asked>,
    /// The one under way.
    pub running: Option<Running>,
    /// The newest that is whole.
    pub good: Option<Made>,
    /// The newest failure behind the newest good one.
    pub failed: Option<Failed>,
    /// The one that was asked for last and has ended, and whether well.
    pub answered: Option<(RequestId, bool)>,
}

/// A backup that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The request; its name.
    pub request: RequestId,
    /// When.
    pub at: Timestamp,
    /// Whose request it is.
    pub actor: Actor,
}

/// A backup under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its name at the target.
    pub name: String,
    /// Since when.
    pub since: Timestamp,
    /// When it was heard of last.
    pub heard: Timestamp,
    /// Bytes written.
    pub bytes: u64,
}

/// A backup that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its name at the target.
    pub name: String,
    /// When it was finished.
    pub at: Timestamp,
    /// Index of the last entry in it.
    pub index: u64,
    /// Bytes of all its parts.
    pub bytes: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// A backup that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// How many failed in a row.
    pub in_a_row: u32,
}

/// What the leader tells of the backup it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupNews {
    /// It begins, or has come so far.
    Wrote {
        /// Bytes so far.
        bytes: u64,
    },
    /// It is whole.
    Made {
        /// Index of the last entry in it.
        index: u64,
        /// Bytes of all its parts.
        bytes: u64,
    },
    /// It failed, and why.
    Failed {
        /// For people.
        reason: String,
    },
}

/// When backups are made without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// So many milliseconds after the last good one.
    Every(u64),
    /// At these times of every day, in milliseconds since midnight, UTC; in order, not empty.
    Daily(Vec<u64>),
}

impl Schedule {
    /// The first moment after `last` at which one is due.
    #[must_use]
    pub fn after(&self, last: Timestamp) -> Timestamp {
        match self {
            Self::Every(every_ms) => last.plus_millis(*every_ms),
            Self::Daily(times) => {
                let midnight = last.0 - last.0 % DAY_MS;
                let moments = times.iter().chain(times.first());
                let days = (0..times.len()).map(|_| 0).chain([DAY_MS]);
                let mut moments = moments.zip(days).map(|(time, day)| midnight + day + time);
                Timestamp(moments.find(|at| *at > last.0).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Whether a text is a backup's name: the time in UTC and six hexadecimal digits, so that names sort by time.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let shape = b"dddddddTddddddZ-xxxxxx";
    let shape = [b"d".as_slice(), shape].concat();
    text.len() == shape.len()
        && text.bytes().zip(shape).all(|(one, kind)| match kind {
            b'd' => one.is_ascii_digit(),
            b'x' => one.is_ascii_digit() || (b'a'..=b'f').contains(&one),
            other => one == other,
        })
}

impl Backups {
    /// When the next one is to begin; never without a schedule and without somebody who asks.
    #[must_use]
    pub fn due(&self, schedule: Option<&Schedule>) -> Option<Timestamp> {
        if let Some(running) = &self.running {
            // Whoever made it is gone.
            return Some(running.heard.plus_millis(SILENT_MAX_MS));
        }
        let asked = self.asked.as_ref().map(|asked| asked.at);
        let last = self.good.as_ref().map_or(Timestamp(0), |good| good.at);
        let scheduled = schedule.map(|schedule| match self.good {
            Some(_) => schedule.after(last),
            None => Timestamp(0),
        });
        let due = asked.into_iter().chain(scheduled).min()?;
        let again = self.failed.as_ref().map(Failed::again_at);
        Some(due.max(again.unwrap_or_default()))
    }
}

impl Failed {
    /// When the next attempt may begin.
    #[must_use]
    pub fn again_at(&self) -> Timestamp {
        let doublings = self.in_a_row.saturating_sub(1).min(16);
        self.at
            .plus_millis((RETRY_MIN_MS << doublings).min(RETRY_MAX_MS))
    }
}

impl State {
    pub(crate) fn request_backup(&mut self, envelope: &Envelope, now: Timestamp) -> Reply {
        self.require(&envelope.actor, Permission::BackupCreate, None)?;
        if let Some(asked) = &self.backups.asked {
            let detail = format!("backup request {} has not ended yet", asked.request);
            return Err(Rejection::new(Code::WrongState, detail));
        }
        self.backups.asked = Some(Asked {
            request: envelope.request.clone(),
            at: now,
            actor: envelope.actor.clone(),
        });
        // Whoever asks has mended the target: it is tried at once.
        if let Some(failed) = &mut self.backups.failed {
            failed.at = Timestamp(failed.at.0.min(now.0.saturating_sub(RETRY_MAX_MS)));
        }
        Ok(Accepted::Done)
    }

    pub(crate) fn note_backup(
        &mut self,
        envelope: &Envelope,
        name: &str,
        news: &BackupNews,
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        if !is_name(name) {
            return Err(Rejection::field("name", name, "YYYYMMDDTHHMMSSZ-xxxxxx"));
        }
        let since = self.backups.running.as_ref().filter(|one| one.name == name);
        let since = since.map_or(now, |running| running.since);
        match news {
            BackupNews::Wrote { bytes } => {
                self.backups.running = Some(Running {
                    name: name.to_owned(),
                    since,
                    heard: now,
                    bytes: *bytes,
                });
            }
            BackupNews::Made { index, bytes } => {
                self.end_backup(name, true);
                self.backups.failed = None;
                self.backups.good = Some(Made {
                    name: name.to_owned(),
                    at: now,
                    index: *index,
                    bytes: *bytes,
                    took_ms: now.millis_since(since),
                });
            }
            BackupNews::Failed { reason } => {
                let before = self.backups.failed.as_ref().map_or(0, |one| one.in_a_row);
                let in_a_row = before.saturating_add(1);
                self.backups.failed = Some(Failed {
                    at: now,
                    reason: reason.chars().take(REASON_CHARS_MAX).collect(),
                    in_a_row,
                });
                let is_over = in_a_row >= ASKED_FAILURES_MAX;
                self.backups.running = self.backups.running.take().filter(|one| one.name != name);
                if is_over {
                    self.end_backup(name, false);
                }
            }
        }
        Ok(Accepted::Done)
    }

    fn end_backup(&mut self, name: &str, is_good: bool) {
        let running = self.backups.running.take();
        self.backups.running = running.filter(|one| one.name != name);
        if let Some(asked) = self.backups.asked.take() {
            self.backups.answered = Some((asked.request, is_good));
        }
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::{Backups, Failed, Made, Running, SILENT_MAX_MS, Schedule, is_name};

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn names_sort_by_time_and_nothing_else_is_one() {
        assert!(is_name("20261123T165400Z-00a1f9"));
        for wrong in [
            "",
            "20261123T165400Z-00A1F9",
            "20261123T165400Z-00a1f",
            "../../etc",
            "2026",
        ] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn daily_times_come_round_the_clock() {
        let daily = Schedule::Daily(vec![2 * HOUR_MS, 14 * HOUR_MS]);
        let midnight = 20_000 * 24 * HOUR_MS;
        let after = |hour: u64| daily.after(Timestamp(midnight + hour * HOUR_MS)).0 - midnight;
        assert_eq!(
            [0, 2, 13, 14, 23].map(after),
            [2, 14, 14, 26, 26].map(|hour| hour * HOUR_MS)
        );
        assert_eq!(Schedule::Every(5).after(Timestamp(7)), Timestamp(12));
    }

    #[test]
    fn a_failed_one_is_tried_again_later_and_later_and_a_lost_one_is_replaced() {
        let schedule = Schedule::Every(HOUR_MS);
        let mut backups = Backups::default();
        assert_eq!(backups.due(None), None);
        assert_eq!(backups.due(Some(&schedule)), Some(Timestamp(0)));
        let waits = [1, 2, 3, 8, 40].map(|in_a_row| {
            let at = Timestamp(1_000);
            let reason = String::new();
            backups.failed = Some(Failed {
                at,
                reason,
                in_a_row,
            });
            backups.due(Some(&schedule)).unwrap().0 - 1_000
        });
        assert_eq!(waits, [30_000, 60_000, 120_000, HOUR_MS, HOUR_MS]);
        backups.failed = None;
        backups.good = Some(Made {
            name: String::new(),
            at: Timestamp(5),
            index: 1,
            bytes: 1,
            took_ms: 1,
        });
        assert_eq!(backups.due(Some(&schedule)), Some(Timestamp(5 + HOUR_MS)));
        backups.running = Some(Running {
            name: String::new(),
            since: Timestamp(6),
            heard: Timestamp(9),
            bytes: 0,
        });
        assert_eq!(
            backups.due(Some(&schedule)),
            Some(Timestamp(9 + SILENT_MAX_MS))
        );
    }
}
