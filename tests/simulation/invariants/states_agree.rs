//! Controllers that applied the same entries hold the same State, byte by byte (law 6).

use std::collections::{BTreeMap, BTreeSet};

use dotmac_protocol::digest::Digest;

use super::{ControllerView, Invariant, Verdict, View};
use crate::network::Place;

/// Of how many entries one is compared while the world runs; the last one always is.
const EVERY: u64 = 7;

#[derive(Default)]
pub(super) struct StatesAgree {
    digests: BTreeMap<u64, (Place, Digest)>,
    seen: BTreeSet<(Place, u64, u64)>,
}

impl StatesAgree {
    fn compare(&mut self, one: &ControllerView) -> Verdict {
        if !self.seen.insert((one.place, one.starts, one.applied)) {
            return Ok(());
        }
        let digest = one.state.digest();
        let (place, first) = *self
            .digests
            .entry(one.applied)
            .or_insert((one.place, digest));
        if first == digest {
            return Ok(());
        }
        Err(format!(
            "after entry {} controller {place} holds {first}, controller {} {digest}",
            one.applied, one.place
        ))
    }
}

impl Invariant for StatesAgree {
    fn name(&self) -> &'static str {
        "states_agree"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        for one in view
            .members()
            .filter(|one| one.applied.is_multiple_of(EVERY))
        {
            self.compare(one)?;
        }
        Ok(())
    }

    fn conclude(&mut self, view: &View<'_>) -> Verdict {
        for one in view.members() {
            self.compare(one)?;
        }
        Ok(())
    }
}
