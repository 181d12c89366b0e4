//! Wires the parts of an agent: enrol if it must, open what is on disk, serve instances, reconcile, keep the link.
//!
//! It holds no logic of its own. When it ends, instances keep running: their shims outlive it.

mod data_dir;
mod host;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use dotmac_protocol::{
    frame::JoinToken,
    record::{Event, cut_detail},
    trust::TrustRoot,
};
use dotmac_runtime::{
    clock::Clock,
    disk::SystemDisk,
    entropy::Entropy,
    keyfile::{self, KeyFileError},
    quic, supervise,
};
use quinn::Endpoint;
use thiserror::Error;
use tokio::{sync::watch, task::JoinHandle};

pub use self::data_dir::{DataDir, DataDirError};
use self::host::{Afterwards, LinkHost};
use crate::{
    chain::{self, Chain, ChainLimits, Opened, Owner},
    config::Config,
    instance_api::{self, Sources},
    intake::Intake,
    journal::{self, Journal},
    link::{
        self, Link, LinkParts,
        enrol::{EnrolError, Enrolment},
        identity::{Certificate, IdentityStore, IdentityStoreError, Keys},
    },
    platform::PlatformKeys,
    reconcile::{self, ReconcileConfig, ReconcileError},
    signed_clock::ClockStore,
    stations::Stations,
    trust::{TrustStore, TrustStoreError},
    unit::{About, Recorder},
};

/// The version that this program reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an agent takes from outside besides its configuration.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// This program, for shims.
    pub program: PathBuf,
}

