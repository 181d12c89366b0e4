//! How an agent is, for whoever looks at its host: `/health/live`, `/health/ready` and `/metrics` on the loopback, without
//! a token. It names no tenant, no unit and no controller, because instances on the host can ask it, too.
//!
//! An agent that is cut off from its controllers is ready all the same (law 5); the answer says that it is cut off.

use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use dotmac_runtime::{metrics::Format, supervise};
use serde_json::json;
use tokio::task::{AbortHandle, JoinHandle};

use crate::{
    app::VERSION,
    instance_api::{self, Bound, LimitedListener, Proof},
    link::Link,
    metrics::{Listener, Metrics},
};

/// Connections open at the same time; above it the one that is least worth keeping makes room.
const CONNECTIONS_MAX: usize = 128;
/// The file whose writing shows that the disk takes what journal and chain write.
const PROBE_FILE: &str = "status.probe";

/// What a running agent is judged by.
#[allow(missing_debug_implementations, reason = "it reaches secrets")]
pub struct Parts {
    /// Where journal and chain lie.
    pub data_dir: PathBuf,
    /// The link, and with it the records.
    pub link: Arc<Link>,
    /// The task that keeps units.
    pub reconciler: AbortHandle,
    /// The task that serves instances.
    pub instance_api: AbortHandle,
}

/// Answers from the start of the process on; ready once it has [`Parts`].
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "it reaches secrets")]
pub struct Status {
    metrics: Metrics,
    parts: Arc<OnceLock<Parts>>,
}

/// One thing that must be so.
struct Check {
    name: &'static str,
    is_ok: bool,
    /// Why it is not ready if it is not so.
    reason: &'static str,
}

impl Status {
    /// Of an agent that has not begun its work. Its metrics tell of its readiness from now on.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let parts: Arc<OnceLock<Parts>> = Arc::default();
        let judged = Arc::clone(&parts);
        metrics.judge(move || {
            let checks = checks(judged.get());
            checks.iter().map(|one| (one.name, one.is_ok)).collect()
        });
        Self { metrics, parts }
    }

    /// It works from now on. Only the first time counts.
    pub fn begin(&self, parts: Parts) {
        // Nobody calls it twice; the parts of the first time would stay.
        let _ = self.parts.set(parts);
    }

    /// Answers on what was bound, until the task is aborted.
    #[must_use]
    pub fn serve(&self, bound: Bound) -> JoinHandle<()> {
        let router = Router::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone());
        let closed = self.metrics.closed_for_room(Listener::Status);
        supervise::spawn("status", async move {
            LimitedListener::new(
                bound.into_listener(),
                CONNECTIONS_MAX,
                Proof::Answer,
                closed,
            )
            .serve(router)
            .await;
        })
    }
}

/// Binds the configured address; port 0 becomes the one of the last start, which `port_file` keeps.
///
/// # Errors
/// When nothing can be bound, or the chosen port cannot be kept.
pub async fn bind(
    address: std::net::SocketAddr,
    port_file: &Path,
) -> Result<Bound, instance_api::BindError> {
    instance_api::bind_for("status.listen", address, port_file).await
}

/// What must be so, and whether it is; nothing else is judged before the work has begun.
fn checks(parts: Option<&Parts>) -> Vec<Check> {
    let check = |name, is_ok, reason| Check {
        name,
        is_ok,
        reason,
    };
    let Some(parts) = parts else {
        return vec![check("enrolled", false, "it has not begun its work")];
    };
    let is_writable = is_writable(&parts.data_dir);
    let is_whole = parts.link.chain().failure().borrow().is_none();
    vec![
        check("enrolled", true, ""),
        check("journal", is_writable, "its journal cannot be written"),
        check(
            "chain",
            is_writable && is_whole,
            "its record chain cannot be written",
        ),
        check(
            "reconciler",
            !parts.reconciler.is_finished(),
            "its reconciler has ended",
        ),
        check(
            "instance_api",
            !parts.instance_api.is_finished(),
            "instances are not served",
        ),
    ]
}

async fn live() -> Response {
    answer(
        StatusCode::OK,
        json!({"status": "alive", "service": "agent", "version": VERSION}),
    )
}

async fn ready(State(status): State<Status>) -> Response {
    let of = status.clone();
    // Waits for the disk.
    let Ok(checks) = tokio::task::spawn_blocking(move || checks(of.parts.get())).await else {
        let body = json!({"status": "not ready", "reason": "it cannot look", "checks": []});
        return answer(StatusCode::SERVICE_UNAVAILABLE, body);
    };
    let reason = checks.iter().find(|check| !check.is_ok);
    let reason = reason.map(|check| check.reason);
    let (code, word) = match reason {
        None => (StatusCode::OK, "ready"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let parts = status.parts.get();
    let shown: Vec<_> = checks
        .iter()
        .map(|check| json!({"name": check.name, "ok": check.is_ok}))
        .collect();
    let body = json!({
        "status": word, "reason": reason, "checks": shown,
        "connected": parts.is_some_and(|parts| parts.link.is_connected()),
        "takes_new_work": parts.is_some_and(|parts| parts.link.chain().has_room()),
    });
    answer(code, body)
}

async fn metrics(State(status): State<Status>, headers: HeaderMap) -> Response {
    let accepted: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let format = Format::preferred(&accepted.join(","));
    let rendering = tokio::task::spawn_blocking(move || status.metrics.render(format));
    match rendering.await {
        Ok(text) => {
            let content = HeaderValue::from_static(format.content_type());
            ([(header::CONTENT_TYPE, content)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn answer(status: StatusCode, body: serde_json::Value) -> Response {
    let fresh = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, fresh, Json(body)).into_response()
}

fn is_writable(data_dir: &Path) -> bool {
    let write = || -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(data_dir.join(PROBE_FILE))?;
        file.write_all(b"ok\n")
    };
    write().is_ok()
}
