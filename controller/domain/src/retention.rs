//! How long facts are kept, and what of each chain was dropped: whole periods from its front, never a link of a period
//! that is not over for as long as the least time that its kind is kept. What is left still proves itself, from the digest
//! of the last dropped link, which the State keeps. Usage is kept for ever: bills rest on it.
//!
//! A chain is marked where a period begins, so that apply alone, without the ledger, knows what is old enough. Under rules 1
//! nothing is marked, and so nothing dropped: that State has no place for it.

use dotmac_protocol::{record::ChainHead, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    audit::Stream,
    command::Command,
    envelope::Envelope,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

/// The rules under which facts are marked and dropped.
const RULES: u16 = 2;
const DAY_MS: u64 = 24 * 3_600_000;
/// Milliseconds between two marks of a chain: what is dropped is up to so much older than it had to be.
pub const PERIOD_MS: u64 = 30 * DAY_MS;
/// Marks of one chain at most, over ten years; beyond that a later period is dropped together with the one before it.
pub const MARKS_MAX: usize = 128;
/// Chains that one command drops links of at most.
pub const DROPS_MAX: usize = 64;
/// Days that audit links are kept at least, whoever asks.
pub const AUDIT_DAYS_MIN: u64 = 90;
/// Days that minutes of probes are kept at least, whoever asks.
pub const MINUTES_DAYS_MIN: u64 = 30;
/// Days that anything can be asked to be kept.
pub const DAYS_MAX: u64 = 3_650;

/// For how long a leader keeps facts before it asks to drop them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Days of audit and instances' events.
    pub audit_days: u64,
    /// Days of probes' minutes.
    pub minutes_days: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            audit_days: 400,
            minutes_days: 400,
        }
    }
}

/// What is known of the old links of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// The last link that was dropped; the beginning of the chain if none was.
    pub dropped: ChainHead,
    /// Where the chain ended when a period began, oldest first.
    pub marks: Vec<Mark>,
}

/// The end of a chain when a period began: every link up to it is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When the first link behind it was written.
    pub at: Timestamp,
    /// The last link before it.
    pub head: ChainHead,
}

impl Kept {
    fn days_of(self, stream: &Stream) -> Option<u64> {
        let least = least_days(stream)?;
        let days = match stream {
            Stream::Minutes(_) => self.minutes_days,
            _ => self.audit_days,
        };
        Some(days.max(least))
    }
}

/// Days that links of a chain are kept at least; `None` for ever.
fn least_days(stream: &Stream) -> Option<u64> {
    match stream {
        Stream::Platform | Stream::Tenant(_) | Stream::Agent(..) | Stream::Events(_) => {
            Some(AUDIT_DAYS_MIN)
        }
        Stream::Minutes(_) => Some(MINUTES_DAYS_MIN),
        Stream::Usage(_) => None,
    }
}

/// Up to which link a chain is older than so many days.
fn older_than(retained: &Retained, days: u64, now: Timestamp) -> Option<&Mark> {
    let is_old = |mark: &&Mark| now.millis_since(mark.at) >= days.saturating_mul(DAY_MS);
    retained.marks.iter().take_while(is_old).last()
}

/// What may be dropped now, at most [`DROPS_MAX`] chains at a time; `None` when nothing is due, as always under rules 1.
#[must_use]
pub fn due(state: &State, kept: Kept, now: Timestamp) -> Option<Command> {
    if state.rules < RULES {
        return None;
    }
    let now = now.max(state.now);
    let drops = state.retained.iter().filter_map(|(stream, retained)| {
        let mark = older_than(retained, kept.days_of(stream)?, now)?;
        let has_some = mark.head.sequence > retained.dropped.sequence;
        has_some.then(|| (stream.clone(), mark.head.sequence))
    });
    let drops: Vec<_> = drops.take(DROPS_MAX).collect();
    (!drops.is_empty()).then_some(Command::DropFacts { drops })
}

impl State {
    /// The last link of a chain that was dropped; what is kept begins behind it.
    #[must_use]
    pub fn dropped(&self, stream: &Stream) -> ChainHead {
        let retained = self.retained.get(stream);
        retained.map_or(ChainHead::START, |retained| retained.dropped)
    }

    /// Marks the end of a chain before the first link of a period is appended.
    pub(crate) fn mark_period(&mut self, stream: &Stream, head: ChainHead) {
        if self.rules < RULES || least_days(stream).is_none() {
            return;
        }
        let at = self.now;
        let first = || Retained {
            dropped: ChainHead::START,
            marks: Vec::new(),
        };
        let known = self.retained.get(stream);
        let last = known.and_then(|known| known.marks.last());
        let is_same = last.is_some_and(|mark| mark.at.0 / PERIOD_MS == at.0 / PERIOD_MS);
        if is_same || known.is_some_and(|known| known.marks.len() >= MARKS_MAX) {
            return;
        }
        let mut retained = known.cloned().unwrap_or_else(first);
        retained.marks.push(Mark { at, head });
        self.retained.insert_mut(stream.clone(), retained);
    }

    pub(crate) fn drop_facts(
        &mut self,
        envelope: &Envelope,
        drops: &[(Stream, u64)],
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        if drops.len() > DROPS_MAX {
            let allowed = format!("at most {DROPS_MAX}");
            return Err(Rejection::field("drops", drops.len(), allowed));
        }
        for (stream, through) in drops {
            let refused = |why: &str| {
                let detail = format!("link {through} of stream {stream} is kept: {why}");
                Err(Rejection::new(Code::WrongState, detail))
            };
            let Some(days) = least_days(stream) else {
                return refused("what was used is kept for ever");
            };
            let Some(retained) = self.retained.get(stream) else {
                return refused("the stream is not known");
            };
            let Some(oldest) = older_than(retained, days, now) else {
                return refused("nothing of it is old enough");
            };
            let mark = retained
                .marks
                .iter()
                .find(|mark| mark.head.sequence == *through);
            let Some(mark) = mark.filter(|mark| mark.at <= oldest.at).copied() else {
                return refused("it is not the last of a period that is old enough");
            };
            let retained = Retained {
                dropped: mark.head,
                marks: retained
                    .marks
                    .iter()
                    .filter(|one| one.at > mark.at)
                    .copied()
                    .collect(),
            };
            self.retained.insert_mut(stream.clone(), retained);
        }
        Ok(Accepted::Done)
    }
}
