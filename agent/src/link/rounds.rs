//! Whom to dial next and when: spread over all controllers, quick to leave a dead one, slow to storm a recovering one.

use std::time::Duration;

use dotmac_runtime::entropy::Entropy;

/// The first pause after a round of all controllers failed.
const PAUSE_MIN_MS: u64 = 100;
/// The longest pause.
const PAUSE_MAX_MS: u64 = 5_000;

/// In which order controllers are tried, and how long to wait between. Every round is shuffled, so that agents spread.
#[derive(Debug)]
pub(super) struct Rounds {
    entropy: Entropy,
    left: Vec<String>,
    avoid: Option<String>,
    failed: u32,
}

impl Rounds {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self {
            entropy,
            left: Vec::new(),
            avoid: None,
            failed: 0,
        }
    }

    /// The next address to try; `all` may change between rounds. An empty list gives an address that fails.
    pub(super) fn next(&mut self, all: &[String]) -> String {
        if self.left.is_empty() {
            self.left = all.to_vec();
            for index in (1..self.left.len()).rev() {
                let bound = u64::try_from(index + 1).expect("a short list");
                let other = usize::try_from(self.entropy.below(bound)).expect("a short list");
                self.left.swap(index, other);
            }
            // Taken from the end: whom a session was just lost to comes last.
            let avoided = self
                .left
                .iter()
                .position(|one| self.avoid.as_ref() == Some(one));
            if let Some(position) = avoided {
                self.left.swap(0, position);
            }
            self.failed = self.failed.saturating_add(1);
        }
        self.left.pop().unwrap_or_default()
    }

    /// A session lasted: start afresh, with the others first.
    pub(super) fn settled(&mut self, address: &str) {
        self.left.clear();
        self.avoid = Some(address.to_owned());
        self.failed = 0;
    }

    /// How long to wait before the next attempt: at random below a bound that doubles with every failed round.
    pub(super) fn pause(&mut self) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(10);
        let bound = (PAUSE_MIN_MS << doublings).min(PAUSE_MAX_MS);
        Duration::from_millis(self.entropy.below(bound))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dotmac_runtime::entropy::Entropy;

    use super::{PAUSE_MAX_MS, PAUSE_MIN_MS, Rounds};

    fn controllers() -> Vec<String> {
        ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec()
    }

    #[test]
    fn every_round_tries_all_and_agents_begin_with_different_ones() {
        let firsts: BTreeSet<String> = (0..20)
            .map(|seed| {
                let mut rounds = Rounds::new(Entropy::seeded(seed));
                let round: Vec<String> = (0..3).map(|_| rounds.next(&controllers())).collect();
                let tried: BTreeSet<&String> = round.iter().collect();
                assert_eq!(tried.len(), 3, "{round:?}");
                round[0].clone()
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn whom_a_session_was_lost_to_comes_last() {
        for seed in 0..20 {
            let mut rounds = Rounds::new(Entropy::seeded(seed));
            rounds.next(&controllers());
            rounds.settled("b:1");
            let round: Vec<String> = (0..3).map(|_| rounds.next(&controllers())).collect();
            assert_eq!(round[2], "b:1");
        }
    }

    #[test]
    fn pauses_grow_with_failed_rounds_up_to_a_bound_and_are_short_after_a_session() {
        let mut rounds = Rounds::new(Entropy::seeded(1));
        let mut longest = 0;
        for _ in 0..300 {
            rounds.next(&controllers());
            longest = longest.max(rounds.pause().as_millis());
        }
        assert!(longest > u128::from(PAUSE_MAX_MS / 2) && longest < u128::from(PAUSE_MAX_MS));
        rounds.settled("a:1");
        for _ in 0..3 {
            rounds.next(&controllers());
            assert!(rounds.pause().as_millis() < u128::from(PAUSE_MIN_MS));
        }
    }
}
