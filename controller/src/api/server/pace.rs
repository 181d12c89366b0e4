//! How slow the other side of a connection may be: it has a few seconds to begin with, loses them while it is waited
//! for, and earns them back with every byte. So a total says nothing, and a trickle does not count as progress.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes for which it is waited one second.
const BYTES_PER_SECOND: u32 = 1024;

/// The patience for one direction of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    grace: Duration,
    credit: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// So much waiting to begin with, and at most.
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            credit: grace,
            waiting_since: None,
        }
    }

    /// It is waited for the other side; tells until when.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.credit
    }

    /// So many bytes have moved.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.credit = self.credit.saturating_sub(now - since);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / BYTES_PER_SECOND;
        self.credit = (self.credit + earned).min(self.grace);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Pace;

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_trickle_runs_out_of_patience_and_a_steady_flow_never_does() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let lasts = |bytes: usize| {
            let (mut pace, mut now) = (Pace::new(GRACE), start);
            (0..100)
                .take_while(|_| {
                    let end = pace.wait(now);
                    now += second;
                    pace.moved(bytes, now);
                    now < end
                })
                .count()
        };
        assert_eq!(lasts(1), 10);
        assert_eq!(lasts(512), 18);
        assert_eq!(lasts(1024), 100);
    }

    #[test]
    fn what_was_earned_is_not_saved_up() {
        let (mut pace, now) = (Pace::new(GRACE), Instant::now());
        pace.moved(100 << 20, now);
        assert_eq!(pace.wait(now), now + GRACE);
    }
}
