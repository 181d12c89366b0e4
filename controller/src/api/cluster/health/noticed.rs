//! Since when this controller has noticed what no State tells the time of, such as a peer that is away. In memory: after
//! a restart it begins anew.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_protocol::time::Timestamp;

/// What was noticed when it was looked last, and since when. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noticed(Arc<Mutex<BTreeMap<String, Timestamp>>>);

impl Noticed {
    /// Since when each of these is noticed; what is not among them is forgotten.
    pub(super) fn since<'r>(
        &self,
        reasons: impl Iterator<Item = &'r str>,
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |reason: &str| known.get(reason).copied().unwrap_or(now);
        let noticed: BTreeMap<String, Timestamp> = reasons
            .map(|reason| (reason.to_owned(), since(reason)))
            .collect();
        known.clone_from(&noticed);
        noticed
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::Noticed;

    #[test]
    fn since_stays_until_the_reason_is_gone() {
        let noticed = Noticed::default();
        let at = |reasons: &[&str], now: u64| {
            let since = noticed.since(reasons.iter().copied(), Timestamp(now));
            since.into_values().map(|at| at.0).collect::<Vec<_>>()
        };
        assert_eq!(at(&["a"], 5), [5]);
        assert_eq!(at(&["a", "b"], 7), [5, 7]);
        assert_eq!(at(&["b"], 8), [7]);
        assert_eq!(at(&["a"], 9), [9]);
    }
}
