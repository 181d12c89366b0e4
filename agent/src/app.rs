//! Wires the parts of an agent: enrol if it must, open what is on disk, serve instances, reconcile, keep the link.
//!
//! It holds no logic of its own. When it ends, instances keep running: their shims outlive it.

mod data_dir;
mod error;
mod host;
mod telling;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use dotmac_protocol::{
    frame::JoinToken,
    record::{Event, Record, cut_detail},
    trust::TrustRoot,
};
use dotmac_runtime::{clock::Clock, disk::SystemDisk, entropy::Entropy, keyfile, quic, supervise};
use quinn::Endpoint;
use tokio::{sync::watch, task::JoinHandle};

use self::host::{Afterwards, LinkHost};
pub use self::{
    data_dir::{DataDir, DataDirError},
    error::AppError,
};
use crate::{
    chain::{self, Chain, ChainLimits, Opened, Owner},
    config::Config,
    instance_api::{self, Bound, Sources},
    intake::Intake,
    journal::Journal,
    license_time::LicenseTime,
    link::{
        self, Link, LinkParts,
        enrol::Enrolment,
        identity::{Certificate, IdentityStore, Keys},
    },
    metrics::Metrics,
    platform::PlatformKeys,
    reconcile::{self, ReconcileConfig},
    reports::{ReportFiles, Reports},
    signed_clock::ClockStore,
    stations::Stations,
    status::{self, Status},
    traces::Traces,
    trust::TrustStore,
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

/// What was opened on disk.
struct OnDisk {
    intake: Arc<Intake>,
    chain: Arc<Chain>,
    reports: Arc<Reports>,
    time: LicenseTime,
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
        let metrics = Metrics::new(&self.surroundings.clock);
        let (status, telling) = self.tell(&metrics).await?;
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
        let telemetry = self.telemetry(&certificate, &trust)?;
        let stations = Stations::traced(Traces::new(telemetry.spans()), metrics);
        let on_disk = self.open(&keys, &certificate, trust, &stations)?;
        let result = self
            .serve(keys, certificate, &endpoint, on_disk, stations, &status)
            .await;
        endpoint.close(0_u32.into(), b"the agent stops");
        endpoint.wait_idle().await;
        telemetry.stop().await;
        telling.abort();
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
        stations: &Stations,
    ) -> Result<OnDisk, AppError> {
        let clock = &self.surroundings.clock;
        let owner = Owner {
            agent: certificate.agent.clone(),
            incarnation: keys.incarnation.clone(),
            key: keys.identity.clone(),
        };
        let (limits, path) = (ChainLimits::default(), self.data.chain());
        let disk = stations.metrics().measured(SystemDisk::shared());
        let mut files = ReportFiles::open(&self.data.reports(), &keys.incarnation)
            .map_err(AppError::Reports)?;
        let repair = |record: &Record| files.repair(record);
        let Opened {
            chain,
            bad,
            accepted,
        } = Chain::open_with(&path, owner, disk, clock.clone(), limits, repair)?;
        let (agent, tenants) = (certificate.agent.clone(), self.config.tenants.clone());
        let (journal, damages) = Journal::open(&self.data.journal(), agent, tenants, &trust)?;
        let me = certificate.agent.clone();
        let (clocks, clock_damage) = ClockStore::open(&self.data.trust(), me, &trust);
        let root = trust.current();
        let chain = Arc::new(chain);
        let (time, time_damage) =
            LicenseTime::open(self.data.license_time(), clocks.at(), clock.clone());
        let per_second = self.config.reports_per_second;
        let reports = Reports::new(
            files,
            Arc::clone(&chain),
            time.clone(),
            clock.clone(),
            per_second,
        );
        let intake = Intake::new(
            journal,
            trust,
            clocks,
            Arc::clone(&chain),
            stations.clone(),
            time.clone(),
            clock.clone(),
        );
        audit(&chain, "agent.started", &start_text(&root))?;
        for bad in bad {
            tracing::error!(detail = %bad, "the record chain is damaged where controllers hold it already");
            audit(&chain, "agent.chain_damaged", &bad.to_string())?;
        }
        if let Some(detail) = clock_damage {
            tracing::error!(
                detail,
                "the newest signed clock is damaged and counts as none"
            );
            audit(&chain, "agent.clock_damaged", &detail)?;
        }
        if let Some(detail) = time_damage {
            tracing::error!(detail, "the time of licences is damaged and counts as none");
            audit(&chain, "agent.license_time_damaged", &detail)?;
        }
        for damage in damages {
            let detail = format!("{}: {}", damage.file.display(), damage.detail);
            tracing::error!(detail, "a journal file is damaged; its unit is left alone");
            audit(&chain, "agent.journal_damaged", &detail)?;
        }
        intake.repair_receipt(|leaf| accepted.contains(leaf))?;
        Ok(OnDisk {
            intake: Arc::new(intake),
            chain,
            reports: Arc::new(reports),
            time,
        })
    }

    /// Everything that runs, until the agent is stopped or the chain fails.
    async fn serve(
        &mut self,
        keys: Keys,
        certificate: Certificate,
        endpoint: &Endpoint,
        on_disk: OnDisk,
        stations: Stations,
        status: &Status,
    ) -> Result<(), AppError> {
        let OnDisk {
            intake,
            chain,
            reports,
            time,
        } = on_disk;
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
            reports: Arc::clone(&reports),
        });
        let (tally, license_time) = (reports.tally(), time.clone());
        let serving = serve_instances(
            bound,
            Sources {
                desired: intake.desired(),
                platform: Arc::clone(&platform),
                stations: stations.clone(),
                recorder: Arc::clone(&recorder),
                reports,
                license_time: time,
                tokens_file: self.data.tokens_file(),
                clock: clock.clone(),
            },
        );
        let told = stations.clone();
        let reconciler = reconcile::start(
            ReconcileConfig {
                data_dir: self.config.data_dir.clone(),
                shim_program: program,
                ports: self.config.ports.clone(),
                output_bytes_max: ReconcileConfig::OUTPUT_BYTES_MAX,
                backoff: reconcile::plan::Backoff::default(),
                tally,
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
        let link = Arc::new(Link::new(parts, certificate)?);
        telling::of_work(&told, license_time, reconciler.status(), &link);
        status.begin(status::Parts {
            data_dir: self.config.data_dir.clone(),
            link: Arc::clone(&link),
            reconciler: reconciler.task(),
            instance_api: serving[0].abort_handle(),
        });
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
        for task in serving {
            task.abort();
        }
        ended
    }
}

/// Serves instances, and keeps what they and their licences need. The API's task comes first.
fn serve_instances(bound: Bound, sources: Sources) -> [JoinHandle<()>; 3] {
    let (time, reports) = (sources.license_time.clone(), Arc::clone(&sources.reports));
    let desired = sources.desired.clone();
    [
        bound.serve(sources),
        supervise::spawn("license time", time.keep_keeping()),
        supervise::spawn("minutes", reports.keep_flushing(desired)),
    ]
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
