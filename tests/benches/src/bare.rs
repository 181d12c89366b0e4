//! The peer of the API: plain axum with nothing behind it. It answers prepared bodies of the same size, and reads the
//! JSON of a create. It checks no token, keeps nothing, asks nobody: what is between it and the API is what the API does.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Serves until it is ended, on a port that it tells in its first line.
pub(crate) async fn serve(show: &Path, list: &Path) -> Result<()> {
    let read = |path: &Path| -> Result<Bytes> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(bytes.into())
    };
    let (show, list) = (read(show)?, read(list)?);
    let created = show.clone();
    let router = Router::new()
        .route(
            "/show",
            get(async move || json(StatusCode::OK, show.clone())),
        )
        .route(
            "/list",
            get(async move || json(StatusCode::OK, list.clone())),
        )
        .route(
            "/create",
            post(async move |Json(_): Json<Value>| json(StatusCode::CREATED, created.clone())),
        );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    axum::serve(listener, router).await?;
    Ok(())
}

fn json(status: StatusCode, body: Bytes) -> impl IntoResponse {
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

/// The peer as a process of its own; it ends with this value.
#[derive(Debug)]
pub(crate) struct Bare {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _child: Child,
}

impl Bare {
    /// Starts it.
    pub(crate) async fn start(show: &Path, list: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bare")
            .arg("--show")
            .arg(show)
            .arg("--list")
            .arg(list)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let mut line = String::new();
        let mut lines = BufReader::new(output);
        tokio::time::timeout(START_WITHIN, lines.read_line(&mut line))
            .await
            .context("the bare handler does not start")??;
        Ok(Self {
            address: line
                .trim()
                .parse()
                .context("the bare handler tells no address")?,
            _child: child,
        })
    }
}
