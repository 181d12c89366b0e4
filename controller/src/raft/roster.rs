//! The controllers that are known, with the life of the disk that each has: whoever is not in it, or comes with another
//! life, is spoken to by nobody.

use std::{collections::BTreeMap, sync::Arc};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::ids::IncarnationId;
use tokio::sync::watch;

/// See the module's text; clones share it.
#[derive(Debug, Clone)]
pub struct Roster(Arc<watch::Sender<BTreeMap<u64, IncarnationId>>>);

impl Roster {
    /// These controllers.
    #[must_use]
    pub fn of(cards: &[NodeCard]) -> Self {
        Self(Arc::new(watch::Sender::new(incarnations(cards))))
    }

    /// These controllers from now on, and no others.
    pub fn replace(&self, cards: &[NodeCard]) {
        self.0.send_replace(incarnations(cards));
    }

    /// The life of a controller's disk; `None` for one that is not known.
    #[must_use]
    pub fn incarnation(&self, node: u64) -> Option<IncarnationId> {
        self.0.borrow().get(&node).cloned()
    }

    /// Resolves when a controller is not known.
    pub async fn until_unknown(&self, node: u64) {
        let mut known = self.0.subscribe();
        // It cannot be closed: this is one of its senders.
        let _ = known.wait_for(|known| !known.contains_key(&node)).await;
    }
}

fn incarnations(cards: &[NodeCard]) -> BTreeMap<u64, IncarnationId> {
    let known = cards.iter();
    known
        .map(|card| (card.node.0, card.incarnation.clone()))
        .collect()
}
