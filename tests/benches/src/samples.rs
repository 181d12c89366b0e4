//! Latencies of one round and what is told of them: rate, p50, p99; medians over rounds. It keeps every sample: nothing
//! is averaged away.

use std::time::Duration;

/// What one round found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    /// Microseconds of each answer.
    micros: Vec<u32>,
    /// How long the round took.
    pub(crate) elapsed: Duration,
    /// Answers with another status than expected, by status.
    pub(crate) refused: u64,
    /// Requests without an answer.
    pub(crate) failed: u64,
}

impl Samples {
    /// Takes one answer.
    pub(crate) fn take(&mut self, took: Duration) {
        self.micros
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes what another client of the same round found.
    pub(crate) fn join(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.refused += other.refused;
        self.failed += other.failed;
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Answers.
    pub(crate) fn len(&self) -> usize {
        self.micros.len()
    }

    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        let answers = f64::from(u32::try_from(self.micros.len()).unwrap_or(u32::MAX));
        answers / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Milliseconds that this share of the answers (0 to 100) stays below.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut micros = self.micros.clone();
        micros.sort_unstable();
        let last = micros.len().saturating_sub(1);
        let place = (micros.len() * percent).div_ceil(100).saturating_sub(1);
        micros
            .get(place.min(last))
            .map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 50)
}

/// What this share of the values (0 to 100) stays below; 0 of nothing.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(place).copied().unwrap_or_default()
}

/// Three digits behind the point are more than a benchmark knows.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Samples, median, percentile};

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut samples = Samples {
            elapsed: Duration::from_secs(2),
            ..Samples::default()
        };
        for millis in (1..=100).rev() {
            samples.take(Duration::from_millis(millis));
        }
        assert_eq!(
            (samples.percentile(50), samples.percentile(99)),
            (50.0, 99.0)
        );
        assert_eq!(samples.percentile(100), 100.0);
        assert_eq!(samples.rate(), 50.0);
        assert_eq!(Samples::default().percentile(99), 0.0);
    }

    #[test]
    fn a_median_is_the_middle_one() {
        assert_eq!(median([9.0, 1.0, 5.0]), 5.0);
        assert_eq!(percentile([1.0, 2.0], 99), 2.0);
        assert_eq!(median([]), 0.0);
    }
}
