//! What happened when, in milliseconds since the break. Lines are shown as they come.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::cli::elapsed_ms;

/// The time line of one demonstration.
#[derive(Debug)]
pub(crate) struct Timeline {
    broken_at: Mutex<Instant>,
    lines: Mutex<Vec<(u64, String)>>,
    shows: bool,
}

impl Timeline {
    /// A time line that begins now; `shows` lines at once.
    pub(crate) fn new(shows: bool) -> Self {
        Self {
            broken_at: Mutex::new(Instant::now()),
            lines: Mutex::default(),
            shows,
        }
    }

    /// The break is now.
    pub(crate) fn begin(&self, what: &str) {
        *self
            .broken_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.note(0, what);
    }

    /// Milliseconds since the break.
    pub(crate) fn now_ms(&self) -> u64 {
        elapsed_ms(
            *self
                .broken_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Something happens now.
    pub(crate) fn mark(&self, what: &str) {
        self.note(self.now_ms(), what);
    }

    /// Everything in order, as pairs of milliseconds and words.
    pub(crate) fn lines(&self) -> Vec<(u64, String)> {
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        lines.sort_by_key(|(at, _)| *at);
        lines
    }

    fn note(&self, at_ms: u64, what: &str) {
        if self.shows {
            let output = crate::cli::output::Output::new(crate::cli::output::Format::Table);
            // A reader that went away is found out at the end.
            drop(output.line(&format!("{at_ms:>7} ms  {what}")));
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((at_ms, what.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::Timeline;

    #[test]
    fn lines_are_in_the_order_of_their_times_from_the_break_on() {
        let timeline = Timeline::new(false);
        timeline.note(40, "second");
        timeline.note(3, "first");
        timeline.begin("broken");
        let words: Vec<_> = timeline.lines().into_iter().map(|(_, what)| what).collect();
        assert_eq!(words, ["broken", "first", "second"]);
        assert!(timeline.now_ms() < 40, "the clock begins with the break");
    }
}
