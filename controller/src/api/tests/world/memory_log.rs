//! A log of one controller in memory: it applies to a real State, and keeps what was proposed, as bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use dotmac_domain::{
    Envelope, Reply, State,
    audit::{Fact, Stream},
};
use dotmac_protocol::{codec, ids::NodeId};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    log::{Changes, Figures, Leadership, Log, LogError, Moment},
    peers::{PeerAnswer, PeerCall},
};

/// What peers answer to a call.
pub(in crate::api::tests) type Peers = Box<dyn Fn(PeerCall) -> PeerAnswer + Send>;

/// Applies what is proposed at once; keeps what was proposed, as bytes.
pub(in crate::api::tests) struct MemoryLog {
    state: Mutex<Arc<State>>,
    facts: Mutex<BTreeMap<Stream, Vec<Fact>>>,
    pub(in crate::api::tests) entries: Mutex<Vec<Vec<u8>>>,
    pub(in crate::api::tests) failure: Mutex<Option<LogError>>,
    pub(in crate::api::tests) leadership: watch::Sender<Leadership>,
    /// The peers that it has a connection to; without any no majority confirms it.
    pub(in crate::api::tests) connected: watch::Sender<BTreeSet<NodeId>>,
    /// What peers answer; without it they are away.
    pub(in crate::api::tests) peers: Mutex<Option<Peers>>,
    /// Entries that are in the log and not applied.
    pub(in crate::api::tests) behind: Mutex<u64>,
    applied: watch::Sender<u64>,
    changes: Changes,
}

impl MemoryLog {
    pub(super) fn new() -> Self {
        let leadership = Leadership {
            term: 1,
            leader: Some(NodeId(1)),
        };
        Self {
            state: Mutex::default(),
            facts: Mutex::default(),
            entries: Mutex::default(),
            failure: Mutex::default(),
            leadership: watch::Sender::new(leadership),
            connected: watch::Sender::new(BTreeSet::from([NodeId(2)])),
            peers: Mutex::default(),
            behind: Mutex::default(),
            applied: watch::Sender::new(0),
            changes: Changes::new(0, Arc::default()),
        }
    }

    /// Changes the State behind everybody's back.
    pub(in crate::api::tests) fn change(&self, change: impl FnOnce(&mut State)) {
        change(Arc::make_mut(&mut self.state.lock().unwrap()));
    }

    /// A State from a snapshot takes the place of the one there is; here the same one.
    pub(in crate::api::tests) fn replace(&self) {
        let index = *self.applied.borrow();
        self.changes.replace(index, Log::state(self));
    }

    fn failing(&self) -> Result<(), LogError> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn apply(&self, envelope: &Envelope) -> Reply {
        self.entries
            .lock()
            .unwrap()
            .push(codec::encode(envelope).unwrap());
        let mut state = self.state.lock().unwrap();
        let applied = Arc::make_mut(&mut state).apply(envelope);
        for fact in applied.facts {
            self.facts
                .lock()
                .unwrap()
                .entry(fact.stream.clone())
                .or_default()
                .push(fact);
        }
        self.applied.send_modify(|index| *index += 1);
        let index = *self.applied.borrow();
        self.changes
            .note(index, Arc::clone(&state), applied.changed);
        applied.reply
    }
}

impl Log for MemoryLog {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.lock().unwrap())
    }

    fn moment(&self) -> Moment {
        let index = *self.applied.borrow();
        let state = Log::state(self);
        Moment {
            index,
            term: 1,
            state,
        }
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn changes(&self) -> Changes {
        self.changes.clone()
    }

    fn connected(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.connected.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn propose(&self, envelope: Envelope, _: Duration) -> BoxFuture<'_, Result<Reply, LogError>> {
        Box::pin(async move {
            self.failing()?;
            Ok(self.apply(&envelope))
        })
    }

    fn barrier(&self, _: Duration) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.failing() })
    }

    fn call(
        &self,
        node: NodeId,
        call: PeerCall,
        _: Duration,
    ) -> BoxFuture<'_, Result<PeerAnswer, LogError>> {
        Box::pin(async move {
            if let Some(peers) = &*self.peers.lock().unwrap() {
                return Ok(peers(call));
            }
            Err(LogError::Refused {
                node,
                reason: "it is away".into(),
            })
        })
    }

    fn storage(&self) -> Result<(), String> {
        match self.failing() {
            Err(LogError::Storage(why)) => Err(why),
            _ => Ok(()),
        }
    }

    fn figures(&self) -> Figures {
        let applied = *self.applied.borrow();
        let behind = *self.behind.lock().unwrap();
        Figures {
            last_log: applied + behind,
            committed: applied,
            applied,
            is_confirmed: !self.connected.borrow().is_empty(),
            ..Figures::default()
        }
    }

    fn facts(&self, stream: &Stream, after: u64, limit: usize) -> Result<Vec<Fact>, LogError> {
        let facts = self.facts.lock().unwrap();
        let links = facts.get(stream).into_iter().flatten();
        Ok(links
            .filter(|fact| fact.sequence > after)
            .take(limit)
            .cloned()
            .collect())
    }
}
