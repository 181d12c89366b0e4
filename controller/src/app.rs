//! Wires one controller's parts together and takes them apart again. It decides nothing.

mod error;
mod refusal;
mod who;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dotmac_domain::command::Genesis;
use dotmac_protocol::{
    digest::Digest,
    frame::{ALPN_AGENT, ALPN_ENROL, ALPN_PEER},
};
use dotmac_runtime::{
    clock::Clock,
    disk::{SharedDisk, SystemDisk},
    entropy::Entropy,
    quic, supervise,
    telemetry::{Service, Telemetry},
    tls::{self, IdentityCell, PinnedIssuers},
};
use futures::future::BoxFuture;
use quinn::{Connection, Endpoint, crypto::rustls::HandshakeData};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use self::{error::AppError, refusal::Refusal};
use crate::{
    api::{self, Serving, Tls, TlsFiles},
    backup::{Settings, keeper},
    bootstrap::{self, Beginning},
    config::Config,
    dispatch::{self, Answering},
    feed,
    gateway::{self, Gateway},
    identity::{CertifyError, SelfIssuer},
    leader::{self, Liveness},
    membership,
    metrics::Metrics,
    node::{self, Node, NodeParts},
    raft::{self, End, RaftConfig, RaftLog},
    storage::engine::{EngineConfig, abort_on_fatal},
    traces::Traces,
};

/// How long open connections may take to end when the controller stops.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a connection may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// What a controller takes from outside: the only sources of time, randomness and durable bytes.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Durability.
    pub disk: SharedDisk,
}

impl Ports {
    /// The real ones.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Clock::system(),
            entropy: Entropy::system(),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// A running controller.
#[derive(Debug)]
pub struct Running {
    /// The controller, for whoever embeds it.
    pub node: Arc<Node>,
    /// Its part in the replicated log, for whoever embeds it.
    pub raft: Arc<RaftLog>,
    endpoint: Endpoint,
    stop: watch::Sender<bool>,
    api: JoinHandle<()>,
    loops: Vec<JoinHandle<()>>,
    telemetry: Telemetry,
}

/// Starts a controller; it serves when this returns, and knows a leader a moment later.
pub async fn start(config: Config, ports: Ports) -> Result<Running, AppError> {
    let Ports {
        clock,
        entropy,
        disk,
    } = ports;
    let keys = bootstrap::load_keys(&config)?;
    let beginning = bootstrap::read_beginning(&config.genesis)?;
    let genesis = Arc::new(beginning.genesis.clone());
    let founding_rules = beginning.rules;
    let card = who::own_card(&config, &keys, &beginning.members)?;
    who::check_clock(&genesis, clock.now())?;
    who::check_restored(&config, &beginning)?;
    let pinned = PinnedIssuers::new(membership::first_issuers(&beginning));
    let issuer = Arc::new(keys.issuer);
    let own = SelfIssuer {
        issuer: Arc::clone(&issuer),
        card: card.clone(),
        genesis: Arc::clone(&genesis),
        clock: clock.clone(),
        entropy: entropy.clone(),
    };
    let identity = IdentityCell::new(&own.issue()?).map_err(CertifyError::from)?;
    let alpns: [&[u8]; 3] = [ALPN_PEER, ALPN_AGENT, ALPN_ENROL];
    let server = tls::server_config(identity.clone(), pinned.clone(), &alpns, &clock);
    let reset_key = Digest::tagged("dotmac/quic-reset", &keys.signing.to_bytes());
    let listen = config.link.listen;
    let endpoint = quic::endpoint(Some(listen), Some(server), reset_key.as_bytes(), &entropy)?;
    let address = config.api.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| AppError::Api { address, source })?;
    let serving = serving(&config, &clock)?;
    let client = tls::client_config(Some(identity.clone()), pinned.clone(), ALPN_PEER, &clock);
    let telemetry = telemetry(&config, &genesis, &clock)?;
    let reads_per_thousand = config.telemetry.reads_sampled_per_thousand;
    let traces = Traces::new(telemetry.spans(), config.node, reads_per_thousand);
    let metrics = Metrics::new(&clock);
    let settings = raft_config(&config, &beginning, &traces, &metrics);
    let raft = RaftLog::start(
        settings,
        endpoint.clone(),
        client,
        metrics.measured(disk),
        abort_on_fatal(),
        &entropy,
    )
    .await?;
    who::check_cluster(&raft, &genesis, &config).await?;
    let node = Arc::new(Node::new(NodeParts {
        card,
        genesis,
        founding_rules,
        clock,
        entropy,
        log: Arc::clone(&raft) as Arc<dyn crate::log::Log>,
        signing_key: keys.signing,
        traces,
        metrics,
        backup: Settings::of(&config.backup)?,
    }));
    node.metrics.watch(&node, store_directory(&config));
    let (stop, stopping) = watch::channel(false);
    let api = supervise::spawn(
        "api",
        api::serve(Arc::clone(&node), listener, serving, told(stopping)),
    );
    let certificate_ms = u64::from(config.certificates.agent_hours) * HOUR_MS;
    let gateway = Arc::new(Gateway::new(Arc::clone(&node), issuer, certificate_ms));
    let mut loops = spawn_loops(&node, &raft);
    let keeping = leader::run_retention(Arc::clone(&node), config.retention.kept());
    loops.push(supervise::spawn("retention", keeping));
    loops.push(supervise::spawn("certificate", own.renew(identity)));
    let following = membership::follow(Arc::clone(&node), Arc::clone(&raft), pinned);
    loops.push(supervise::spawn("controllers", following));
    let seating = membership::seat(Arc::clone(&node), Arc::clone(&raft));
    loops.push(supervise::spawn("membership", seating));
    let accepting = accept(endpoint.clone(), Arc::clone(&raft), gateway);
    loops.push(supervise::spawn("accept", accepting));
    tracing::info!(node = node.card.node.0, api = %address, link = %listen, "controller started");
    Ok(Running {
        node,
        raft,
        endpoint,
        stop,
        api,
        loops,
        telemetry,
    })
}

