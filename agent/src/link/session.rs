//! One session with one controller: hello and welcome, then orders in, records out, questions, beats and renewals, all
//! at once until one of them says why the session ends. Nothing of it survives the session but what is on disk.

mod news;

use std::{sync::Arc, time::Duration};

use dotmac_protocol::{
    acceptance::check_clock,
    frame::{
        AgentFrame, ControllerFrame, Delivery, Hello, INVENTORY_MAX, InventoryItem, Report, Welcome,
    },
    ids::TrustVersion,
    record::HealthStatus,
    time::Timestamp,
};
use dotmac_runtime::{
    quic::{FrameError, read_frame, write_frame},
    tls::{self, PeerError},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use quinn::{Connection, RecvStream, SendStream};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use self::news::{keep_addresses, require_pinned};
use super::{Link, LinkState, identity::IdentityStoreError, questions, renew};
use crate::{
    chain::Ahead,
    intake::{ClockVerdict, Verdict},
    trust::TrustStoreError,
    unit::Order,
};

/// How long hello and welcome may take.
const WELCOME_PATIENCE: Duration = Duration::from_secs(5);
/// How long one order may take to arrive once its stream is open.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(10);
/// How long an order that came before the session's first signed clock waits for it; then it is refused.
const CLOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Orders that arrive at the same time; further streams wait.
const DELIVERIES_MAX: usize = 16;
/// A batch of records that is not acknowledged within this time is sent again.
const ACKNOWLEDGE_PATIENCE: Duration = Duration::from_secs(15);
/// Pause before a batch that was answered but not taken is sent again.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// Between beats; every one makes the other side send something.
const BEAT: Duration = Duration::from_secs(1);
/// Ticks of half a second without any datagram after which a controller is left.
const SILENT_TICKS_MAX: u32 = 6;
/// Control frames that wait to be written.
const CONTROL_FRAMES_MAX: usize = 8;
/// Milliseconds by which clocks may differ before it is said in the log.
const CLOCK_TOLERANCE_MS: u64 = 30_000;

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum SessionEnd {
    #[error("the other side is no controller")]
    Peer(#[from] PeerError),
    #[error("the connection ended")]
    Connection(#[from] quinn::ConnectionError),
    #[error("a frame could not be exchanged")]
    Frame(#[from] FrameError),
    #[error("the controller sent no welcome in time")]
    NoWelcome,
    #[error("the controller sent {0} where it does not belong")]
    Unexpected(&'static str),
    #[error("the controller closed the control stream")]
    Closed,
    #[error("the controller said goodbye: {0}")]
    Goodbye(String),
    #[error("nothing was heard from the controller")]
    Silent,
    #[error("a newer trust root is needed")]
    TrustBehind,
    #[error("the controller's trust root is refused")]
    Trust(#[from] TrustStoreError),
    #[error("the controller is none of the trust root any more")]
    ControllerLeft,
    #[error("there is room for new work again")]
    RoomAgain,
    #[error("a fresh signed clock came: new work can be taken again")]
    ClockAgain,
    #[error("this agent's disk is older than what the controllers know")]
    DiskBehind(#[from] Ahead),
    #[error("what a controller told cannot be kept")]
    Store(#[from] IdentityStoreError),
    #[error("the record chain cannot be read")]
    Chain(#[source] std::io::Error),
    #[error("a task of the session failed")]
    Task(#[from] tokio::task::JoinError),
}

/// What the parts of one session share.
pub(super) struct Session<'a> {
    pub(super) link: &'a Link,
    pub(super) connection: &'a Connection,
    /// Frames for the control stream.
    pub(super) control: mpsc::Sender<AgentFrame>,
    /// The last acknowledgement of this session.
    acknowledged: watch::Sender<u64>,
    /// Renewed chains, and refusals of renewals.
    pub(super) renewals: mpsc::Sender<Result<Vec<Vec<u8>>, String>>,
    /// The version of the trust root in force.
    trust: watch::Sender<TrustVersion>,
}

/// Runs one session to its end.
pub(super) async fn run(link: &Link, connection: &Connection) -> SessionEnd {
    match introduce(link, connection).await {
        Err(end) => end,
        Ok((send, receive, welcome)) => {
            let node = welcome.node;
            link.parts.intake.welcomed((node, welcome.now));
            link.state.send_replace(LinkState::Connected(node));
            tracing::info!(node = node.0, "session");
            let (control, frames) = mpsc::channel(CONTROL_FRAMES_MAX);
            let (renewals, renewed) = mpsc::channel(1);
            let acknowledged = watch::Sender::new(welcome.acknowledged);
            let session = Session {
                link,
                connection,
                control,
                acknowledged,
                renewals,
                trust: watch::Sender::new(link.parts.intake.trust_version()),
            };
            let ended = tokio::select! {
                ended = write_control(send, frames) => ended,
                ended = session.read_control(receive) => ended,
                ended = session.beat() => ended,
                ended = session.take_orders() => ended,
                ended = session.report() => ended,
                ended = renew::run(&session, renewed) => ended,
                ended = questions::run(link, connection) => ended,
                error = connection.closed() => Err(error.into()),
            };
            match ended {
                Err(end) => end,
                Ok(never) => match never {},
            }
        }
    }
}

/// A part of a session ends only with the reason for which the session ends.
pub(super) type Ended = Result<std::convert::Infallible, SessionEnd>;

async fn introduce(
    link: &Link,
    connection: &Connection,
) -> Result<(SendStream, RecvStream, Welcome), SessionEnd> {
    let parts = &link.parts;
    tls::peer(connection)?;
    parts.intake.begin_session();
    let (chain, epoch) = (Arc::clone(&parts.chain), parts.intake.epoch());
    let rewound = tokio::task::spawn_blocking(move || chain.rewind(epoch)).await?;
    rewound.map_err(SessionEnd::Chain)?;
    let (mut send, mut receive) = connection.open_bi().await?;
    write_frame(&mut send, &AgentFrame::Hello(hello(link))).await?;
    let frame = timeout(
        WELCOME_PATIENCE,
        read_frame::<ControllerFrame>(&mut receive),
    )
    .await
    .map_err(|_| SessionEnd::NoWelcome)??;
    let welcome = match frame {
        Some(ControllerFrame::Welcome(welcome)) => welcome,
        Some(ControllerFrame::Goodbye { reason }) => return Err(SessionEnd::Goodbye(reason)),
        Some(_) => return Err(SessionEnd::Unexpected("another frame than a welcome")),
        None => return Err(SessionEnd::Closed),
    };
    let off_ms = welcome.now.distance_millis(parts.clock.now());
    if off_ms > CLOCK_TOLERANCE_MS {
        tracing::warn!(
            off_ms,
            node = welcome.node.0,
            "the clocks of agent and controller differ"
        );
    }
    parts.intake.follow(&welcome.trust_roots)?;
    require_pinned(link, connection)?;
    keep_addresses(link, &welcome.controllers)?;
    acknowledge(link, welcome.acknowledged).await?;
    Ok((send, receive, welcome))
}

fn hello(link: &Link) -> Hello {
    let parts = &link.parts;
    let desired = parts.intake.desired();
    let desired = Arc::clone(&desired.borrow());
    let item = |wanted: &crate::unit::Wanted| {
        let removed = wanted.order == Order::Remove;
        InventoryItem {
            unit: wanted.unit.clone(),
            generation: wanted.generation,
            sequence: wanted.sequence,
            removed,
            health: if removed {
                HealthStatus::Stopped
            } else {
                parts.host.health(&wanted.unit)
            },
        }
    };
    Hello {
        agent: link.certificate().agent.clone(),
        incarnation: parts.keys.incarnation.clone(),
        software: parts.software.clone(),
        trust_version: parts.intake.trust_version(),
        now: parts.clock.now(),
        inventory: desired.values().take(INVENTORY_MAX).map(item).collect(),
        outbox: parts.chain.outbox(),
    }
}

async fn acknowledge(link: &Link, through: u64) -> Result<(), SessionEnd> {
    let chain = Arc::clone(&link.parts.chain);
    let acknowledged = tokio::task::spawn_blocking(move || chain.acknowledge(through)).await?;
    if let Err(error) = &acknowledged {
        tracing::error!(%error, "no session is possible: the agent has to be enrolled anew");
    }
    Ok(acknowledged?)
}

async fn write_control(mut send: SendStream, mut frames: mpsc::Receiver<AgentFrame>) -> Ended {
    while let Some(frame) = frames.recv().await {
        write_frame(&mut send, &frame).await?;
    }
    Err(SessionEnd::Closed)
}

impl Session<'_> {
    async fn read_control(&self, mut receive: RecvStream) -> Ended {
        loop {
            let frame = read_frame::<ControllerFrame>(&mut receive).await?;
            match frame.ok_or(SessionEnd::Closed)? {
                ControllerFrame::Acknowledged {
                    incarnation,
                    through,
                } => {
                    if incarnation == self.link.parts.keys.incarnation {
                        acknowledge(self.link, through).await?;
                        self.acknowledged.send_replace(through);
                    }
                }
                ControllerFrame::Beat { .. } => {}
                ControllerFrame::Renewed { chain } => {
                    // Full when nobody asked: then it is of no use.
                    drop(self.renewals.try_send(Ok(chain)));
                }
                ControllerFrame::Refused { reason } => {
                    tracing::warn!(reason, "a controller refuses");
                    drop(self.renewals.try_send(Err(reason)));
                }
                ControllerFrame::Goodbye { reason } => return Err(SessionEnd::Goodbye(reason)),
                ControllerFrame::Clock(clock) => {
                    let intake = Arc::clone(&self.link.parts.intake);
                    let heard = tokio::task::spawn_blocking(move || intake.hear(&clock)).await?;
                    if heard == ClockVerdict::TrustBehind {
                        return Err(SessionEnd::TrustBehind);
                    }
                }
                ControllerFrame::Controllers(news) => self.follow(news).await?,
                ControllerFrame::Welcome(_) => {
                    return Err(SessionEnd::Unexpected("a second welcome"));
                }
            }
        }
    }

    /// Shows that the agent lives, and leaves a controller of which nothing is heard: not even that datagrams arrived.
    async fn beat(&self) -> Ended {
        let mut ticks = interval(BEAT / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut silent, mut is_beat) = (0, 0, false);
        loop {
            ticks.tick().await;
            let datagrams = self.connection.stats().udp_rx.datagrams;
            silent = if datagrams == heard { silent + 1 } else { 0 };
            heard = datagrams;
            if silent >= SILENT_TICKS_MAX {
                return Err(SessionEnd::Silent);
            }
            is_beat = !is_beat;
            let now = self.link.parts.clock.now();
            // A full queue means that nothing is written: the silence ends the session.
            if is_beat {
                drop(self.control.try_send(AgentFrame::Beat { now }));
            }
        }
    }

    /// Takes orders in, one at a time; they may arrive together and in any order.
    async fn take_orders(&self) -> Ended {
        let mut arriving = FuturesUnordered::new();
        let (mut is_waiting_for_room, mut is_waiting_for_clock) = (false, false);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                stream = self.connection.accept_uni(), if arriving.len() < DELIVERIES_MAX => {
                    arriving.push(self.read_order(stream?));
                }
                Some(arrived) = arriving.next() => {
                    let Some((delivery, received)) = arrived else { continue };
                    match self.take(delivery, received).await? {
                        Verdict::TrustBehind => return Err(SessionEnd::TrustBehind),
                        Verdict::NotNow => is_waiting_for_room = true,
                        Verdict::NoClock => is_waiting_for_clock = true,
                        Verdict::Accepted | Verdict::Held | Verdict::Refused | Verdict::Unbelieved => {}
                    }
                }
                () = self.fresh_clock(), if is_waiting_for_clock => {
                    return Err(SessionEnd::ClockAgain);
                }
                _ = ticks.tick(), if is_waiting_for_room => {
                    if self.link.parts.chain.has_room() {
                        return Err(SessionEnd::RoomAgain);
                    }
                }
            }
        }
    }

    /// Returns when the session has a signed clock that lets new work pass.
    async fn fresh_clock(&self) {
        let mut clock = self.link.parts.intake.session_clock();
        let now = || self.link.parts.clock.now();
        let fresh = clock.wait_for(|signed| check_clock(*signed, now()).is_ok());
        if fresh.await.is_err() {
            // Nobody is left who could hear one.
            std::future::pending::<()>().await;
        }
    }

    async fn read_order(&self, mut stream: RecvStream) -> Option<(Delivery, Timestamp)> {
        match timeout(DELIVERY_PATIENCE, read_frame::<Delivery>(&mut stream)).await {
            Ok(Ok(Some(delivery))) => {
                let received = self.link.parts.clock.now();
                let mut clock = self.link.parts.intake.session_clock();
                // What came too early is refused without one, and the next session brings it again.
                drop(timeout(CLOCK_PATIENCE, clock.wait_for(Option::is_some)).await);
                Some((delivery, received))
            }
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "an order cannot be read");
                None
            }
            Err(_) => {
                tracing::warn!("an order did not arrive in time");
                None
            }
        }
    }

    /// Sends records from the acknowledged mark on: one batch at a time, again until it is acknowledged.
    async fn report(&self) -> Ended {
        let chain = &self.link.parts.chain;
        let mut durable = chain.watch();
        let mut acknowledged = self.acknowledged.subscribe();
        loop {
            durable.mark_unchanged();
            acknowledged.mark_unchanged();
            let source = Arc::clone(chain);
            let batch = tokio::task::spawn_blocking(move || source.batch()).await?;
            let batch = batch.map_err(SessionEnd::Chain)?;
            if batch.records.is_empty() {
                durable.changed().await.map_err(|_| SessionEnd::Closed)?;
                continue;
            }
            let first = batch.first;
            let report = Report {
                incarnation: self.link.parts.keys.incarnation.clone(),
                records: batch.records,
            };
            let mut stream = self.connection.open_uni().await?;
            write_frame(&mut stream, &report).await?;
            // A stream that was reset already needs no end.
            drop(stream.finish());
            match timeout(ACKNOWLEDGE_PATIENCE, acknowledged.changed()).await {
                Ok(changed) => changed.map_err(|_| SessionEnd::Closed)?,
                Err(_) => tracing::warn!(
                    sequence = first,
                    "a report was not acknowledged; sending it again"
                ),
            }
            if *acknowledged.borrow() < first {
                tokio::time::sleep(REPORT_PAUSE).await;
            }
        }
    }
}
