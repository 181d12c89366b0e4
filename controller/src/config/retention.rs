//! How long facts are kept.

use dotmac_domain::retention::{AUDIT_DAYS_MIN, DAYS_MAX, Kept, MINUTES_DAYS_MIN};
use serde::Deserialize;

/// How long facts are kept: what the leader asks by, so give every controller the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days of audit and of instances' events, 90 to 3650.
    pub audit_days: u64,
    /// Days of probes' minutes, 30 to 3650.
    pub minutes_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        let Kept {
            audit_days,
            minutes_days,
        } = Kept::default();
        Self {
            audit_days,
            minutes_days,
        }
    }
}

impl Retention {
    /// As the leader asks by it.
    #[must_use]
    pub fn kept(self) -> Kept {
        Kept {
            audit_days: self.audit_days,
            minutes_days: self.minutes_days,
        }
    }

    /// The first key with a value that is not allowed, its value, and what is.
    pub(super) fn wrong(self) -> Option<(&'static str, String, &'static str)> {
        let keys = [
            (
                "retention.audit_days",
                self.audit_days,
                AUDIT_DAYS_MIN,
                "90 to 3650",
            ),
            (
                "retention.minutes_days",
                self.minutes_days,
                MINUTES_DAYS_MIN,
                "30 to 3650",
            ),
        ];
        let wrong = |(_, days, least, _): &(_, u64, u64, _)| !(*least..=DAYS_MAX).contains(days);
        let found = keys.into_iter().find(wrong)?;
        Some((found.0, found.1.to_string(), found.3))
    }
}
