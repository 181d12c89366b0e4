//! The State's clock never goes back from one entry to a later one, on whichever controller, whatever clocks do.

use std::collections::BTreeMap;

use dotmac_protocol::time::Timestamp;

use super::{Invariant, Verdict, View};

#[derive(Default)]
pub(super) struct TimeNeverGoesBack {
    /// The State's clock after each entry that was seen.
    times: BTreeMap<u64, Timestamp>,
}

impl Invariant for TimeNeverGoesBack {
    fn name(&self) -> &'static str {
        "time_never_goes_back"
    }

    fn observe(&mut self, view: &View<'_>) -> Verdict {
        for one in view.members() {
            let (index, now) = (one.applied, one.state.now);
            let before = self.times.range(..=index).next_back();
            let behind = self.times.range(index..).next();
            if let Some((earlier, time)) = before.filter(|(_, time)| **time > now) {
                return Err(format!("{time} after entry {earlier}, {now} after {index}"));
            }
            if let Some((later, time)) = behind.filter(|(_, time)| **time < now) {
                return Err(format!("{now} after entry {index}, {time} after {later}"));
            }
            self.times.insert(index, now);
        }
        Ok(())
    }
}
