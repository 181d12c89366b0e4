//! Which agents are connected, from what the gateways say. In memory: only transitions become commands.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_domain::{State, fleet::Presence};
use dotmac_protocol::{
    ids::{AgentId, NodeId},
    time::Timestamp,
};
use tokio::sync::watch;

use crate::peers::HeardAgent;

/// Milliseconds after which a gateway's last word no longer counts.
const WORD_COUNTS_MS: u64 = 3_000;
/// Milliseconds for which a new leader listens before it takes silence for absence.
const LISTEN_FIRST_MS: u64 = 5_000;

/// What the gateways said last; cheap to clone.
#[derive(Debug, Clone)]
pub struct Liveness {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    words: BTreeMap<NodeId, (Timestamp, Vec<HeardAgent>)>,
    /// The term in which this node leads, and since when it listens.
    listening: Option<(u64, Timestamp)>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Liveness {
    /// Notes whom a gateway hears.
    pub fn hear(&self, gateway: NodeId, agents: Vec<HeardAgent>, now: Timestamp) {
        let is_news = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let before = inner.words.insert(gateway, (now, agents.clone()));
            before.is_none_or(|(_, known)| known != agents)
        };
        if is_news {
            self.changes
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Wakes when a gateway says something new.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The transitions that the State does not know yet.
    #[must_use]
    pub fn transitions(
        &self,
        state: &State,
        term: u64,
        now: Timestamp,
    ) -> Vec<(AgentId, Presence)> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match inner.listening {
            Some((known, since)) if known == term => since,
            _ => {
                inner.listening = Some((term, now));
                now
            }
        };
        let may_miss = now.millis_since(since) >= LISTEN_FIRST_MS;
        let mut heard: BTreeMap<&AgentId, (NodeId, &HeardAgent)> = BTreeMap::new();
        for (gateway, (at, agents)) in &inner.words {
            if now.millis_since(*at) <= WORD_COUNTS_MS {
                for agent in agents {
                    let newest = heard
                        .get(&agent.agent)
                        .is_none_or(|(_, one)| one.since <= agent.since);
                    if newest {
                        heard.insert(&agent.agent, (*gateway, agent));
                    }
                }
            }
        }
        let mut changes = Vec::new();
        for (id, agent) in &state.agents {
            match (heard.get(id), &agent.presence) {
                (Some((gateway, one)), presence) => {
                    let known = matches!(presence, Presence::Connected { node, since, .. }
                        if node == gateway && *since == one.since);
                    if !known {
                        let presence = Presence::Connected {
                            node: *gateway,
                            software: one.software.clone(),
                            since: one.since,
                        };
                        changes.push((id.clone(), presence));
                    }
                }
                (None, Presence::Connected { .. }) if may_miss => {
                    changes.push((id.clone(), Presence::Disconnected { since: now }));
                }
                (None, _) => {}
            }
        }
        changes
    }
}
