//! A controller that gave its vote gives none below it any more, also after a power loss. (Raft's votes here are ordered by
//! term and then by candidate: within a term a vote may go to a candidate of a higher number, never of a lower one.)

use std::collections::BTreeMap;

use super::{Invariant, Verdict, View};
use crate::network::Place;

#[derive(Default)]
pub(super) struct VotesNeverGoBack {
    highest: BTreeMap<Place, (u64, u64)>,
}

impl Invariant for VotesNeverGoBack {
    fn name(&self) -> &'static str {
        "votes_never_go_back"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        // One that lost its disk forgot its votes: nobody counts them.
        let counts = |place: Place| {
            let mut controllers = view.controllers.iter();
            !controllers.any(|one| one.place == place && one.is_wiped)
        };
        for (voter, granted) in view.votes.iter().filter(|(voter, _)| counts(*voter)) {
            let now = (granted.term, granted.candidate);
            let before = self.highest.entry(*voter).or_insert(now);
            if now < *before {
                return Err(format!(
                    "controller {voter} voted for {} in term {}, after {} in term {}",
                    now.1, now.0, before.1, before.0
                ));
            }
            *before = now;
        }
        Ok(())
    }
}
