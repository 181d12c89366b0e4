//! A controller that comes back with an empty disk, just when that is worst: what it acknowledged is otherwise on one
//! controller alone, which is cut off, and the third has never seen it. If the two that are left took each other for a
//! majority, acknowledged requests would be lost.

use crate::{network::Place, world::Cast};

/// Milliseconds of calm before it begins.
const CALM_MS: u64 = 2_500;
/// Milliseconds in which something has to be acknowledged that the third controller does not see.
const PATIENCE_MS: u64 = 8_000;
/// Milliseconds for which the two are alone with each other.
const ALONE_MS: u64 = 6_000;
/// Requests to be acknowledged meanwhile.
const REQUESTS: usize = 2;

#[derive(Debug, Default)]
pub(super) enum ReplacedDisk {
    /// Everything is well again.
    #[default]
    Waiting,
    /// Since when it is.
    Calm { since: u64 },
    /// One controller does not see what the others acknowledge.
    Behind {
        leader: Place,
        behind: Place,
        since: u64,
        acknowledged: usize,
    },
    /// The leader is cut off, the other one comes back with nothing.
    Alone {
        returns: Option<(u64, usize)>,
        until: u64,
    },
}

impl ReplacedDisk {
    /// `false` once it is over.
    pub(super) fn step(&mut self, now_ms: u64, cast: &mut Cast<'_>) -> bool {
        let next = match self {
            Self::Waiting => Self::Calm { since: now_ms },
            Self::Calm { since } if now_ms - *since < CALM_MS => return true,
            Self::Calm { .. } => match cast.controllers.iter().find(|one| one.leads()) {
                None => return true,
                Some(leader) => {
                    let (leader, behind) = (leader.place, leader.place % 3 + 1);
                    cast.trace
                        .note(now_ms, &format!("fault {behind} falls behind"));
                    cast.network.cut(around(behind));
                    let acknowledged = cast.acknowledged;
                    let since = now_ms;
                    Self::Behind {
                        leader,
                        behind,
                        since,
                        acknowledged,
                    }
                }
            },
            Self::Behind {
                leader,
                behind,
                since,
                acknowledged,
            } => {
                if cast.acknowledged < *acknowledged + REQUESTS {
                    if now_ms - *since < PATIENCE_MS {
                        return true;
                    }
                    cast.network.calm();
                    *self = Self::Waiting;
                    return true;
                }
                let lost = 6 - *leader - *behind;
                let index = usize::try_from(lost).unwrap() - 1;
                cast.trace.note(
                    now_ms,
                    &format!("fault {lost} loses its disk, {leader} its ways"),
                );
                cast.controllers[index].crash(true);
                cast.controllers[index].wipe();
                cast.network.calm();
                cast.network.cut(around(*leader));
                Self::Alone {
                    returns: Some((now_ms + 300, index)),
                    until: now_ms + ALONE_MS,
                }
            }
            Self::Alone { returns, until } => {
                if let Some((at, index)) = *returns
                    && at <= now_ms
                {
                    cast.controllers[index].start();
                    *returns = None;
                }
                if now_ms < *until {
                    return true;
                }
                cast.network.calm();
                return false;
            }
        };
        *self = next;
        true
    }
}

/// All ways of a controller to the others, both directions.
fn around(place: Place) -> Vec<(Place, Place)> {
    let others = (1..=3).filter(|one| *one != place);
    others
        .flat_map(|one| [(place, one), (one, place)])
        .collect()
}
