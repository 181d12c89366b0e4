//! The platform API that instances dial, both generations: licence, configuration, reports. Served on the loopback from
//! this agent's own durable copy, so that an instance can restart while the site is cut off from every controller.
//!
//! It refuses whoever does not sign with a unit's own secret, and believes no claim about tenants: the tenant is who
//! the secret belongs to. Somebody else's object is answered like one that does not exist.

mod access;
mod events;
mod extract;
mod fields;
mod license;
mod listener;
mod news;
mod plugins;
mod problem;
mod standing;
mod tenant_config;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod trace;
mod usage;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use dotmac_protocol::{ids::UnitId, record::Event, time::Timestamp};
use dotmac_runtime::{clock::Clock, disk, supervise};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

pub(crate) use self::listener::{LimitedListener, Proof};
use self::{
    access::{Caller, Places},
    news::News,
    problem::Problem,
    tokens::Used,
};
use crate::{
    license_time::LicenseTime,
    metrics::{self, Listener},
    platform::PlatformKeys,
    reports::Reports,
    stations::Stations,
    unit::{About, Desired, Recorder},
};

/// Bytes of a request's body at most.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a batch of events at most.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Requests answered at the same time; above it they are told to come again.
const REQUESTS_MAX: usize = 128;
/// Connections open at the same time; above it the one that is least worth keeping makes room.
const CONNECTIONS_MAX: usize = 512;
/// How long a request may take, its body included.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// What the API serves from.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "it reaches secrets")]
pub struct Sources {
    /// What every unit should be, as the journal holds it.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// The secrets that callers sign with.
    pub platform: Arc<PlatformKeys>,
    /// Where the way of an order is noted.
    pub stations: Stations,
    /// Where events go.
    pub recorder: Arc<dyn Recorder>,
    /// Where reports go.
    pub reports: Arc<Reports>,
    /// The time by which licences are judged.
    pub license_time: LicenseTime,
    /// Where it is kept how far ahead of the clock used tokens were issued.
    pub tokens_file: PathBuf,
    /// The agent's own time.
    pub clock: Clock,
}

