//! When to look again: as soon as the controllers tell of an event about the deployment, else now and then. An event
//! is only a reason to look; nothing in it is believed, and one that is missed costs nothing but time.

use std::time::Duration;

use tokio::time::Instant;

use crate::cli::client::{Client, Lines, encode};

/// Milliseconds between two looks without events: the first, doubled up to the second.
const LOOK_MS: (u64, u64) = (100, 1_000);
/// Milliseconds between two looks while events are told.
const QUIET_MS: u64 = 2_000;
/// Milliseconds until events are asked for again after they ended or could not be had.
const REOPEN_MS: u64 = 1_000;
/// Milliseconds in which the stream of events has to open; looking goes on without it.
const OPEN_MS: u64 = 1_000;
/// Where events are told.
const EVENTS: &str = "/api/v1/events";
/// How they are asked for.
const HEADERS: [(&str, &str); 1] = [("accept", "text/event-stream")];

/// Reasons to look again.
pub(super) struct Wakes<'a> {
    client: &'a Client,
    path: String,
    events: Option<Lines>,
    reopen_at: Instant,
    look_ms: u64,
}

impl<'a> Wakes<'a> {
    /// For one deployment.
    pub(super) fn new(client: &'a Client, id: &str) -> Self {
        Self {
            client,
            path: format!("{EVENTS}?deployment={}", encode(id)),
            events: None,
            reopen_at: Instant::now(),
            look_ms: LOOK_MS.0,
        }
    }

    /// Comes back when there may be something new, after `at_most_ms` at the latest.
    pub(super) async fn next(&mut self, at_most_ms: u64) {
        if self.events.is_none() && Instant::now() >= self.reopen_at {
            let open = Duration::from_millis(OPEN_MS.min(at_most_ms));
            let opened = tokio::time::timeout(open, self.client.lines(&self.path, &HEADERS)).await;
            self.events = opened.ok().and_then(Result::ok);
            self.reopen_at = Instant::now() + Duration::from_millis(REOPEN_MS);
            if self.events.is_some() {
                // Whatever happened before it was open is not told: look at once.
                return;
            }
        }
        let Some(events) = &mut self.events else {
            tokio::time::sleep(Duration::from_millis(self.look_ms.min(at_most_ms))).await;
            self.look_ms = (self.look_ms * 2).min(LOOK_MS.1);
            return;
        };
        let quiet = Duration::from_millis(QUIET_MS.min(at_most_ms));
        if let Ok(true) = tokio::time::timeout(quiet, until_told(events)).await {
            self.events = None;
        }
    }
}

/// Comes back when an event was told; true when none will be told any more.
async fn until_told(events: &mut Lines) -> bool {
    loop {
        match events.next().await {
            Ok(Some(line)) if line.starts_with(b"data:") => return false,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return true,
        }
    }
}
