//! Where a caller's licence stands right now, and the words for it that every answer repeats. No passing date refuses
//! anything: only an operator's order does.

use dotmac_protocol::{
    license::{License, Phase},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{Api, access::Caller};

/// A licence at a moment.
pub(super) struct Standing<'a> {
    license: &'a License,
    pub(super) phase: Phase,
    /// Subscribers at most: restricted, no more than there were.
    pub(super) max_subscribers: u64,
}

impl Api {
    /// Where the caller's licence stands.
    pub(super) fn standing<'a>(&self, caller: &'a Caller) -> Standing<'a> {
        let license = &caller.instance.license;
        let phase = license.phase(self.sources.license_time.now());
        let reached = self.sources.reports.highest_active(&caller.wanted.unit);
        let max_subscribers = license.subscribers(phase, reached);
        Standing {
            license,
            phase,
            max_subscribers,
        }
    }
}

impl Standing<'_> {
    /// What every answer says; empty while there is nothing to say.
    pub(super) fn notice(&self) -> String {
        let ended = self.ended().unwrap_or_default();
        match self.phase {
            Phase::Valid => String::new(),
            Phase::Grace => format!(
                "the license ended at {ended}; it should be renewed before it is restricted at {}",
                self.grace_ended().unwrap_or_default()
            ),
            Phase::Restricted => format!(
                "the license ended at {ended} and is restricted: only the free tier's features, and no more than {} \
                 subscribers, until it is renewed",
                self.max_subscribers
            ),
            Phase::Suspended => "the license is suspended".to_owned(),
            Phase::Revoked => "the license was revoked".to_owned(),
        }
    }

    /// The notice, or something else when there is none.
    pub(super) fn notice_or(&self, otherwise: &str) -> String {
        match self.notice() {
            notice if notice.is_empty() => otherwise.to_owned(),
            notice => notice,
        }
    }

    /// False for suspended and revoked alone.
    pub(super) fn is_valid(&self) -> bool {
        self.phase.may_run()
    }

    /// What the configuration says of it.
    pub(super) fn summary(&self) -> Value {
        json!({
            "status": self.phase,
            "tier": self.license.tier,
            "expires_at": self.ended(),
            "message": self.notice(),
        })
    }

    /// When time alone brought it where it is; `None` where it did not.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let end = self.license.expires_at?;
        match self.phase {
            Phase::Grace => Some(end),
            Phase::Restricted => Some(end.plus_millis(self.license.grace_ms)),
            Phase::Valid | Phase::Suspended | Phase::Revoked => None,
        }
    }

    fn ended(&self) -> Option<String> {
        self.license.expires_at.and_then(time_text)
    }

    fn grace_ended(&self) -> Option<String> {
        let end = self.license.expires_at?;
        time_text(end.plus_millis(self.license.grace_ms))
    }
}

/// What an answer has to say, and the notice behind it.
pub(super) fn joined(said: &str, notice: &str) -> String {
    let parts = [said, notice].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

/// RFC 3339, UTC; `None` past the year 9999.
pub(super) fn time_text(time: Timestamp) -> Option<String> {
    let millis = i64::try_from(time.0).ok()?;
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(time.to_string())
}
