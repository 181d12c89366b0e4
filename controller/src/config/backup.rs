//! The section `[backup]`: where backups go, who can open them, when they are made and which are kept.

use std::path::PathBuf;

use dotmac_domain::backups::Schedule;
use serde::Deserialize;

use crate::backup::{recipient::RECIPIENTS_MAX, recipient::Recipient, retention::Retention};

/// Minutes between two scheduled backups at most: 31 days.
const EVERY_MINUTES_MAX: u32 = 31 * 24 * 60;
/// Times of the day at most.
const TIMES_MAX: usize = 24;

/// The section; without `target` no backup is made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// `file:///DIRECTORY` or `s3://BUCKET/PREFIX`.
    pub target: Option<String>,
    /// Address of an S3-compatible store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Region of the store.
    pub region: Option<String>,
    /// File with the access key.
    pub access_key_id_file: Option<PathBuf>,
    /// File with its secret.
    pub secret_access_key_file: Option<PathBuf>,
    /// Public keys of those who can open backups.
    pub recipients: Vec<String>,
    /// Minutes after a backup until the next one.
    pub every_minutes: Option<u32>,
    /// Times of the day, UTC.
    pub daily_at: Vec<String>,
    /// The newest ones that are kept.
    pub keep_last: u32,
    /// Days of which the newest one is kept.
    pub keep_daily: u32,
    /// Weeks of which the newest one is kept.
    pub keep_weekly: u32,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            target: None,
            endpoint: None,
            region: None,
            access_key_id_file: None,
            secret_access_key_file: None,
            recipients: Vec::new(),
            every_minutes: None,
            daily_at: Vec::new(),
            keep_last: 7,
            keep_daily: 14,
            keep_weekly: 8,
        }
    }
}

/// A key, its value, and what is allowed.
type Wrong = (&'static str, String, &'static str);

impl Backup {
    /// When backups are made; `None` when only on request.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        if let Some(minutes) = self.every_minutes {
            return Some(Schedule::Every(u64::from(minutes) * 60_000));
        }
        let mut times: Vec<u64> = self.daily_at.iter().filter_map(|text| time(text)).collect();
        times.sort_unstable();
        times.dedup();
        (!times.is_empty()).then_some(Schedule::Daily(times))
    }

    /// What is kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            last: self.keep_last,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
        }
    }

    /// The first key with a value that is not allowed.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        let is_address = |target: &str| {
            target.strip_prefix("file:///").is_some()
                || target
                    .strip_prefix("s3://")
                    .is_some_and(|rest| !rest.is_empty())
        };
        if let Some(target) = self.target.as_ref().filter(|target| !is_address(target)) {
            return Some((
                "backup.target",
                target.clone(),
                "file:///DIRECTORY or s3://BUCKET/PREFIX",
            ));
        }
        if let Some(wrong) = self
            .recipients
            .iter()
            .find(|text| text.parse::<Recipient>().is_err())
        {
            let allowed =
                "dotmac-recipient-1. and 43 characters, as `dotmac backup keygen` prints it";
            return Some(("backup.recipients", wrong.clone(), allowed));
        }
        let count = self.recipients.len();
        if count > RECIPIENTS_MAX || (count == 0 && self.target.is_some()) {
            let allowed = "1 to 16: a backup that nobody can open, or everybody, is none";
            return Some(("backup.recipients", count.to_string(), allowed));
        }
        if let Some(minutes) = self
            .every_minutes
            .filter(|one| !(1..=EVERY_MINUTES_MAX).contains(one))
        {
            return Some(("backup.every_minutes", minutes.to_string(), "1 to 44640"));
        }
        if let Some(wrong) = self.daily_at.iter().find(|text| time(text).is_none()) {
            return Some((
                "backup.daily_at",
                wrong.clone(),
                "times such as \"02:30\", UTC",
            ));
        }
        if self.daily_at.len() > TIMES_MAX
            || (self.every_minutes.is_some() && !self.daily_at.is_empty())
        {
            let allowed = "at most 24 times, and none beside backup.every_minutes";
            return Some(("backup.daily_at", self.daily_at.join(", "), allowed));
        }
        let is_endpoint = |one: &str| one.starts_with("https://") || one.starts_with("http://");
        if let Some(endpoint) = self.endpoint.as_ref().filter(|one| !is_endpoint(one)) {
            return Some((
                "backup.endpoint",
                endpoint.clone(),
                "an address that begins with https:// or http://",
            ));
        }
        if self.access_key_id_file.is_some() != self.secret_access_key_file.is_some() {
            let allowed =
                "both backup.access_key_id_file and backup.secret_access_key_file, or neither";
            return Some((
                "backup.access_key_id_file",
                "one of two".to_owned(),
                allowed,
            ));
        }
        (self.keep_last == 0).then(|| {
            (
                "backup.keep_last",
                "0".to_owned(),
                "1 or above: the newest backup is never removed",
            )
        })
    }
}

/// Milliseconds since midnight of `HH:MM`.
fn time(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let is_short = |part: &str| part.len() == 2 && part.bytes().all(|one| one.is_ascii_digit());
    let (hour, minute): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (is_short(hours) && is_short(minutes) && hour < 24 && minute < 60)
        .then_some((hour * 60 + minute) * 60_000)
}

#[cfg(test)]
mod tests {
    use dotmac_domain::backups::Schedule;

    use super::Backup;

    fn read(text: &str) -> Backup {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn times_of_the_day_are_sorted_and_wrong_values_are_named() {
        let daily = read("daily_at = [\"14:30\", \"02:00\"]");
        let hour = 3_600_000;
        assert_eq!(
            daily.schedule(),
            Some(Schedule::Daily(vec![2 * hour, 14 * hour + hour / 2]))
        );
        assert_eq!(read("").schedule(), None);
        for (text, key) in [
            ("target = \"ftp://x\"", "backup.target"),
            ("target = \"file:///x\"", "backup.recipients"),
            ("recipients = [\"x\"]", "backup.recipients"),
            ("every_minutes = 0", "backup.every_minutes"),
            ("daily_at = [\"24:00\"]", "backup.daily_at"),
            (
                "every_minutes = 5\ndaily_at = [\"01:00\"]",
                "backup.daily_at",
            ),
            ("endpoint = \"minio:9000\"", "backup.endpoint"),
            ("access_key_id_file = \"x\"", "backup.access_key_id_file"),
            ("keep_last = 0", "backup.keep_last"),
        ] {
            assert_eq!(read(text).wrong().unwrap().0, key, "{text}");
        }
    }
}
