//! The calls of the contract over real HTTP on the loopback, to an API that serves from a real directory: one file of
//! claims a topic.

mod answers;
mod configuration;
mod crowd;
mod hostile;
mod licenses;
mod listener;
mod older;
mod reports;
mod tokens;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use dotmac_protocol::{
    digest::Digest,
    ids::{Generation, Sequence, UnitId},
    record::{Event, reports::Report},
    unit::Instance,
};
use dotmac_runtime::{
    clock::{Clock, ManualClock},
    entropy::Entropy,
    seal::SealKey,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::{Sources, bind};
use crate::{
    chain::{Chain, ChainLimits},
    fixture::{NOW, tenant, unit},
    license_time::LicenseTime,
    platform::PlatformKeys,
    reports::tests::{open, recorded},
    stations::Stations,
    unit::{About, Desired, Order, Recorder, Wanted},
};

pub(super) const DAY_MS: u64 = 24 * 3_600_000;
pub(super) const BASE: &str = "/api/platform/v1/service-api";

#[derive(Default)]
pub(super) struct Recorded(Mutex<Vec<(About, Event)>>);

impl Recorder for Recorded {
    fn record(&self, about: &About, event: Event) {
        self.0.lock().unwrap().push((about.clone(), event));
    }
}

/// One agent's API, its disk and its clock.
pub(super) struct Site {
    directory: tempfile::TempDir,
    pub(super) clock: Clock,
    pub(super) hand: ManualClock,
    pub(super) limits: ChainLimits,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    tokens: AtomicU64,
    client: reqwest::Client,
    pub(super) serving: Serving,
}

/// What ends with the agent.
pub(super) struct Serving {
    pub(super) url: String,
    pub(super) platform: Arc<PlatformKeys>,
    pub(super) stations: Stations,
    pub(super) recorded: Arc<Recorded>,
    pub(super) chain: Arc<Chain>,
    pub(super) time: LicenseTime,
    server: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn wanted(instance: Instance) -> Wanted {
    Wanted {
        tenant: instance.tenant.clone(),
        unit: UnitId::instance(&instance.deployment),
        request: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        trace: None,
        generation: Generation(1),
        sequence: Sequence(1),
        leaf: Digest::ZERO,
        at: NOW,
        order: Order::Keep(Arc::new(instance)),
    }
}

async fn serve(
    directory: &Path,
    clock: &Clock,
    limits: ChainLimits,
    desired: watch::Receiver<Arc<Desired>>,
) -> Serving {
    let listen = "127.0.0.1:0".parse().unwrap();
    let bound = bind(listen, &directory.join("port")).await.unwrap();
    let url = bound.url();
    let seal_key = SealKey::from_bytes(&[9; 32]);
    let keys = directory.join("platform");
    let platform = PlatformKeys::open(&keys, url.clone(), seal_key, Entropy::seeded(1));
    let platform = Arc::new(platform.unwrap());
    let (reports, chain, time) = open(directory, clock, limits);
    let (stations, recorded) = (Stations::default(), Arc::new(Recorded::default()));
    let server = bound.serve(Sources {
        desired,
        platform: Arc::clone(&platform),
        stations: stations.clone(),
        recorder: Arc::clone(&recorded) as Arc<dyn Recorder>,
        reports,
        license_time: time.clone(),
        tokens_file: directory.join("tokens"),
        clock: clock.clone(),
    });
    Serving {
        url,
        platform,
        stations,
        recorded,
        chain,
        time,
        server,
    }
}

impl Site {
    pub(super) async fn new(instances: Vec<Instance>) -> Self {
        Self::with(instances, ChainLimits::default()).await
    }

    pub(super) async fn with(instances: Vec<Instance>, limits: ChainLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(NOW);
        let units = instances.into_iter().map(wanted);
        let units: Desired = units.map(|wanted| (wanted.unit.clone(), wanted)).collect();
        let (desired, receiver) = watch::channel(Arc::new(units));
        let serving = serve(directory.path(), &clock, limits, receiver).await;
        Self {
            directory,
            clock,
            hand,
            limits,
            desired,
            tokens: AtomicU64::new(0),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            serving,
        }
    }

    /// The agent ends and starts again, on the same disk; no controller is there.
    pub(super) async fn restart(&mut self) {
        self.serving.time.keep();
        self.serving.server.abort();
        let desired = self.desired.subscribe();
        self.serving = serve(self.directory.path(), &self.clock, self.limits, desired).await;
    }

    /// Another order for one unit, as the journal would publish it.
    pub(super) fn order(&self, wanted: Wanted) {
        self.desired.send_modify(|desired| {
            Arc::make_mut(desired).insert(wanted.unit.clone(), wanted);
        });
    }

    pub(super) fn secret(&self, name: &str) -> String {
        let secrets = self.serving.platform.secrets(&unit(name)).unwrap();
        secrets.service_token().to_owned()
    }

    pub(super) fn license_key(&self, name: &str) -> String {
        let secrets = self.serving.platform.secrets(&unit(name)).unwrap();
        secrets.license_key().to_owned()
    }

    pub(super) fn claims(&self, name: &str) -> Value {
        let now = self.clock.now().0 / 1000;
        let tenant = tenant(name);
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        json!({"sub": format!("isp-{tenant}"), "type": "service", "service_type": "isp", "tenant_id": tenant,
            "permissions": ["license:validate"], "iat": now, "exp": now + 3600, "jti": format!("t-{number}")})
    }

    pub(super) fn token(&self, name: &str) -> String {
        sign(&self.claims(name), &self.secret(name))
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Vec<u8>>,
    ) -> reqwest::Response {
        let url = format!("{}{path}", self.serving.url);
        let mut request = self.client.request(method, url).bearer_auth(token);
        request = request.header("X-Tenant-ID", "somebody-else-00000000");
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body);
        }
        request.send().await.unwrap()
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let body = body.map(|body| body.to_string().into_bytes());
        let path = format!("{BASE}{path}");
        let response = self.send(method, &path, token, body).await;
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    pub(super) async fn post(&self, name: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, &self.token(name), Some(body))
            .await
    }

    pub(super) async fn get(&self, name: &str, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, &self.token(name), None).await
    }

    /// The answer to a well-formed validation.
    pub(super) async fn validate(&self, name: &str) -> Value {
        let body = validation(&self.license_key(name));
        let (status, answer) = self.post(name, "/license/validate", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// The reports that are on their way to the controllers.
    pub(super) fn reported(&self) -> Vec<Report> {
        recorded(&self.serving.chain)
    }
}

pub(super) fn sign(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

pub(super) fn validation(key: &str) -> Value {
    json!({"license_key": key, "isp_instance_id": "i-1", "version": "1.0"})
}

/// What an instance reports of its use; every call counts at another time.
pub(super) fn metrics(reported_at: u64, active: u64) -> Value {
    json!({"metrics": {"tenant_id": tenant("demo"), "reported_at": time_text(reported_at),
        "active_subscribers": active, "total_subscribers": active + 1, "new_subscribers_today": 2,
        "churned_subscribers_today": 3, "active_sessions": 4, "sessions_today": 5,
        "total_data_usage_mb": 6.5, "active_nas_devices": 7, "active_olts": 8, "active_onts": 9}})
}

pub(super) fn health(reported_at: u64, status: &str) -> Value {
    json!({"tenant_id": tenant("demo"), "reported_at": time_text(reported_at), "status": status,
        "api_status": "healthy", "radius_status": "healthy", "database_status": "healthy",
        "redis_status": "healthy", "cpu_usage_percent": 12.345, "memory_usage_percent": 40,
        "disk_usage_percent": 0.0, "app_version": "1.0", "config_version": "old"})
}

pub(super) fn event(id: &str, kind: &str) -> Value {
    json!({"event_id": id, "event_type": kind, "tenant_id": tenant("demo"),
        "occurred_at": "2025-01-01T00:00:00Z", "payload": {}})
}

/// A time so many seconds after 2025 began.
fn time_text(second: u64) -> String {
    format!("2025-01-01T00:{:02}:{:02}Z", second / 60 % 60, second % 60)
}
