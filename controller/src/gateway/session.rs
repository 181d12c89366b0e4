//! One agent's session: hello and welcome, then intents out, reports in, beats and renewals on the control stream.

use std::{collections::BTreeMap, sync::Arc};

use dotmac_domain::{Command, State, audit::Stream, envelope::Actor};
use dotmac_protocol::{
    frame::{AgentFrame, ControllerFrame, ControllerNews, Hello, INVENTORY_MAX, Welcome},
    ids::{AgentId, Sequence, TrustVersion, UnitId},
    time::Timestamp,
};
use dotmac_runtime::{
    pki,
    quic::{read_frame, write_frame},
    tls,
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;
use tracing::field::display;

use super::{Gateway, PROPOSE_DEADLINE, STEP_DEADLINE, SessionError};
use crate::{dispatch, node::Node};

/// Frames that wait for the control stream at most.
const CONTROL_QUEUE: usize = 64;

impl Gateway {
    /// Runs one session to its end.
    pub(super) async fn session(&self, connection: &Connection) -> Result<(), SessionError> {
        let agent = self.admitted(connection).await?;
        let (mut send, mut receive) = within(connection.accept_bi()).await??;
        let hello = match within(read_frame::<AgentFrame>(&mut receive)).await?? {
            Some(AgentFrame::Hello(hello)) => hello,
            Some(_) | None => return Err(SessionError::Hello),
        };
        self.check_hello(&agent, &hello)?;
        let welcome = self.welcome(&agent, &hello);
        let began = welcome.now;
        let sent = u64::try_from(welcome.trust_roots.len()).unwrap_or(u64::MAX);
        let told = TrustVersion(hello.trust_version.0.saturating_add(sent));
        within(write_frame(&mut send, &ControllerFrame::Welcome(welcome))).await??;
        let key = tls::peer(connection)?.key;
        let now = self.node.clock.now();
        self.node
            .registry
            .insert(&agent, connection, key, hello.software.clone(), now);
        tracing::info!(%agent, software = hello.software, "agent connected");
        self.adopt(&agent, &hello).await?;
        self.resend_lost(&agent, &hello).await;
        let ended = self
            .run_session(connection, &agent, &hello, (told, began, send, receive))
            .await;
        self.node.registry.remove(&agent, connection);
        tracing::info!(%agent, "agent gone");
        ended
    }

    /// After a restore: has what the agent holds taken over before anything is ordered of it.
    async fn adopt(&self, agent: &AgentId, hello: &Hello) -> Result<(), SessionError> {
        if !self.node.state().awaits(agent) {
            return Ok(());
        }
        let command = Command::AdoptInventory {
            inventory: hello.inventory.clone(),
            last_record: hello.outbox.1,
        };
        let actor = Actor::Agent(agent.clone());
        match self.node.propose(actor, command, PROPOSE_DEADLINE).await {
            Ok(Ok(_)) => {
                tracing::info!(%agent, units = hello.inventory.len(), "the agent's inventory was adopted");
                Ok(())
            }
            Ok(Err(rejection)) => {
                tracing::warn!(%agent, detail = rejection.detail, "inventory not adopted");
                Err(SessionError::Hello)
            }
            // It comes back and tells again.
            Err(error) => {
                tracing::warn!(%agent, %error, "inventory not adopted");
                Err(SessionError::Slow)
            }
        }
    }

    /// Has orders sent again that the agent acknowledged once and no longer holds.
    async fn resend_lost(&self, agent: &AgentId, hello: &Hello) {
        let behind = self.node.state().behind(agent, &hello.inventory);
        if behind.is_empty() {
            return;
        }
        tracing::warn!(%agent, units = behind.len(), "the agent lost orders that it had");
        let command = Command::NoteInventory { behind };
        let actor = Actor::Agent(agent.clone());
        match self.node.propose(actor, command, PROPOSE_DEADLINE).await {
            Ok(Ok(_)) => {}
            Ok(Err(rejection)) => {
                tracing::warn!(%agent, detail = rejection.detail, "lost orders not noted");
            }
            // The next session's hello says it again.
            Err(error) => tracing::warn!(%agent, %error, "lost orders not noted"),
        }
    }

    fn check_hello(&self, agent: &AgentId, hello: &Hello) -> Result<(), SessionError> {
        let state = self.node.state();
        let is_life = state
            .agents
            .get(agent)
            .is_some_and(|entry| entry.incarnation == hello.incarnation);
        let fits = hello.agent == *agent && is_life && hello.inventory.len() <= INVENTORY_MAX;
        if fits {
            Ok(())
        } else {
            Err(SessionError::Hello)
        }
    }

    fn welcome(&self, agent: &AgentId, hello: &Hello) -> Welcome {
        let state = self.node.state();
        let stream = Stream::Agent(agent.clone(), hello.incarnation.clone());
        Welcome {
            node: self.node.card.node,
            now: self.node.clock.now(),
            trust_roots: super::trust_roots_after(&state, hello.trust_version),
            controllers: super::addresses(&state),
            acknowledged: state.streams.get(&stream).map_or(0, |head| head.sequence),
        }
    }

    async fn run_session(
        &self,
        connection: &Connection,
        agent: &AgentId,
        hello: &Hello,
        (told, began, send, receive): (TrustVersion, Timestamp, SendStream, RecvStream),
    ) -> Result<(), SessionError> {
        let (control, queue) = mpsc::channel(CONTROL_QUEUE);
        tokio::select! {
            ended = write_control(send, queue) => ended,
            ended = self.read_control(agent, receive, control.clone()) => ended,
            ended = self.take_reports(connection, agent, &hello.incarnation, control.clone()) => ended,
            ended = deliver(&self.node, connection, (agent, began), (told, control.clone())) => ended,
            reason = connection.closed() => Err(reason.into()),
        }
    }

    async fn read_control(
        &self,
        agent: &AgentId,
        mut receive: RecvStream,
        control: mpsc::Sender<ControllerFrame>,
    ) -> Result<(), SessionError> {
        while let Some(frame) = read_frame::<AgentFrame>(&mut receive).await? {
            let answer = match frame {
                AgentFrame::Beat { .. } => ControllerFrame::Beat {
                    now: self.node.clock.now(),
                },
                AgentFrame::Renew { request } => self.renew(agent, &request).await,
                AgentFrame::Hello(_) => return Err(SessionError::Hello),
            };
            control
                .send(answer)
                .await
                .map_err(|_| SessionError::Closed)?;
        }
        Err(SessionError::Closed)
    }

    async fn renew(&self, agent: &AgentId, request: &[u8]) -> ControllerFrame {
        match self.certify(agent, request).await {
            Ok(chain) => ControllerFrame::Renewed { chain },
            Err(reason) => {
                tracing::warn!(%agent, reason, "certificate not renewed");
                ControllerFrame::Refused { reason }
            }
        }
    }

    /// A certificate for an agent's new key, once that key is in the State on a majority.
    pub(super) async fn certify(
        &self,
        agent: &AgentId,
        request: &[u8],
    ) -> Result<Vec<Vec<u8>>, String> {
        let now = self.node.clock.now();
        let key = pki::key_digest(request).map_err(|error| error.to_string())?;
        let chain = self
            .issuer
            .issue_agent(
                request,
                &self.node.genesis.cluster,
                agent,
                now,
                self.certificate_ms,
            )
            .map_err(|error| error.to_string())?;
        let not_after = now.plus_millis(self.certificate_ms);
        let command = Command::RenewCertificate { key, not_after };
        let actor = Actor::Agent(agent.clone());
        match self.node.propose(actor, command, PROPOSE_DEADLINE).await {
            Ok(Ok(_)) => Ok(chain),
            Ok(Err(rejection)) => Err(rejection.detail),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn write_control(
    mut send: SendStream,
    mut queue: mpsc::Receiver<ControllerFrame>,
) -> Result<(), SessionError> {
    while let Some(frame) = queue.recv().await {
        write_frame(&mut send, &frame).await?;
    }
    Err(SessionError::Closed)
}

/// Sends every newer trust root and signed clock, and every signed, unacknowledged intent once a session, each on a stream of its own,
/// newest State first. The session began at this time by this controller's clock.
async fn deliver(
    node: &Arc<Node>,
    connection: &Connection,
    (agent, began): (&AgentId, Timestamp),
    (mut told, control): (TrustVersion, mpsc::Sender<ControllerFrame>),
) -> Result<(), SessionError> {
    let mut signatures = node.book.changes();
    let mut sent: BTreeMap<UnitId, Sequence> = BTreeMap::new();
    let mut clock_sent = 0;
    loop {
        signatures.mark_unchanged();
        let state = node.state();
        tell_controllers(&state, &mut told, &control).await?;
        let newest = node.clocks.newest(&state, &node.book);
        if let Some(clock) = newest.filter(|clock| clock.number() != clock_sent) {
            clock_sent = clock.number();
            if let Some(signed) = clock.for_agent(agent) {
                let frame = ControllerFrame::Clock(signed);
                let told = control.send(frame).await;
                told.map_err(|_| SessionError::Closed)?;
            }
        }
        let is_sent = |unit: &UnitId, sequence| sent.get(unit).is_some_and(|one| *one >= sequence);
        for outgoing in dispatch::outgoing(&state, &node.book, agent, is_sent) {
            let started = node.traces.now();
            let mut stream = connection.open_uni().await?;
            write_frame(&mut stream, &outgoing.delivery).await?;
            // A stream that was reset already needs no end.
            let _ = stream.finish();
            let order = (&outgoing.unit, outgoing.sequence);
            node.traces
                .dispatched(outgoing.trace, order, began, outgoing.signed_at, started);
            let trace_id = outgoing.trace.map(|context| display(context.trace_id));
            let (unit, sequence, request) =
                (&outgoing.unit, outgoing.sequence.0, &outgoing.request);
            tracing::info!(%agent, %unit, sequence, %request, trace_id, "order sent");
            sent.insert(outgoing.unit, outgoing.sequence);
        }
        // Whatever becomes deliverable does so by a signature, and that comes after what it is under; thousands of
        // sessions that look at every commit would keep the commits waiting.
        let changed = signatures.changed().await;
        changed.map_err(|_| SessionError::Closed)?;
    }
}

/// Tells an agent of the trust roots after the one that it was told of last.
async fn tell_controllers(
    state: &State,
    told: &mut TrustVersion,
    control: &mpsc::Sender<ControllerFrame>,
) -> Result<(), SessionError> {
    loop {
        let trust_roots = super::trust_roots_after(state, *told);
        if trust_roots.is_empty() {
            return Ok(());
        }
        let sent = u64::try_from(trust_roots.len()).unwrap_or(u64::MAX);
        *told = TrustVersion(told.0.saturating_add(sent));
        let frame = ControllerFrame::Controllers(ControllerNews {
            trust_roots,
            controllers: super::addresses(state),
        });
        let sent = control.send(frame).await;
        sent.map_err(|_| SessionError::Closed)?;
    }
}

async fn within<T>(step: impl Future<Output = T>) -> Result<T, SessionError> {
    tokio::time::timeout(STEP_DEADLINE, step)
        .await
        .map_err(|_| SessionError::Slow)
}
