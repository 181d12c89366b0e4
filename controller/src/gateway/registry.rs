//! The agents connected to this controller, and live questions to them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dotmac_domain::{State, fleet::Presence};
use dotmac_protocol::{
    digest::Digest,
    frame::{Answer, Question},
    ids::{AgentId, NodeId},
    time::Timestamp,
};
use dotmac_runtime::{
    quic::{read_frame, write_frame},
    supervise,
};
use quinn::Connection;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::{CLOSE_AGAIN, CLOSE_REFUSED};
use crate::peers::HeardAgent;

/// Pieces of an answer that wait for a slow asker at most; then the agent waits, too.
const ANSWER_QUEUE: usize = 64;
/// How long an agent may take to begin its answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Live sessions by agent; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    sessions: Arc<Mutex<BTreeMap<AgentId, Session>>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Session {
    connection: Connection,
    key: Digest,
    software: String,
    since: Timestamp,
}

/// Why a question got no answer.
#[derive(Debug, Error)]
pub enum QuestionError {
    /// The agent has no session with this controller.
    #[error("agent {0} is not connected to this controller")]
    NotConnected(AgentId),
    /// The session broke.
    #[error("agent {agent} did not take the question: {detail}")]
    Broken { agent: AgentId, detail: String },
}

/// Whether the State knows a newer session of an agent, with another controller.
fn is_elsewhere(state: &State, agent: &AgentId, own: NodeId, since: Timestamp) -> bool {
    let presence = state.agents.get(agent).map(|entry| &entry.presence);
    matches!(presence, Some(Presence::Connected { node, since: newer, .. })
        if *node != own && *newer > since)
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            sessions: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Registry {
    /// Wakes when an agent came or went.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many agents are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The connected agents, for the leader.
    #[must_use]
    pub fn heard(&self) -> Vec<HeardAgent> {
        self.lock()
            .iter()
            .map(|(agent, session)| HeardAgent {
                agent: agent.clone(),
                software: session.software.clone(),
                since: session.since,
            })
            .collect()
    }

    /// The session of an agent, if it is connected here.
    #[must_use]
    pub fn connection(&self, agent: &AgentId) -> Option<Connection> {
        self.lock()
            .get(agent)
            .map(|session| session.connection.clone())
    }

    /// Puts a live question to an agent; pieces of its answer arrive until it ends or the receiver is dropped.
    ///
    /// # Errors
    /// When the agent is not connected here or does not take the question in time.
    pub async fn question(
        &self,
        agent: &AgentId,
        question: Question,
    ) -> Result<mpsc::Receiver<Answer>, QuestionError> {
        let Some(connection) = self.connection(agent) else {
            return Err(QuestionError::NotConnected(agent.clone()));
        };
        let broken = |detail: String| QuestionError::Broken {
            agent: agent.clone(),
            detail,
        };
        let open = async {
            let (mut send, receive) = connection
                .open_bi()
                .await
                .map_err(|error| broken(error.to_string()))?;
            write_frame(&mut send, &question)
                .await
                .map_err(|error| broken(error.to_string()))?;
            Ok((send, receive))
        };
        let (mut send, mut receive) = tokio::time::timeout(ANSWER_DEADLINE, open)
            .await
            .map_err(|_| broken("no stream in time".into()))??;
        let (tx, rx) = mpsc::channel(ANSWER_QUEUE);
        supervise::spawn("answer", async move {
            loop {
                tokio::select! {
                    () = tx.closed() => break,
                    frame = read_frame::<Answer>(&mut receive) => match frame {
                        Ok(Some(answer)) => if tx.send(answer).await.is_err() { break },
                        Ok(None) | Err(_) => break,
                    }
                }
            }
            // Tells the agent that nobody reads any more.
            let _ = receive.stop(0_u32.into());
            let _ = send.finish();
        });
        Ok(rx)
    }

    pub(super) fn insert(
        &self,
        agent: &AgentId,
        connection: &Connection,
        key: Digest,
        software: String,
        since: Timestamp,
    ) {
        let session = Session {
            connection: connection.clone(),
            key,
            software,
            since,
        };
        let before = self.lock().insert(agent.clone(), session);
        if let Some(before) = before
            && before.connection.stable_id() != connection.stable_id()
        {
            before
                .connection
                .close(CLOSE_AGAIN.into(), b"replaced by a newer session");
        }
        self.changed();
    }

    /// Forgets a session unless a newer one took its place.
    pub(super) fn remove(&self, agent: &AgentId, connection: &Connection) {
        let mut sessions = self.lock();
        let is_same = sessions
            .get(agent)
            .is_some_and(|one| one.connection.stable_id() == connection.stable_id());
        if is_same {
            sessions.remove(agent);
            drop(sessions);
            self.changed();
        }
    }

    /// Ends sessions that no longer count: of certificates that the State does not admit, and of agents that have a
    /// newer session with another controller (this one's was never closed, because the agent was killed).
    pub(super) fn end_outdated(&self, state: &State, own: NodeId) {
        for (agent, session) in self.lock().iter() {
            if !state.admits(agent, session.key) {
                let reason = b"this certificate is no longer admitted";
                session.connection.close(CLOSE_REFUSED.into(), reason);
            } else if is_elsewhere(state, agent, own, session.since) {
                session
                    .connection
                    .close(CLOSE_AGAIN.into(), b"replaced by a newer session");
            }
        }
    }

    /// Asks all agents to come back later, because this controller stops.
    pub fn close_all(&self) {
        for session in self.lock().values() {
            session
                .connection
                .close(CLOSE_AGAIN.into(), b"this controller stops");
        }
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
