//! Whether a verified intent may be taken, given what the agent already holds. Pure: the same for every driver.

use thiserror::Error;

use crate::{
    ids::{Generation, Sequence, TenantId},
    time::Timestamp,
    wave::{Leaf, Verb},
};

/// What an agent's journal holds of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose unit it is.
    pub tenant: TenantId,
    /// Generation last accepted.
    pub generation: Generation,
    /// Sequence last accepted.
    pub sequence: Sequence,
    /// Whether what was accepted last is its removal.
    pub removed: bool,
}

/// Why an agent does not take an intent; the text goes into its receipt.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The sequence is not above the one held: a duplicate or a replay.
    #[error("sequence {found} is not newer than {held}")]
    Sequence { held: Sequence, found: Sequence },
    /// The generation is below the one held.
    #[error("generation {found} is older than {held}")]
    Generation { held: Generation, found: Generation },
    /// The controllers believe that the agent acknowledged something that it does not hold.
    #[error(
        "the order builds on sequence {previous}, held is {held}: this agent's journal is older than the controllers know"
    )]
    JournalBehind { held: Sequence, previous: Sequence },
    /// The unit belongs to another tenant.
    #[error("the unit belongs to another tenant")]
    Tenant,
    /// The agent does not serve this tenant.
    #[error("this agent does not serve tenant {0}")]
    TenantNotServed(TenantId),
    /// A removed unit comes back only under a newer generation.
    #[error("the unit was removed at generation {held}")]
    Removed { held: Generation },
    /// The window has not begun or is over, by the agent's clock.
    #[error("outside its window: {now} is not in {not_before} to {not_after}")]
    Window {
        now: Timestamp,
        not_before: Timestamp,
        not_after: Timestamp,
    },
    /// Nothing proves what time it is: this session brought no signed clock.
    #[error("no signed clock came in this session: no new work is taken before one does")]
    NoClock,
    /// The newest signed clock is too old by the agent's own clock: controllers may be hidden from it.
    #[error(
        "the newest signed clock is {} s old by this agent's own, more than {} s: no new work is taken",
        now.millis_since(*signed) / 1_000,
        CLOCK_STALE_MS / 1_000
    )]
    StaleClock { signed: Timestamp, now: Timestamp },
}

/// Milliseconds by which the newest signed clock may be older than the agent's own before no new work is taken (law 3).
/// Ten times as long as controllers take between two: a few that are lost stop nothing. Instances keep running anyway.
pub const CLOCK_STALE_MS: u64 = 600_000;

/// Decides whether to take an intent. `now` is the later of the agent's clock and the highest signed time it saw.
pub fn accept(held: Option<&Held>, leaf: &Leaf, now: Timestamp) -> Result<(), Refusal> {
    let held_sequence = held.map_or(Sequence(0), |held| held.sequence);
    if leaf.sequence <= held_sequence {
        return Err(Refusal::Sequence {
            held: held_sequence,
            found: leaf.sequence,
        });
    }
    if leaf.previous > held_sequence {
        let (held, previous) = (held_sequence, leaf.previous);
        return Err(Refusal::JournalBehind { held, previous });
    }
    if let Some(held) = held {
        if held.tenant != leaf.tenant {
            return Err(Refusal::Tenant);
        }
        if leaf.generation < held.generation {
            let (held, found) = (held.generation, leaf.generation);
            return Err(Refusal::Generation { held, found });
        }
        let same = leaf.generation == held.generation;
        if held.removed && same && leaf.verb == Verb::Apply {
            return Err(Refusal::Removed {
                held: held.generation,
            });
        }
    }
    if !leaf.window.contains(now) {
        return Err(Refusal::Window {
            now,
            not_before: leaf.window.not_before,
            not_after: leaf.window.not_after,
        });
    }
    Ok(())
}

/// Whether new work may be taken at all. `signed` is the newest signed clock, once the session brought one; `own` is
/// the agent's clock. What runs keeps running, whatever this says.
pub fn check_clock(signed: Option<Timestamp>, own: Timestamp) -> Result<(), Refusal> {
    match signed {
        None => Err(Refusal::NoClock),
        Some(signed) if own.millis_since(signed) > CLOCK_STALE_MS => {
            Err(Refusal::StaleClock { signed, now: own })
        }
        Some(_) => Ok(()),
    }
}
