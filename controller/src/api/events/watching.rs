//! One watcher's stream: everything as it is, then changes, a sign of life in between, and an end as soon as its token
//! has ended. It holds no queue but the events of one batch, which it shares with all others.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::body::Bytes;
use dotmac_domain::Changed;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::selection::Selection;
use crate::{
    api::principal::Principal,
    feed::{Batch, Next, Snapshot, Subscription, framed},
    node::Node,
};

/// How often a sign of life is sent.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Milliseconds after which a watcher whose connection broke should come back.
const RETRY_MS: u32 = 1_000;
/// Bytes of the current state that are put together at once, and what one event has more.
const PIECE_BYTES: usize = 64 * 1024;
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// One watcher.
pub(super) struct Watching {
    node: Arc<Node>,
    who: Principal,
    selection: Selection,
    subscription: Subscription,
    /// Of the current state, what is still to be told.
    rest: Option<Rest>,
    /// Of a batch, what is still to be told.
    frames: VecDeque<Bytes>,
    heartbeat: Interval,
    /// Resolves when the token has ended.
    ended: BoxFuture<'static, String>,
    is_over: bool,
}

struct Rest {
    snapshot: Snapshot,
    /// What goes before the next piece.
    first: String,
    /// The entity told last.
    after: Option<Changed>,
}

impl Watching {
    pub(super) fn new(
        node: Arc<Node>,
        who: Principal,
        selection: Selection,
        snapshot: Snapshot,
        subscription: Subscription,
    ) -> Self {
        let ended = who.until_ended(&node);
        let first = format!("retry: {RETRY_MS}\n\n");
        Self {
            node,
            who,
            selection,
            subscription,
            rest: Some(Rest::new(snapshot, first)),
            frames: VecDeque::new(),
            heartbeat: every(HEARTBEAT_EVERY),
            ended: Box::pin(ended),
            is_over: false,
        }
    }

    /// The next piece; `None` after the last one.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let (state, now) = (self.node.state(), self.node.clock.now());
            if self.who.still_valid(&state, now).is_err() {
                let reason = (&mut self.ended).await;
                return Some(self.close(&reason));
            }
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if let Some(rest) = self.rest.take() {
                return Some(self.tell(rest));
            }
            tokio::select! {
                next = self.subscription.next() => match next {
                    Next::Batch(batch) => self.take(&batch),
                    Next::Behind => match self.subscription.again().await {
                        Ok(snapshot) => self.rest = Some(Rest::again(snapshot)),
                        Err(error) => return Some(self.close(&error.to_string())),
                    },
                    Next::Closed => return Some(self.close("this controller stops")),
                },
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(HEARTBEAT)),
                reason = &mut self.ended => return Some(self.close(&reason)),
            }
        }
        None
    }

    /// Keeps what this watcher gets of a batch.
    fn take(&mut self, batch: &Batch) {
        let state = self.node.state();
        let seen = batch
            .events
            .iter()
            .filter(|event| self.selection.takes(&state, &event.what, &event.entry));
        self.frames.extend(seen.map(|event| event.frame.clone()));
    }

    /// The next piece of the current state, and after the last one that it was the last.
    fn tell(&mut self, rest: Rest) -> Bytes {
        let Rest {
            snapshot,
            first,
            after,
        } = rest;
        let state = self.node.state();
        let mut piece = first.into_bytes();
        let mut last = None;
        for (what, entry) in snapshot.after(after.as_ref()) {
            if self.selection.takes(&state, what, entry) {
                piece.extend_from_slice(&framed(snapshot.index, &entry.text));
            }
            if piece.len() >= PIECE_BYTES {
                last = Some(what.clone());
                break;
            }
        }
        if last.is_some() {
            self.rest = Some(Rest {
                snapshot,
                first: String::new(),
                after: last,
            });
        } else {
            let index = snapshot.index;
            let text = format!("event: synced\ndata: {}\n\n", json!({"index": index}));
            piece.extend_from_slice(&framed(index, text.as_bytes()));
        }
        piece.into()
    }

    /// The last piece: why the stream ends.
    fn close(&mut self, reason: &str) -> Bytes {
        self.is_over = true;
        let reason = json!({"reason": reason});
        format!("event: closing\ndata: {reason}\n\n").into()
    }
}

impl Rest {
    fn new(snapshot: Snapshot, first: String) -> Self {
        Self {
            snapshot,
            first,
            after: None,
        }
    }

    fn again(snapshot: Snapshot) -> Self {
        let reason = json!({"reason": "the stream fell behind; everything as it is now follows"});
        Self::new(snapshot, format!("event: reset\ndata: {reason}\n\n"))
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