/// The loops that carry a controller's work on by themselves.
fn spawn_loops(node: &Arc<Node>, raft: &RaftLog) -> Vec<JoinHandle<()>> {
    let liveness = Liveness::default();
    raft.set_handler(Arc::new(Answering {
        node: Arc::clone(node),
        liveness: liveness.clone(),
    }));
    let node = || Arc::clone(node);
    vec![
        supervise::spawn("dispatch", dispatch::run(node())),
        supervise::spawn("planners", leader::run_planners(node())),
        supervise::spawn("hearing", leader::run_hearing(node(), liveness.clone())),
        supervise::spawn("liveness", leader::run_liveness(node(), liveness)),
        supervise::spawn("revocation", gateway::run_revocation(node())),
        supervise::spawn("token uses", node::run_token_uses(node())),
        supervise::spawn("feed", feed::run(node(), api::render)),
        supervise::spawn("backup", keeper::run(node())),
    ]
}

impl Running {
    /// Waits for SIGTERM, SIGINT or the end of Raft, then stops.
    ///
    /// # Errors
    /// When Raft stopped by itself: a service manager has to start the program again. Or when the other controllers refuse
    /// this one: it has no place in the cluster.
    pub async fn until_told(self) -> Result<(), AppError> {
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate());
        let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt());
        let stopped = tokio::select! {
            () = &mut terminate => {
                tracing::info!("told to stop");
                Ok(())
            }
            () = &mut interrupt => {
                tracing::info!("interrupted");
                Ok(())
            }
            end = self.raft.ended() => Err(match end {
                End::Broken(reason) => AppError::Stopped(reason),
                End::Refused(by) => AppError::Refused { node: self.node.card.node, by },
            }),
        };
        self.stop().await;
        stopped
    }

    /// Stops: callers are sent elsewhere and open requests end, then agents are asked to go, then the log closes.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // The API ends by itself within its own limit; what it still promises needs all the rest.
        let _ = self.api.await;
        self.node.registry.close_all();
        for task in &self.loops {
            task.abort();
        }
        self.raft.shutdown().await;
        self.endpoint
            .close(gateway::CLOSE_AGAIN.into(), b"this controller stops");
        let _ = tokio::time::timeout(DRAIN, self.endpoint.wait_idle()).await;
        self.telemetry.stop().await;
        tracing::info!("controller stopped");
    }
}

/// How the API is served.
fn serving(config: &Config, clock: &Clock) -> Result<Serving, api::TlsError> {
    let files = config.api.tls().map(|(certificate, key)| TlsFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    });
    let tls = files.map(|files| Tls::load(files, clock)).transpose()?;
    Ok(Serving {
        limits: config.limits.clone(),
        tls,
        stop_notice: Duration::from_millis(config.api.stop_notice_ms.into()),
    })
}

/// Where the spans of this controller go, if anywhere.
fn telemetry(config: &Config, genesis: &Genesis, clock: &Clock) -> Result<Telemetry, AppError> {
    let service = Service {
        name: "dotmac-controller",
        namespace: genesis.cluster.to_string(),
        instance: format!("controller-{}", config.node),
        version: env!("CARGO_PKG_VERSION"),
    };
    Telemetry::start(config.telemetry.otlp_endpoint.as_ref(), service, clock)
        .map_err(AppError::Telemetry)
}

fn raft_config(
    config: &Config,
    beginning: &Beginning,
    traces: &Traces,
    metrics: &Metrics,
) -> RaftConfig {
    let reserve_bytes = config.storage.reserve_bytes;
    RaftConfig {
        node: config.node,
        cluster: beginning.genesis.cluster.clone(),
        members: beginning.members.clone(),
        founds: beginning.founds,
        directory: store_directory(config),
        mark: Some(bootstrap::store_mark(&config.data_dir)),
        engine: EngineConfig {
            reserve_bytes,
            ..EngineConfig::default()
        },
        snapshot_every: raft::SNAPSHOT_EVERY,
        traces: traces.clone(),
        metrics: metrics.raft.clone(),
    }
}

/// Where log, ledger and snapshots lie.
fn store_directory(config: &Config) -> PathBuf {
    config.data_dir.join("store")
}

/// Hands each connection to whom its protocol belongs.
async fn accept(endpoint: Endpoint, raft: Arc<RaftLog>, gateway: Arc<Gateway>) {
    while let Some(incoming) = endpoint.accept().await {
        let (raft, gateway) = (Arc::clone(&raft), Arc::clone(&gateway));
        supervise::spawn("connection", async move {
            let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE, incoming).await else {
                return;
            };
            match application_protocol(&connection).as_deref() {
                Some(protocol) if protocol == ALPN_PEER => raft.serve(connection).await,
                Some(protocol) if protocol == ALPN_AGENT => gateway.serve_agent(connection).await,
                Some(protocol) if protocol == ALPN_ENROL => {
                    gateway.serve_enrolment(connection).await;
                }
                Some(_) | None => connection.close(0_u32.into(), b"unknown protocol"),
            }
        });
    }
}

fn application_protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection
        .handshake_data()?
        .downcast::<HandshakeData>()
        .ok()?
        .protocol
}

async fn told(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone is a stop, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn signal(kind: tokio::signal::unix::SignalKind) -> BoxFuture<'static, ()> {
    let stream = tokio::signal::unix::signal(kind);
    Box::pin(async move {
        match stream {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, "signals cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    })
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
