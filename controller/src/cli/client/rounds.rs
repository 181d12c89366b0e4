//! The way through the controllers: who is asked next, how long to wait in between, and when to give up. A controller
//! that named a `Retry-After` is left alone for so long, while the others are still asked.

use std::time::Duration;

use tokio::time::Instant;

use super::{Voice, elapsed_ms, reading::Again};
use crate::cli::failure::{Failure, Problem};

/// Milliseconds between two rounds through all controllers, doubled up to the maximum.
const ROUND_PAUSE_MS: (u64, u64) = (50, 800);

/// One request on its way through the controllers.
pub(super) struct Rounds<'a> {
    servers: &'a [String],
    deadline_ms: u64,
    voice: Option<&'a Voice>,
    started: Instant,
    pause_ms: u64,
    /// From when each controller may be asked again; none for one that was not asked yet.
    not_before: Vec<Option<Instant>>,
    cause: String,
    problem: Option<Problem>,
}

impl<'a> Rounds<'a> {
    /// A new way; the deadline counts from now.
    pub(super) fn new(servers: &'a [String], deadline_ms: u64, voice: Option<&'a Voice>) -> Self {
        let started = Instant::now();
        Self {
            servers,
            deadline_ms,
            voice,
            started,
            pause_ms: ROUND_PAUSE_MS.0,
            not_before: vec![None; servers.len()],
            cause: "no server is known".into(),
            problem: None,
        }
    }

    /// Whether this controller may be asked now. Somebody is always asked, however short the deadline.
    pub(super) fn may_ask(&self, index: usize) -> bool {
        if self.elapsed_ms() >= self.deadline_ms {
            return self.not_before.iter().all(Option::is_none);
        }
        self.not_before[index].is_none_or(|time| time <= Instant::now())
    }

    /// Notes what one controller said. What a controller answered tells more than that another is away.
    pub(super) fn note(&mut self, index: usize, again: Again) {
        self.not_before[index] = Some(Instant::now() + again.pause);
        if again.problem.is_some() || self.problem.is_none() {
            self.cause = format!("{}: {}", self.servers[index], again.why);
            self.problem = again.problem;
        }
    }

    /// Waits for the next round.
    ///
    /// # Errors
    /// When the deadline would be over by then, with what was heard last.
    pub(super) async fn next(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let earliest = self.not_before.iter().map(|time| time.unwrap_or(now)).min();
        let pause = earliest
            .unwrap_or(now)
            .saturating_duration_since(now)
            .max(Duration::from_millis(self.pause_ms));
        let end = self.started + Duration::from_millis(self.deadline_ms);
        if self.servers.is_empty() || now + pause >= end {
            return Err(self.given_up());
        }
        if let Some(voice) = self.voice {
            voice.waiting(self.elapsed_ms(), &self.cause);
        }
        self.pause_ms = (self.pause_ms * 2).min(ROUND_PAUSE_MS.1);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn elapsed_ms(&self) -> u64 {
        elapsed_ms(self.started)
    }

    /// Too many requests is a refusal; anything else is a cluster that cannot serve.
    fn given_up(&mut self) -> Failure {
        match self.problem.take() {
            Some(problem) if problem.status == 429 => Failure::of(problem),
            _ => Failure::Unreachable {
                servers: self.servers.join(", "),
                waited_ms: self.elapsed_ms(),
                cause: std::mem::take(&mut self.cause),
            },
        }
    }
}
