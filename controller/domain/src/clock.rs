//! The clock of the cluster as it is sealed and signed: what time it is, and what every agent has to keep. Apply seals
//! it from the State alone; [`check`] says whether this controller may put its name under it (law 3).

use dotmac_protocol::{
    clock::{ClockStatement, DesiredLeaf, desired_digest},
    codec,
    digest::Digest,
    ids::AgentId,
    time::Timestamp,
    wave::{Verb, merkle_root},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    envelope::Envelope,
    reply::{Accepted, Code, Rejection, Reply},
    signer::CLOCK_TOLERANCE_MS,
    state::{Map, State},
};

/// Milliseconds between two clocks: one minute.
pub const CLOCK_EVERY_MS: u64 = 60_000;
/// Milliseconds between two clocks at least, when agents joined or the trust root changed since the last one.
pub const CLOCK_SOONEST_MS: u64 = 1_000;
/// Milliseconds for which a clock may still be signed: until the next one is overdue, so that controllers that come
/// back together can go on with the last one.
pub const CLOCK_SIGNED_WITHIN_MS: u64 = CLOCK_EVERY_MS + CLOCK_TOLERANCE_MS;

/// The newest sealed clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedClock {
    /// Counts up with every clock of the cluster.
    pub number: u64,
    /// When it was sealed, by the State's clock.
    pub at: Timestamp,
    /// Encoded [`ClockStatement`]: what controllers sign.
    pub body: Vec<u8>,
    /// What every agent has to keep: the leaves, in the tree's order.
    pub desired: Map<AgentId, Digest>,
}

/// Why a controller does not sign a clock.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ClockRefusal {
    /// It is not the one in this controller's State.
    #[error("clock {0} is not the one in this controller's state")]
    Unknown(u64),
    /// It does not parse, its root is not that of its leaves, or it is not for the trust root in force.
    #[error("clock {0} contradicts itself or the trust root")]
    Contradiction(u64),
    /// This controller signed a later one.
    #[error("clock {found} comes after clock {signed} was signed here")]
    Number { signed: u64, found: u64 },
    /// The time is off.
    #[error("clock {number} says {at}, this controller's own {now}")]
    Time {
        number: u64,
        at: Timestamp,
        now: Timestamp,
    },
}

impl SealedClock {
    /// The statement, if it parses.
    #[must_use]
    pub fn statement(&self) -> Option<ClockStatement> {
        codec::decode(&self.body).ok()
    }

    /// Encoded leaves, in the tree's order.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<u8>> {
        leaves(&self.desired)
    }
}

impl State {
    /// When the next clock has to be sealed; never while there is no agent to tell.
    #[must_use]
    pub fn clock_due(&self) -> Option<Timestamp> {
        let trust = self.trust.as_ref().filter(|_| !self.agents.is_empty())?;
        let Some(clock) = &self.clock else {
            return Some(Timestamp(0));
        };
        let is_for_all = clock.desired.keys().eq(self.agents.keys());
        let is_for_trust = clock.statement().is_some_and(|statement| {
            (statement.trust_version, statement.epoch) == (trust.version, trust.epoch)
        });
        let pause_ms = if is_for_all && is_for_trust {
            CLOCK_EVERY_MS
        } else {
            CLOCK_SOONEST_MS
        };
        Some(clock.at.plus_millis(pause_ms))
    }

    /// Seals the next clock. Nothing happens before it is due, so that two leaders seal no more than one.
    pub(crate) fn seal_clock(&mut self, envelope: &Envelope, now: Timestamp) -> Reply {
        self.require_planner(envelope)?;
        let Some(trust) = &self.trust else {
            let detail = "the cluster is not founded yet";
            return Err(Rejection::new(Code::NotFounded, detail));
        };
        let (trust_version, epoch) = (trust.version, trust.epoch);
        if self.clock_due().is_none_or(|due| now < due) {
            return Ok(Accepted::Done);
        }
        let agents = self.agents.keys();
        let desired: Map<AgentId, Digest> = agents
            .map(|agent| (agent.clone(), self.desired_of(agent)))
            .collect();
        let last = self.clock.as_ref().map(|clock| (clock.number, clock.at));
        let (number, before) = last.unwrap_or((0, now));
        let number = number.saturating_add(1);
        self.note_phases(before, now);
        let statement = ClockStatement {
            number,
            at: now,
            root: merkle_root(&leaves(&desired)),
            leaves: u32::try_from(desired.size()).unwrap_or(u32::MAX),
            epoch,
            trust_version,
        };
        let body = codec::encode(&statement).expect("a clock statement is of bounded size");
        self.clock = Some(SealedClock {
            number,
            at: now,
            body,
            desired,
        });
        Ok(Accepted::Done)
    }

    /// Digest of everything that an agent has to keep, delivered or not.
    fn desired_of(&self, agent: &AgentId) -> Digest {
        let kept = self
            .units_of(agent)
            .filter(|(_, unit)| unit.verb == Verb::Apply);
        desired_digest(kept.map(|(id, unit)| (id, unit.generation, Digest::of(&unit.payload))))
    }
}

/// Checks the clock of this number on this controller's own replica, against its own clock `now` and the number of the
/// last one it signed. The bytes that may be signed come back.
///
/// # Errors
/// When this controller may not sign it.
pub fn check(
    state: &State,
    number: u64,
    signed: u64,
    now: Timestamp,
) -> Result<&[u8], ClockRefusal> {
    let clock = state
        .clock
        .as_ref()
        .filter(|clock| clock.number == number)
        .ok_or(ClockRefusal::Unknown(number))?;
    let wrong = || ClockRefusal::Contradiction(number);
    let statement = clock.statement().ok_or_else(wrong)?;
    let trust = state.trust.as_ref().ok_or_else(wrong)?;
    let fits = statement.number == number
        && statement.at == clock.at
        && usize::try_from(statement.leaves).is_ok_and(|count| count == clock.desired.size())
        && statement.root == merkle_root(&clock.leaves())
        && (statement.trust_version, statement.epoch) == (trust.version, trust.epoch);
    if !fits {
        return Err(wrong());
    }
    if number <= signed {
        let found = number;
        return Err(ClockRefusal::Number { signed, found });
    }
    let at = statement.at;
    let is_ahead = at.millis_since(now) > CLOCK_TOLERANCE_MS;
    if is_ahead || now.millis_since(at) > CLOCK_SIGNED_WITHIN_MS {
        return Err(ClockRefusal::Time { number, at, now });
    }
    Ok(&clock.body)
}

fn leaves(desired: &Map<AgentId, Digest>) -> Vec<Vec<u8>> {
    let leaf = |(agent, desired): (&AgentId, &Digest)| DesiredLeaf {
        agent: agent.clone(),
        desired: *desired,
    };
    desired.iter().map(|entry| leaf(entry).bytes()).collect()
}
