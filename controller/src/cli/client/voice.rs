//! What a client says on standard error: which cluster a change goes to, and, where somebody looks, what it waits for.

use std::sync::{Mutex, PoisonError};

use crate::cli::output::Output;

/// Milliseconds before somebody wonders.
pub(super) const SILENCE_MS: u64 = 1_000;

/// Speaks for one client.
#[derive(Debug)]
pub(crate) struct Voice {
    output: Output,
    target: String,
    names_reads: bool,
    said: Mutex<Said>,
}

/// What was said already.
#[derive(Debug, Default)]
struct Said {
    target: bool,
    cause: String,
}

impl Voice {
    /// Names this target once: before a change, and with `names_reads` before anything.
    pub(crate) fn new(output: Output, target: String, names_reads: bool) -> Self {
        Self {
            output,
            target,
            names_reads,
            said: Mutex::default(),
        }
    }

    /// A request is about to go to this server.
    pub(super) fn asking(&self, is_change: bool, server: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.target && (is_change || self.names_reads) {
            said.target = true;
            self.output.note(&format!("{} ({server})", self.target));
        }
    }

    /// Nobody could answer so far.
    pub(super) fn waiting(&self, waited_ms: u64, cause: &str) {
        if waited_ms < SILENCE_MS || !self.output.is_watched() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.cause != cause {
            let first = cause.lines().next().unwrap_or_default();
            self.output
                .note(&format!("waiting for a controller: {first}"));
            cause.clone_into(&mut said.cause);
        }
    }
}
