//! What happened in a world, in order: all of it in a digest, the last of it in words.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

/// Events kept in words.
const KEPT: usize = 400;

/// The story of one run.
#[derive(Default)]
pub(crate) struct Trace {
    hash: Sha256,
    last: VecDeque<String>,
    events: u64,
    is_loud: bool,
}

impl Trace {
    /// An empty one; a loud one prints every event at once.
    pub(crate) fn new(is_loud: bool) -> Self {
        Self {
            is_loud,
            ..Self::default()
        }
    }

    pub(crate) fn note(&mut self, now_ms: u64, event: &str) {
        let line = format!("{now_ms:>6} {event}");
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.events += 1;
        if self.is_loud {
            crate::say(&line);
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Equal for equal runs, and hardly for any others.
    pub(crate) fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// The last events in words.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let skipped = self.last.len().saturating_sub(count);
        self.last.iter().skip(skipped).cloned().collect()
    }
}