/// The instance API cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// The configured address is taken or not ours.
    #[error("{key} = {address} cannot be used")]
    Listen {
        key: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The chosen port cannot be kept for the next start.
    #[error("the port that was chosen cannot be kept in {}", file.display())]
    Keep {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A listener that instances can be told about before it answers.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds the configured address. Port 0 becomes the port of the last start, which `port_file` keeps: running
/// instances know it. When that one is taken meanwhile, another is chosen and instances started from then on get it.
///
/// # Errors
/// When nothing can be bound, or the chosen port cannot be kept.
pub async fn bind(address: SocketAddr, port_file: &Path) -> Result<Bound, BindError> {
    bind_for("instance_api.listen", address, port_file).await
}

/// As [`bind`], for what the configuration calls `key`.
///
/// # Errors
/// As [`bind`].
pub(crate) async fn bind_for(
    key: &'static str,
    address: SocketAddr,
    port_file: &Path,
) -> Result<Bound, BindError> {
    let kept = std::fs::read_to_string(port_file)
        .ok()
        .and_then(|text| text.trim().parse::<u16>().ok())
        .filter(|_| address.port() == 0);
    let mut listener = None;
    if let Some(port) = kept {
        let before = SocketAddr::new(address.ip(), port);
        listener = TcpListener::bind(before).await.ok();
        if listener.is_none() {
            tracing::warn!(setting = key, address = %before, "the port that others on this host know is taken; choosing another");
        }
    }
    let failed = |source| BindError::Listen {
        key,
        address,
        source,
    };
    let listener = match listener {
        Some(listener) => listener,
        None => TcpListener::bind(address).await.map_err(failed)?,
    };
    let bound = listener.local_addr().map_err(failed)?;
    if address.port() == 0 && kept != Some(bound.port()) {
        let text = format!("{}\n", bound.port());
        disk::write_atomic(port_file, text.as_bytes(), 0o600).map_err(|source| {
            BindError::Keep {
                file: port_file.to_owned(),
                source,
            }
        })?;
    }
    Ok(Bound {
        listener,
        address: bound,
    })
}

impl Bound {
    /// `PLATFORM_URL` of instances.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// Answers from now on, until the task is aborted.
    #[must_use]
    pub fn serve(self, sources: Sources) -> JoinHandle<()> {
        supervise::spawn("instance-api", async move {
            let closed = sources
                .stations
                .metrics()
                .closed_for_room(Listener::Platform);
            LimitedListener::new(self.listener, CONNECTIONS_MAX, Proof::Caller, closed)
                .serve(router(sources))
                .await;
        })
    }
}

/// What handlers share.
#[derive(Clone)]
struct Api {
    sources: Sources,
    tokens: Arc<Used>,
    places: Arc<Places>,
    due: Arc<Due>,
    news: Arc<News>,
    requests: Arc<Semaphore>,
}

/// Units whose instance was started and did not report yet. An agent that restarts sees no start: nothing is due.
#[derive(Debug, Default)]
struct Due(Mutex<BTreeSet<UnitId>>);

impl Due {
    /// An instance was started: its next report is recorded again.
    fn started(&self, unit: &UnitId) {
        self.lock().insert(unit.clone());
    }

    /// Whether this is the first report since the start.
    fn take(&self, unit: &UnitId) -> bool {
        self.lock().remove(unit)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<UnitId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Api {
    fn now(&self) -> Timestamp {
        self.sources.clock.now()
    }

    fn note(&self, caller: &Caller, station: &str) {
        let (unit, generation) = (&caller.wanted.unit, caller.wanted.generation);
        self.sources
            .stations
            .note(unit, generation, station, self.now());
    }

    /// Records that a started instance reports, once per start.
    async fn record_first(&self, caller: &Caller, what: &str) {
        if self.due.take(&caller.wanted.unit) {
            let event = Event::Audit {
                action: "instance.reported".to_owned(),
                detail: format!("{what} arrive from the started instance"),
            };
            self.record(caller, event).await;
        }
    }

    /// Records an event about the caller. Waits for the disk, off the threads that answer.
    async fn record(&self, caller: &Caller, event: Event) {
        let recorder = Arc::clone(&self.sources.recorder);
        let about = About::wanted(&caller.wanted);
        let recorded = tokio::task::spawn_blocking(move || recorder.record(&about, event)).await;
        if let Err(error) = recorded {
            tracing::error!(%error, "an event of an instance was not recorded");
        }
    }
}

fn router(sources: Sources) -> Router {
    let api = Api {
        tokens: Arc::new(Used::open(sources.tokens_file.clone(), sources.clock.now())),
        sources,
        places: Arc::default(),
        due: Arc::default(),
        news: Arc::default(),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
    };
    let counted = api.sources.stations.metrics().clone();
    let calls = Router::new()
        .route("/license/validate", post(license::validate))
        .route("/license/heartbeat", post(license::heartbeat))
        .route("/license/{key}", get(license::show))
        .route("/config/{tenant}", get(tenant_config::show))
        .route("/config/{tenant}/sync", post(tenant_config::sync))
        .route("/metrics/report", post(usage::report))
        .route("/metrics/health", post(usage::health))
        .route("/events/webhook", post(events::one))
        .route(
            "/events/webhook/batch",
            post(events::batch).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)),
        )
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new()
        .nest("/api/platform/v1/service-api", calls)
        .nest("/api/v1", older_calls())
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::Method)
        .layer(middleware::from_fn_with_state(api.clone(), limit))
        .layer(middleware::from_fn_with_state(api.clone(), trace::trace))
        .layer(middleware::from_fn_with_state(counted, metrics::count))
        .with_state(api)
}

/// What older instances call.
fn older_calls() -> Router<Api> {
    Router::new()
        .route(
            "/plugin-licensing/validate/{tenant}",
            get(plugins::validate),
        )
        .route("/plugin-licensing/usage", post(plugins::usage))
        .route(
            "/plugin-licensing/health-status",
            post(plugins::health_status),
        )
        .route(
            "/plugin-licensing/tenant/{tenant}/subscriptions",
            get(plugins::subscriptions),
        )
        .route(
            "/plugin-licensing/usage-summary/{tenant}/{plugin}",
            get(plugins::usage_summary),
        )
        .route("/config/validate", post(plugins::config_validate))
        .route("/config/applied", post(plugins::config_applied))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn limit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Ok(_permit) = api.requests.try_acquire() else {
        return Problem::Busy.into_response();
    };
    tokio::time::timeout(REQUEST_PATIENCE, next.run(request))
        .await
        .unwrap_or_else(|_| Problem::Slow.into_response())
}
