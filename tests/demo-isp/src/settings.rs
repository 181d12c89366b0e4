//! What the program is started with. It refuses an incomplete environment by the variable's name.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context as _, Result, anyhow};

use crate::mode::{Crash, Mode};

/// The environment, checked. Its secrets are not printable.
pub(crate) struct Settings {
    pub(crate) platform_url: String,
    pub(crate) tenant_id: String,
    pub(crate) license_key: String,
    pub(crate) service_token: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) version: String,
    /// The trace that this start belongs to.
    pub(crate) trace_id: Option<String>,
    pub(crate) config_period: Duration,
    pub(crate) metrics_period: Duration,
    pub(crate) health_period: Duration,
    pub(crate) mode: Mode,
    pub(crate) crash: Crash,
}

impl Settings {
    pub(crate) fn from_environment() -> Result<Self> {
        Ok(Self {
            platform_url: needed("PLATFORM_URL")?.trim_end_matches('/').to_owned(),
            tenant_id: needed("TENANT_ID")?,
            license_key: needed("ISP_LICENSE_KEY")?,
            service_token: needed("PLATFORM_SERVICE_TOKEN")?,
            host: or("HOST", "127.0.0.1".to_owned())?,
            port: needed("PORT")?
                .parse()
                .context("PORT is not a port number")?,
            version: or("APP_VERSION", env!("CARGO_PKG_VERSION").to_owned())?,
            trace_id: given("TRACEPARENT").and_then(|text| trace_id(&text)),
            config_period: Duration::from_millis(or("DEMO_CONFIG_MS", 300_000)?),
            metrics_period: Duration::from_millis(or("DEMO_METRICS_MS", 60_000)?),
            health_period: Duration::from_millis(or("DEMO_HEALTH_MS", 30_000)?),
            mode: or("DEMO_MODE", ModeText(Mode::Healthy))?.0,
            crash: Crash {
                exit_code: or("DEMO_EXIT_CODE", 3)?,
                write_bytes: or("DEMO_WRITE_BYTES", 0)?,
            },
        })
    }
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The trace of a sampled `traceparent`.
fn trace_id(traceparent: &str) -> Option<String> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    match parts[..] {
        ["00", trace_id, _, "01"] => Some(trace_id.to_owned()),
        _ => None,
    }
}

fn needed(name: &str) -> Result<String> {
    given(name).ok_or_else(|| anyhow!("{name} is not set"))
}

fn or<T: FromStr<Err: fmt::Display>>(name: &str, default: T) -> Result<T> {
    given(name).map_or(Ok(default), |text| {
        text.parse()
            .map_err(|error| anyhow!("{name} is {text:?}: {error}"))
    })
}

struct ModeText(Mode);

impl FromStr for ModeText {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(serde_json::Value::from(text)).map(Self)
    }
}
