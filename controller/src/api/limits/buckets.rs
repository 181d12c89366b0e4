//! Token buckets, one a key, that may owe as much as a burst for what turned out to be dear. Time is an argument, and so
//! many keys are remembered at most; the one that asked least recently is forgotten first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    num::NonZeroU32,
    time::Duration,
};

use dotmac_runtime::rate::{self, Rate};
use tokio::time::Instant;

/// All buckets of one sort.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    keys_max: usize,
    buckets: HashMap<K, Kept>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    bucket: rate::Bucket,
    at: Instant,
    used: u64,
}

impl<K: Clone + Eq + Hash> Buckets<K> {
    /// Full buckets that fill with so many units a second up to `burst`.
    pub(super) fn new(per_second: NonZeroU32, burst: NonZeroU32, keys_max: usize) -> Self {
        Self {
            rate: Rate::new(per_second, burst),
            keys_max,
            buckets: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Takes so many units, the whole burst at most.
    ///
    /// # Errors
    /// How long it takes until they are there. Nothing was taken then.
    pub(super) fn take(&mut self, key: &K, units: u32, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        let taken = self.fill(key, now).take(&rate, units);
        self.forget_oldest();
        taken
    }

    /// Takes units for what was done already, even if they are not there: then the next ones come later.
    pub(super) fn charge(&mut self, key: &K, units: u32, now: Instant) {
        let rate = self.rate;
        self.fill(key, now).charge(&rate, units);
        self.forget_oldest();
    }

    /// The bucket of a key with what came since it was used last.
    fn fill(&mut self, key: &K, now: Instant) -> &mut rate::Bucket {
        self.uses += 1;
        let full = Kept {
            bucket: self.rate.full(),
            at: now,
            used: self.uses,
        };
        let kept = self.buckets.entry(key.clone()).or_insert(full);
        self.by_use.remove(&kept.used);
        self.by_use.insert(self.uses, key.clone());
        kept.used = self.uses;
        let elapsed = now.saturating_duration_since(kept.at);
        kept.at = kept.at.max(now);
        kept.bucket.fill(&self.rate, elapsed);
        &mut kept.bucket
    }

    fn forget_oldest(&mut self) {
        while self.buckets.len() > self.keys_max {
            let Some((_, key)) = self.by_use.pop_first() else {
                return;
            };
            self.buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use tokio::time::Instant;

    use super::Buckets;

    fn buckets(per_second: u32, burst: u32, keys_max: usize) -> Buckets<u32> {
        let number = |number| NonZeroU32::new(number).unwrap();
        Buckets::new(number(per_second), number(burst), keys_max)
    }

    #[test]
    fn what_turned_out_to_be_dear_is_owed_up_to_a_burst() {
        let mut buckets = buckets(2, 5, 10);
        let start = Instant::now();
        assert_eq!(buckets.take(&1, 1, start), Ok(()));
        buckets.charge(&1, 8, start);
        assert_eq!(
            buckets.take(&1, 1, start),
            Err(Duration::from_millis(2_500))
        );
        buckets.charge(&1, 1_000, start);
        assert_eq!(buckets.take(&1, 1, start), Err(Duration::from_secs(3)));
        assert_eq!(buckets.take(&2, 5, start), Ok(()), "others owe nothing");
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut buckets = buckets(2, 5, 10);
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(buckets.take(&1, 1, start), Ok(()));
        }
        assert_eq!(buckets.take(&1, 1, start), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(&1, 4, start), Err(Duration::from_secs(2)));
        let later = start + Duration::from_millis(499);
        assert_eq!(buckets.take(&1, 1, later), Err(Duration::from_millis(1)));
        assert_eq!(
            buckets.take(&1, 1, start + Duration::from_millis(500)),
            Ok(())
        );
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(buckets.take(&1, 5, much_later), Ok(()));
        assert!(buckets.take(&1, 1, much_later).is_err());
    }

    #[test]
    fn what_costs_more_than_the_burst_takes_the_whole_burst() {
        let mut buckets = buckets(1, 5, 10);
        let start = Instant::now();
        assert_eq!(buckets.take(&1, 100, start), Ok(()));
        assert_eq!(buckets.take(&1, 100, start), Err(Duration::from_secs(5)));
    }

    #[test]
    fn the_memory_is_bounded_and_whoever_keeps_asking_is_remembered() {
        let mut buckets = buckets(1, 3, 100);
        let start = Instant::now();
        buckets.take(&0, 3, start).unwrap();
        for key in 1..10_000 {
            buckets.take(&key, 1, start).unwrap();
            assert!(buckets.take(&0, 1, start).is_err(), "{key}");
        }
        assert_eq!((buckets.buckets.len(), buckets.by_use.len()), (100, 100));
    }
}