/// Why an agent does not run, or stopped running.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data directory is not usable.
    #[error("the data directory cannot be used")]
    DataDir(#[from] DataDirError),
    /// Keys or certificate are not usable.
    #[error("the agent's identity cannot be used")]
    Identity(#[from] IdentityStoreError),
    /// The certificate on disk cannot be shown.
    #[error("the agent's certificate cannot be used")]
    Certificate(#[from] dotmac_runtime::tls::IdentityError),
    /// The agent is not enrolled and has no token to enrol with.
    #[error(
        "the agent is not enrolled yet: set join_token_file to a file with a token of `dotmac agents token`"
    )]
    NoToken,
    /// The token file cannot be read.
    #[error("the join token cannot be read")]
    TokenFile(#[from] KeyFileError),
    /// The token file holds something else.
    #[error("join_token_file {}: this is no join token", .0.display())]
    Token(PathBuf),
    /// The token is for another region.
    #[error("region = {configured:?} is not the join token's region {token:?}")]
    Region { configured: String, token: String },
    /// The controllers do not admit the agent.
    #[error("the agent was not admitted")]
    Enrol(#[source] Box<EnrolError>),
    /// No UDP socket.
    #[error("no connection can be made from this host")]
    Endpoint(#[from] quic::EndpointError),
    /// The trust root is not usable.
    #[error("the trust root cannot be used")]
    Trust(#[from] TrustStoreError),
    /// There is a certificate but no trust root.
    #[error("the pinned trust root is missing from the data directory")]
    NoTrust,
    /// The record chain is not usable.
    #[error("the record chain cannot be used")]
    Chain(#[from] chain::OpenError),
    /// The record chain failed while running.
    #[error("the record chain failed: {0}")]
    ChainFailed(String),
    /// The journal is not usable.
    #[error("the journal cannot be used")]
    Journal(#[from] journal::OpenError),
    /// The first records cannot be written.
    #[error("the start of the agent cannot be recorded")]
    Record(#[from] chain::AppendError),
    /// The instance API is not usable.
    #[error("the instance API cannot be served")]
    InstanceApi(#[from] instance_api::BindError),
    /// The platform's secrets are not usable.
    #[error("the directory of instances' secrets cannot be used")]
    Platform(#[source] std::io::Error),
    /// Nothing can be reconciled.
    #[error("the reconciler cannot be started")]
    Reconcile(#[from] ReconcileError),
    /// A task panicked.
    #[error("a task of the agent failed")]
    Task(#[from] tokio::task::JoinError),
}

/// A running agent.
#[derive(Debug)]
pub struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), AppError>>,
}

impl Running {
    /// Stops the agent; instances keep running. Returns once everything it does is at its end.
    ///
    /// # Errors
    /// What went wrong while it ran.
    pub async fn stop(self) -> Result<(), AppError> {
        self.stop.send_replace(true);
        self.task.await?
    }

    /// Waits until the agent ends by itself, which it does on errors alone.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> Result<(), AppError> {
        (&mut self.task).await?
    }
}

/// Starts an agent. It enrols first when it has no certificate; afterwards it needs no controller to run.
///
/// # Errors
/// When the data directory or the identity in it is not usable. What comes later shows in [`Running::ended`].
pub fn start(config: Config, surroundings: Surroundings) -> Result<Running, AppError> {
    let data = DataDir::open(&config.data_dir)?;
    let store = IdentityStore::open(&data.identity())?;
    let keys = store.keys(&surroundings.entropy)?;
    let certificate = store.certificate()?;
    let (stop, stopped) = watch::channel(false);
    let agent = Agent {
        config,
        data,
        surroundings,
        store,
        stopped,
    };
    let task = supervise::spawn("agent", agent.run(keys, certificate));
    Ok(Running { stop, task })
}

struct Agent {
    config: Config,
    data: DataDir,
    surroundings: Surroundings,
    store: IdentityStore,
    stopped: watch::Receiver<bool>,
}

impl Agent {
    async fn run(mut self, keys: Keys, certificate: Option<Certificate>) -> Result<(), AppError> {
        let entropy = &self.surroundings.entropy;
        let endpoint = quic::endpoint(None, None, &entropy.bytes(), entropy)?;
        let certificate = match certificate {
            Some(certificate) => certificate,
            None => {
                let mut stopped = self.stopped.clone();
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                    joined = self.join(&endpoint, &keys) => joined?,
                }
            }
        };
        let trust = TrustStore::open(&self.data.trust())?.ok_or(AppError::NoTrust)?;
        let (intake, chain, stations) = self.open(&keys, &certificate, trust)?;
        let result = self
            .serve(keys, certificate, &endpoint, intake, chain, stations)
            .await;
        endpoint.close(0_u32.into(), b"the agent stops");
        endpoint.wait_idle().await;
        result
    }

    async fn join(&self, endpoint: &Endpoint, keys: &Keys) -> Result<Certificate, AppError> {
        let file = self
            .config
            .join_token_file
            .as_ref()
            .ok_or(AppError::NoToken)?;
        let text = keyfile::read_private(file)?;
        let token = std::str::from_utf8(&text)
            .ok()
            .and_then(JoinToken::from_text)
            .ok_or_else(|| AppError::Token(file.clone()))?;
        if token.region != self.config.region {
            return Err(AppError::Region {
                configured: self.config.region.to_string(),
                token: token.region.to_string(),
            });
        }
        let enrolment = Enrolment {
            endpoint,
            clock: &self.surroundings.clock,
            entropy: &self.surroundings.entropy,
            keys,
            store: &self.store,
        };
        link::join(&enrolment, &token, &self.config.region, &self.data.trust())
            .await
            .map_err(|error| AppError::Enrol(Box::new(error)))
    }

    /// Opens what is on disk, and records what was found on the way.
    fn open(
        &self,
        keys: &Keys,
        certificate: &Certificate,
        trust: TrustStore,
    ) -> Result<(Arc<Intake>, Arc<Chain>, Stations), AppError> {
        let clock = &self.surroundings.clock;
        let owner = Owner {
            agent: certificate.agent.clone(),
            incarnation: keys.incarnation.clone(),
            key: keys.identity.clone(),
        };
        let limits = ChainLimits::default();
        let disk = SystemDisk::shared();
        let Opened {
            chain,
            bad,
            accepted,
        } = Chain::open(&self.data.chain(), owner, disk, clock.clone(), limits)?;
        let (agent, tenants) = (certificate.agent.clone(), self.config.tenants.clone());
        let (journal, damages) = Journal::open(&self.data.journal(), agent, tenants, &trust)?;
        let me = certificate.agent.clone();
        let (clocks, clock_damage) = ClockStore::open(&self.data.trust(), me, &trust);
        let root = trust.current();
        let (chain, stations) = (Arc::new(chain), Stations::default());
        let intake = Intake::new(
            journal,
            trust,
            clocks,
            Arc::clone(&chain),
            stations.clone(),
            clock.clone(),
        );
        audit(&chain, "agent.started", &start_text(&root))?;
        for bad in bad {
            tracing::error!(%bad, "the record chain is damaged where controllers hold it already");
            audit(&chain, "agent.chain_damaged", &bad.to_string())?;
        }
        if let Some(detail) = clock_damage {
            tracing::error!(
                detail,
                "the newest signed clock is damaged and counts as none"
            );
            audit(&chain, "agent.clock_damaged", &detail)?;
        }
        for damage in damages {
            let detail = format!("{}: {}", damage.file.display(), damage.detail);
            tracing::error!(detail, "a journal file is damaged; its unit is left alone");
            audit(&chain, "agent.journal_damaged", &detail)?;
        }
        intake.repair_receipt(|leaf| accepted.contains(leaf))?;
        Ok((Arc::new(intake), chain, stations))
    }

    /// Everything that runs, until the agent is stopped or the chain fails.
    async fn serve(
        &mut self,
        keys: Keys,
        certificate: Certificate,
        endpoint: &Endpoint,
        intake: Arc<Intake>,
        chain: Arc<Chain>,
        stations: Stations,
    ) -> Result<(), AppError> {
        let Surroundings {
            clock,
            entropy,
            program,
        } = self.surroundings.clone();
        let bound = instance_api::bind(self.config.instance_api, &self.data.port_file()).await?;
        let (url, seal) = (bound.url(), keys.seal.clone());
        let platform = PlatformKeys::open(&self.data.platform(), url, seal, entropy.clone());
        let platform = Arc::new(platform.map_err(AppError::Platform)?);
        let recorder: Arc<dyn Recorder> = Arc::new(Afterwards {
            chain: Arc::clone(&chain),
            platform: Arc::clone(&platform),
            stations: stations.clone(),
        });
        let api = bound.serve(Sources {
            desired: intake.desired(),
            platform: Arc::clone(&platform),
            stations: stations.clone(),
            recorder: Arc::clone(&recorder),
            clock: clock.clone(),
        });
        let reconciler = reconcile::start(
            ReconcileConfig {
                data_dir: self.config.data_dir.clone(),
                shim_program: program,
                ports: self.config.ports.clone(),
                output_bytes_max: ReconcileConfig::OUTPUT_BYTES_MAX,
                backoff: reconcile::plan::Backoff::default(),
            },
            intake.desired(),
            recorder,
            platform,
            stations,
            clock.clone(),
            entropy.clone(),
        )?;
        let host = LinkHost::new(&reconciler, &self.config.data_dir);
        let mut failure = chain.failure();
        let parts = LinkParts {
            endpoint: endpoint.clone(),
            clock,
            entropy,
            keys,
            store: self.store.clone(),
            intake,
            chain,
            host: Arc::new(host),
            software: VERSION.to_owned(),
        };
        let link = Link::new(parts, certificate)?;
        tracing::info!(version = VERSION, region = %self.config.region, "agent runs");
        let ended = tokio::select! {
            _ = self.stopped.wait_for(|stopped| *stopped) => Ok(()),
            () = link.run() => Ok(()),
            failed = failure.wait_for(Option::is_some) => {
                let reason = failed.ok().and_then(|reason| reason.clone());
                Err(AppError::ChainFailed(reason.unwrap_or_default()))
            }
        };
        reconciler.stop().await;
        api.abort();
        ended
    }
}

fn start_text(root: &TrustRoot) -> String {
    let (cluster, version) = (&root.cluster, root.version);
    format!("version {VERSION}, cluster {cluster}, trust root {version}")
}

fn audit(chain: &Chain, action: &str, detail: &str) -> Result<(), chain::AppendError> {
    let action = action.to_owned();
    let detail = cut_detail(detail);
    chain
        .append(&About::default(), Event::Audit { action, detail })
        .map(|_| ())
}
