//! What changed on this controller, for all who watch: one task turns applied changes into events, each written once
//! and shared by everybody. It knows no HTTP and no rights; who may see what is for the watcher to decide.
//!
//! ```text
//!   log::Changes (folds while nobody takes) -> run -> hub: render, compare with what was shown -> ring of batches
//!                                                      |                                            |
//!                                              current state (Snapshot)          Subscription::next: a batch, or, to
//!                                                      `------- subscribe -------'  who lags, everything again
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use dotmac_domain::{Changed, State, state::Map};
use dotmac_protocol::ids::TenantId;
use thiserror::Error;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use crate::node::Node;

mod hub;
mod related;

use hub::{Hub, Place};

pub(crate) use hub::framed;

/// Watchers of one controller at most; further ones are refused.
pub const WATCHERS_MAX: usize = 4_096;
/// Events of one batch at most; more changes make more batches.
pub const BATCH_EVENTS_MAX: usize = 64;
/// Batches that a watcher may be behind; further behind it gets the current state again.
pub const BATCHES_MAX: usize = 256;
/// Pause after a batch in which further changes fold together.
const FOLD: Duration = Duration::from_millis(10);
/// How long counts that follow from a change, such as a region's deployments, may wait for others.
const RELATED_AFTER: Duration = Duration::from_millis(250);

/// An entity as watchers are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The name of its events.
    pub kind: &'static str,
    /// Whose it is; `None` for what belongs to the platform.
    pub tenant: Option<TenantId>,
    /// Its JSON, without line breaks.
    pub data: String,
}

/// Writes an entity as it is now; `None` when it is gone.
pub type Render = fn(&Node, &State, &Changed) -> Option<Shown>;

/// An entity as it was shown last.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name of its events.
    pub kind: &'static str,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// The lines `event:` and `data:` of a server-sent event, and the empty line that ends it.
    pub text: Bytes,
}

/// One change of one entity.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which entity.
    pub what: Changed,
    /// It now, or as it was last when it is gone.
    pub entry: Arc<Entry>,
    /// The whole server-sent event, with its id.
    pub frame: Bytes,
}

/// Changes that came together.
#[derive(Debug)]
pub struct Batch {
    /// Log index of the State that they lead to.
    pub index: u64,
    /// One event an entity; at most [`BATCH_EVENTS_MAX`].
    pub events: Vec<Event>,
}

/// Everything as it is.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Log index of the State that it shows.
    pub index: u64,
    /// The entities.
    pub entries: Map<Changed, Arc<Entry>>,
}

/// What a watcher gets next.
#[derive(Debug)]
pub enum Next {
    /// Changes.
    Batch(Arc<Batch>),
    /// It was too far behind, or too much changed to name it: [`Subscription::again`] goes on.
    Behind,
    /// This controller stops.
    Closed,
}

/// Why there is nothing to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubscribeError {
    /// The controller starts or stops.
    #[error("this controller is starting or stopping")]
    Closed,
    /// Too many watch already.
    #[error("{WATCHERS_MAX} watchers are connected to this controller")]
    Full,
}

/// What changed on this controller; clones share it. Closed until [`run`] runs.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    hub: Arc<Mutex<Hub>>,
}

/// One watcher's place in the feed.
#[derive(Debug)]
pub struct Subscription {
    node: Arc<Node>,
    receiver: Place,
}

impl Feed {
    /// Everything as it is in this node's newest State, and a place from which every later change is seen.
    ///
    /// # Errors
    /// When the feed is closed or full.
    pub async fn subscribe(
        &self,
        node: &Arc<Node>,
    ) -> Result<(Snapshot, Subscription), SubscribeError> {
        let (feed, for_hub) = (self.clone(), Arc::clone(node));
        // The first watcher lets everything be written, which takes a while in a large cluster.
        let subscribing =
            tokio::task::spawn_blocking(move || feed.lock().subscribe(&for_hub, WATCHERS_MAX));
        let (snapshot, receiver) = subscribing.await.unwrap_or(Err(SubscribeError::Closed))?;
        let node = Arc::clone(node);
        Ok((snapshot, Subscription { node, receiver }))
    }

    /// Tells what changed; whether something that follows from it still waits. Off the threads that everything else
    /// runs on: it may have much to write.
    pub(crate) async fn catch_up(&self, node: &Arc<Node>, with_related: bool) -> Option<bool> {
        let (feed, node) = (self.clone(), Arc::clone(node));
        let catching_up =
            tokio::task::spawn_blocking(move || feed.lock().catch_up(&node, with_related));
        catching_up.await.ok()
    }

    /// Index of the last entry that watchers were told of.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.lock().index()
    }

    /// Watchers now.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.lock().watchers()
    }

    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// What comes next. Cancel-safe.
    pub async fn next(&mut self) -> Next {
        match self.receiver.recv().await {
            Ok(Some(batch)) => Next::Batch(batch),
            Ok(None) | Err(broadcast::error::RecvError::Lagged(_)) => Next::Behind,
            Err(broadcast::error::RecvError::Closed) => Next::Closed,
        }
    }

    /// Everything as it is now; what comes next follows from there.
    ///
    /// # Errors
    /// When the feed is closed or full.
    pub async fn again(&mut self) -> Result<Snapshot, SubscribeError> {
        let (snapshot, subscription) = self.node.feed.subscribe(&self.node).await?;
        self.receiver = subscription.receiver;
        Ok(snapshot)
    }
}

/// Turns changes into events until this controller begins to stop; what is subscribed then ends, too.
pub async fn run(node: Arc<Node>, render: Render) {
    let _open = Open::new(node.feed.clone(), render, &node);
    let (mut applied, mut leadership) = (node.log.changes().woken(), node.log.leadership());
    let (mut connected, mut stopping) = (node.log.connected(), node.stopping());
    let mut related_at: Option<Instant> = None;
    loop {
        let is_due = related_at.is_some_and(|at| at <= Instant::now());
        let Some(has_related) = node.feed.catch_up(&node, is_due).await else {
            return;
        };
        related_at = match (has_related, related_at) {
            (true, Some(at)) if !is_due => Some(at),
            (true, _) => Some(Instant::now() + RELATED_AFTER),
            (false, _) => None,
        };
        // What changes meanwhile folds together.
        tokio::time::sleep(FOLD).await;
        tokio::select! {
            alive = changed(&mut applied) => if !alive { return },
            alive = changed(&mut leadership) => if !alive { return } else { node.feed.lock().touch_cluster() },
            alive = changed(&mut connected) => if !alive { return } else { node.feed.lock().touch_cluster() },
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = at(related_at) => {}
        }
    }
}

async fn changed<T>(receiver: &mut watch::Receiver<T>) -> bool {
    receiver.changed().await.is_ok()
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// An open feed; dropping it closes it.
struct Open(Feed);

impl Open {
    fn new(feed: Feed, render: Render, node: &Node) -> Self {
        feed.lock().open(render, node);
        Self(feed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().close();
    }
}
