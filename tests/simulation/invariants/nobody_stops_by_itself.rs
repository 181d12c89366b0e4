//! No controller and no agent ends, fails or finds its own disk wrong unless a fault made it so.

use super::{Invariant, Verdict, View};

pub(super) struct NobodyStopsByItself;

impl Invariant for NobodyStopsByItself {
    fn name(&self) -> &'static str {
        "nobody_stops_by_itself"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        match view.troubles.first() {
            None => Ok(()),
            Some(trouble) => Err(trouble.clone()),
        }
    }
}
