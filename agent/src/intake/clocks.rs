//! How signed clocks come in: believed, written down, then let orders pass. What they show of this agent is recorded.

use dotmac_protocol::{
    clock::{ClockError, SignedClock, VerifiedClock},
    digest::Digest,
    time::Timestamp,
};
use dotmac_runtime::causes;
use tokio::sync::watch;

use super::{Inner, Intake};
use crate::{
    signed_clock::{Finding, HearError, Heard, Sight},
    traces::SessionMark,
};

/// What became of a signed clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockVerdict {
    /// It is the newest this agent saw.
    Newest,
    /// It lies before the newest: ignored.
    Older,
    /// It is not to be believed.
    Unbelieved,
    /// It is signed for a newer trust root than this agent holds: a new session brings that.
    TrustBehind,
    /// It cannot be kept now, and does not count.
    NotNow,
}

impl Intake {
    /// A session begins: until it brings a signed clock, no new work is taken.
    pub fn begin_session(&self) {
        self.session_clock.send_replace(None);
        self.session.send_replace(None);
    }

    /// A controller welcomed this agent: what comes now comes in this session.
    pub fn welcomed(&self, session: SessionMark) {
        self.session.send_replace(Some(session));
    }

    /// The newest signed clock, once the present session brought one.
    #[must_use]
    pub fn session_clock(&self) -> watch::Receiver<Option<Timestamp>> {
        self.session_clock.subscribe()
    }

    /// Takes a signed clock in. Waits for the disk.
    pub fn hear(&self, clock: &SignedClock) -> ClockVerdict {
        let mut inner = self.lock();
        let trust = inner.trust.current();
        match inner.clocks.hear(clock, &trust) {
            Ok(Heard::Newer(verified)) => {
                self.judge(&mut inner, &verified);
                self.license_time.hear(verified.statement().at);
                self.session_clock.send_replace(inner.clocks.at());
                ClockVerdict::Newest
            }
            Ok(Heard::Known) => {
                self.session_clock.send_replace(inner.clocks.at());
                ClockVerdict::Newest
            }
            Ok(Heard::Older) => {
                tracing::warn!("a signed clock lies before the newest one: ignored");
                ClockVerdict::Older
            }
            Err(HearError::Unverified(ClockError::TrustVersion { held, found }))
                if found > held =>
            {
                ClockVerdict::TrustBehind
            }
            Err(HearError::Unverified(error)) => {
                if inner.is_first(Digest::of(&clock.body)) {
                    self.audit("clock.unbelieved", &causes::in_full(&error));
                }
                ClockVerdict::Unbelieved
            }
            Err(error @ HearError::Disk { .. }) => {
                tracing::error!(
                    error = causes::in_full(&error),
                    "a signed clock does not count"
                );
                ClockVerdict::NotNow
            }
        }
    }

    fn judge(&self, inner: &mut Inner, clock: &VerifiedClock) {
        let statement = clock.statement();
        let sight = Sight {
            number: statement.number,
            signed: statement.at,
            own: self.clock.now(),
            is_first: self.session_clock.borrow().is_none(),
            desired: clock.desired(),
            kept: inner.journal.kept(),
        };
        for Finding { action, detail } in inner.doubts.judge(&sight) {
            self.audit(action, &detail);
        }
    }
}
