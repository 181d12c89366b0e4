//! The program's calls to its platform, as the contract lists them. Only the licence at the start is decisive:
//! every later failure is said and tolerated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{output::say, pages::Instance, settings::Settings};

const TOKEN_LIFETIME_S: u64 = 3_600;
/// Calls that belong to the start, and so to its trace: the licence and the first configuration.
const START_CALLS: u64 = 2;

/// A client of the platform's API.
pub(crate) struct Platform {
    settings: Arc<Settings>,
    client: Client,
    key: EncodingKey,
    tokens: AtomicU64,
}

/// The answer to a licence validation.
#[derive(Debug, Deserialize)]
pub(crate) struct License {
    pub(crate) valid: bool,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    license_info: Option<Value>,
}

impl License {
    /// The licensee's name, as the platform writes it.
    pub(crate) fn tenant_name(&self) -> String {
        let name = self.license_info.as_ref().map(|info| &info["tenant_name"]);
        name.and_then(Value::as_str)
            .unwrap_or("an ISP without a name")
            .to_owned()
    }
}

impl Platform {
    pub(crate) fn new(settings: Arc<Settings>) -> Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            // The agent is on the loopback, in clear; this machine may have no certificates of authorities.
            .tls_certs_only([])
            .build()
            .context("the HTTP client cannot be made")?;
        Ok(Self {
            key: EncodingKey::from_secret(settings.service_token.as_bytes()),
            settings,
            client,
            tokens: AtomicU64::new(0),
        })
    }

    pub(crate) async fn validate_license(&self) -> Result<License> {
        let request = json!({
            "license_key": self.settings.license_key,
            "isp_instance_id": format!("isp-{}-{}", self.settings.tenant_id, std::process::id()),
            "version": self.settings.version,
        });
        let answer = self.post("/license/validate", &request).await?;
        serde_json::from_value(answer).context("the platform's answer about the licence is unclear")
    }

    /// Configuration, metrics and health, each in its own rhythm, for ever. The configuration comes first, at once.
    pub(crate) async fn keep_reporting(self, instance: Instance) {
        let ticker = |period| {
            let mut ticker = interval(period);
            ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticker
        };
        let mut config = ticker(self.settings.config_period);
        let mut metrics = ticker(self.settings.metrics_period);
        let mut health = ticker(self.settings.health_period);
        loop {
            let (what, done) = tokio::select! {
                biased;
                _ = config.tick() => ("configuration", self.sync_config(&instance).await),
                _ = health.tick() => ("health", self.report_health(&instance).await),
                _ = metrics.tick() => ("metrics", self.report_metrics().await),
            };
            if let Err(error) = done {
                say(&format!(
                    "demo-isp: {what} failed, going on without: {error:#}"
                ));
            }
        }
    }

    async fn sync_config(&self, instance: &Instance) -> Result<()> {
        let path = format!("/config/{}/sync", self.settings.tenant_id);
        let known = json!({"current_version": instance.config_version()});
        let answer = self.post(&path, &known).await?;
        if answer["needs_update"] == json!(true) && answer["config"].is_object() {
            let version = answer["config"]["config_version"].as_str().unwrap_or("");
            say(&format!("demo-isp: configuration {version} is in force"));
            instance.configure(version.to_owned());
        }
        Ok(())
    }

    async fn report_metrics(&self) -> Result<()> {
        let metrics = json!({"metrics": {
            "tenant_id": self.settings.tenant_id, "reported_at": now_text(),
            "active_subscribers": 0, "total_subscribers": 0, "new_subscribers_today": 0,
            "churned_subscribers_today": 0, "active_sessions": 0, "sessions_today": 0,
            "total_data_usage_mb": 0, "active_nas_devices": 0, "active_olts": 0, "active_onts": 0,
        }});
        self.post("/metrics/report", &metrics).await.map(|_| ())
    }

    async fn report_health(&self, instance: &Instance) -> Result<()> {
        let health = json!({
            "tenant_id": self.settings.tenant_id, "reported_at": now_text(), "status": "healthy",
            "api_status": "healthy", "radius_status": "healthy", "database_status": "healthy",
            "redis_status": "healthy", "cpu_usage_percent": 0.0, "memory_usage_percent": 0.0,
            "disk_usage_percent": 0.0, "app_version": self.settings.version,
            "config_version": instance.config_version(),
        });
        self.post("/metrics/health", &health).await.map(|_| ())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!(
            "{}/api/platform/v1/service-api{path}",
            self.settings.platform_url
        );
        let answer = self
            .signed(self.client.post(&url).json(body))?
            .send()
            .await
            .with_context(|| format!("the platform does not answer at {url}"))?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the platform answers {status} at {url}");
        }
        answer
            .json()
            .await
            .context("the platform's answer is no JSON")
    }

    fn signed(&self, request: RequestBuilder) -> Result<RequestBuilder> {
        let issued = since_epoch();
        let tenant = &self.settings.tenant_id;
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let claims = json!({
            "sub": format!("isp-{tenant}"), "type": "service", "service_type": "isp",
            "tenant_id": tenant,
            "permissions": ["license:validate", "config:read", "metrics:write", "events:write"],
            "iat": issued.as_secs(), "exp": issued.as_secs() + TOKEN_LIFETIME_S,
            "jti": format!("{}-{}-{number}", std::process::id(), issued.as_nanos()),
        });
        let token = jsonwebtoken::encode(&Header::default(), &claims, &self.key)
            .context("the service token cannot be signed")?;
        let request = match &self.settings.trace_id {
            Some(trace_id) if number < START_CALLS => {
                let span = format!("{:08x}{:08x}", std::process::id(), number + 1);
                request.header("traceparent", format!("00-{trace_id}-{span}-01"))
            }
            _ => request,
        };
        Ok(request
            .bearer_auth(token)
            .header("X-ISP-Version", &self.settings.version)
            .header("X-Tenant-ID", tenant))
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a program of its own, with no simulation above it"
)]
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The time as RFC 3339 in UTC, by the civil-from-days algorithm.
fn now_text() -> String {
    let now = since_epoch();
    let (days, second) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        now.subsec_millis()
    )
}
