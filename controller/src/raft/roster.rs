//! The controllers that are known, with the life of the disk that each has: whoever is not in it, or comes with another
//! life, is spoken to by nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::ids::IncarnationId;

/// See the module's text; clones share it.
#[derive(Debug, Clone)]
pub struct Roster(Arc<RwLock<BTreeMap<u64, IncarnationId>>>);

impl Roster {
    /// These controllers.
    #[must_use]
    pub fn of(cards: &[NodeCard]) -> Self {
        Self(Arc::new(RwLock::new(incarnations(cards))))
    }

    /// These controllers from now on, and no others.
    pub fn replace(&self, cards: &[NodeCard]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = incarnations(cards);
    }

    /// The life of a controller's disk; `None` for one that is not known.
    #[must_use]
    pub fn incarnation(&self, node: u64) -> Option<IncarnationId> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).cloned()
    }
}

fn incarnations(cards: &[NodeCard]) -> BTreeMap<u64, IncarnationId> {
    let known = cards.iter();
    known
        .map(|card| (card.node.0, card.incarnation.clone()))
        .collect()
}
