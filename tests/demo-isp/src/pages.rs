//! What the program serves: health, a home page, and the control endpoint that makes it misbehave.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    Json, Router,
    extract::State,
    response::Html,
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    mode::{Control, Crash, Mode, misbehave},
    output::say,
    settings::Settings,
};

/// The running instance, shared by its pages and its reports.
#[derive(Clone)]
pub(crate) struct Instance {
    settings: Arc<Settings>,
    tenant_name: Arc<str>,
    now: Arc<Mutex<Now>>,
}

struct Now {
    mode: Mode,
    delay_ms: u64,
    config_version: Option<String>,
}

impl Instance {
    pub(crate) fn new(settings: Arc<Settings>, tenant_name: String) -> Self {
        let now = Now {
            mode: settings.mode,
            delay_ms: 2_000,
            config_version: None,
        };
        Self {
            settings,
            tenant_name: tenant_name.into(),
            now: Arc::new(Mutex::new(now)),
        }
    }

    pub(crate) fn config_version(&self) -> Option<String> {
        self.now().config_version.clone()
    }

    pub(crate) fn configure(&self, version: String) {
        self.now().config_version = Some(version);
    }

    async fn misbehave(&self) -> Mode {
        let (mode, delay_ms) = {
            let now = self.now();
            (now.mode, now.delay_ms)
        };
        misbehave(mode, delay_ms).await;
        mode
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn router(instance: Instance) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/control", post(control))
        .with_state(instance)
}

async fn health(State(instance): State<Instance>) -> Json<Value> {
    instance.misbehave().await;
    let version = &instance.settings.version;
    Json(json!({"status": "healthy", "service": "isp", "version": version}))
}

async fn live(State(instance): State<Instance>) -> Json<Value> {
    instance.misbehave().await;
    let version = &instance.settings.version;
    Json(json!({"status": "alive", "service": "isp", "version": version}))
}

async fn ready(State(instance): State<Instance>) -> Json<Value> {
    let well = instance.misbehave().await != Mode::Sick;
    Json(json!({
        "status": if well { "ready" } else { "not ready" },
        "healthy": well,
        "services": [{
            "name": "subscribers",
            "status": if well { "healthy" } else { "unhealthy" },
            "message": if well { "" } else { "told to be sick" },
            "required": true,
        }],
    }))
}

async fn home(State(instance): State<Instance>) -> Html<String> {
    instance.misbehave().await;
    let config = instance.config_version();
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title>\
         <h1>{name}</h1><p>Tenant {tenant}, version {version}, configuration {config}, process {pid}.</p></html>\n",
        name = escape(&instance.tenant_name),
        tenant = escape(&instance.settings.tenant_id),
        version = escape(&instance.settings.version),
        config = escape(config.as_deref().unwrap_or("none yet")),
        pid = std::process::id(),
    ))
}

async fn control(State(instance): State<Instance>, Json(order): Json<Control>) -> Json<Value> {
    say(&format!("demo-isp: told to be {:?}", order.mode));
    let crash = Crash {
        exit_code: order.exit_code.unwrap_or(instance.settings.crash.exit_code),
        write_bytes: order.write_bytes,
    };
    if matches!(order.mode, Mode::Crash | Mode::CrashLoop) {
        crash.happen();
    }
    crash.write();
    let mut now = instance.now();
    now.mode = order.mode;
    now.delay_ms = order.delay_ms;
    Json(json!({"mode": order.mode, "pid": std::process::id()}))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
