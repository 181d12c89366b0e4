//! The one place where events are made: it compares each entity with what was shown of it last, so that nothing is told
//! twice. It keeps what was shown only while somebody watches.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use bytes::Bytes;
use dotmac_domain::{Changed, State, state::Map};
use tokio::sync::broadcast;

use super::{
    BATCH_EVENTS_MAX, BATCHES_MAX, Batch, Entry, Event, Render, Snapshot, SubscribeError, related,
};
use crate::{log::What, node::Node};

/// `None` in the ring says: everything again.
type Ring = broadcast::Sender<Option<Arc<Batch>>>;
/// One watcher's place in the ring.
pub(super) type Place = broadcast::Receiver<Option<Arc<Batch>>>;

/// What was shown, and who watches.
#[derive(Debug, Default)]
pub(super) struct Hub {
    open: Option<(Render, Ring)>,
    /// The State that `shown` shows, and its index.
    state: Arc<State>,
    index: u64,
    /// Every entity as it was shown last; `None` while nobody watches.
    shown: Option<Map<Changed, Arc<Entry>>>,
    /// To be looked at on occasion: what only counts entities that changed.
    related: BTreeSet<Changed>,
    is_cluster_touched: bool,
}

impl Hub {
    pub(super) fn open(&mut self, render: Render, node: &Node) {
        let taken = node.log.changes().take();
        self.open = Some((render, broadcast::Sender::new(BATCHES_MAX)));
        self.state = taken.state;
        self.index = taken.index;
    }

    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    pub(super) fn watchers(&self) -> usize {
        self.open
            .as_ref()
            .map_or(0, |(_, ring)| ring.receiver_count())
    }

    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// Who leads or who is connected changed.
    pub(super) fn touch_cluster(&mut self) {
        self.is_cluster_touched = true;
    }

    pub(super) fn subscribe(
        &mut self,
        node: &Node,
        watchers_max: usize,
    ) -> Result<(Snapshot, Place), SubscribeError> {
        if self.watchers() >= watchers_max {
            return Err(SubscribeError::Full);
        }
        // Nobody may start behind what he saw elsewhere, counts included.
        self.catch_up(node, true);
        let (render, ring) = self.open.as_ref().ok_or(SubscribeError::Closed)?;
        if self.shown.is_none() {
            self.shown = Some(everything(*render, node, &self.state));
        }
        let entries = self.shown.clone().unwrap_or_default();
        let index = self.index;
        Ok((Snapshot { index, entries }, ring.subscribe()))
    }

    /// Tells what changed since this was called last. What only follows from it waits until `with_related`; says
    /// whether something does.
    pub(super) fn catch_up(&mut self, node: &Node, with_related: bool) -> bool {
        let Some((render, ring)) = self.open.clone() else {
            return false;
        };
        let taken = node.log.changes().take();
        let before = std::mem::replace(&mut self.state, taken.state);
        self.index = taken.index;
        let is_cluster = std::mem::take(&mut self.is_cluster_touched);
        if ring.receiver_count() == 0 || self.shown.is_none() {
            self.shown = None;
            self.related.clear();
            return false;
        }
        let mut changed = match taken.what {
            What::These(changed) => changed,
            What::Everything => {
                self.shown = Some(everything(render, node, &self.state));
                self.related.clear();
                // Nobody may be left, which is no fault.
                let _ = ring.send(None);
                return false;
            }
        };
        changed.extend(is_cluster.then_some(Changed::Cluster));
        for one in &changed {
            self.related.extend(related::of(one, &before));
            self.related.extend(related::of(one, &self.state));
        }
        if with_related {
            changed.append(&mut self.related);
        }
        self.related.retain(|one| !changed.contains(one));
        self.tell(render, &ring, node, &changed);
        !self.related.is_empty()
    }

    fn tell(&mut self, render: Render, ring: &Ring, node: &Node, changed: &BTreeSet<Changed>) {
        let mut events: Vec<Event> = Vec::new();
        for one in changed {
            let Some(event) = self.event(render, node, one) else {
                continue;
            };
            events.push(event);
            if events.len() == BATCH_EVENTS_MAX {
                self.send(ring, std::mem::take(&mut events));
            }
        }
        if !events.is_empty() {
            self.send(ring, events);
        }
    }

    fn send(&self, ring: &Ring, events: Vec<Event>) {
        let index = self.index;
        // Nobody may be left, which is no fault.
        let _ = ring.send(Some(Arc::new(Batch { index, events })));
    }

    /// The event of one entity, if it looks different from what was shown.
    fn event(&mut self, render: Render, node: &Node, what: &Changed) -> Option<Event> {
        let shown = self.shown.as_mut()?;
        let before = shown.get(what).cloned();
        let now = entry(render, node, &self.state, what).map(Arc::new);
        let (entry, text) = match (before, now) {
            (Some(before), Some(now)) if *before == *now => return None,
            (None, None) => return None,
            (_, Some(now)) => {
                shown.insert_mut(what.clone(), Arc::clone(&now));
                (Arc::clone(&now), now.text.clone())
            }
            (Some(before), None) => {
                shown.remove_mut(what);
                let text = gone(what, &before);
                (before, text)
            }
        };
        let frame = framed(self.index, &text);
        let what = what.clone();
        Some(Event { what, entry, frame })
    }
}

impl Snapshot {
    /// The entities after one, in order.
    pub(crate) fn after(
        &self,
        last: Option<&Changed>,
    ) -> impl Iterator<Item = (&Changed, &Arc<Entry>)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded))
    }
}

/// A server-sent event with its id.
pub(crate) fn framed(index: u64, text: &[u8]) -> Bytes {
    [format!("id: {index}\n").as_bytes(), text].concat().into()
}

fn gone(what: &Changed, last: &Entry) -> Bytes {
    let id = serde_json::json!({"id": related::id(what), "tenant_id": last.tenant});
    format!("event: {}.gone\ndata: {id}\n\n", last.kind).into()
}

fn entry(render: Render, node: &Node, state: &State, what: &Changed) -> Option<Entry> {
    let shown = render(node, state, what)?;
    let text = format!("event: {}\ndata: {}\n\n", shown.kind, shown.data).into();
    Some(Entry {
        kind: shown.kind,
        tenant: shown.tenant,
        text,
    })
}

fn everything(render: Render, node: &Node, state: &State) -> Map<Changed, Arc<Entry>> {
    let mut entries = Map::default();
    for what in related::all(state) {
        if let Some(entry) = entry(render, node, state, &what) {
            entries.insert_mut(what, Arc::new(entry));
        }
    }
    entries
}
