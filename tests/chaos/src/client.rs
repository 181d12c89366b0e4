//! A client that retries as documented (docs/errors): each controller in turn, with the same idempotency key, a pause
//! between the rounds that doubles, and a controller that names a `Retry-After` is left alone for so long.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use reqwest::{Method, header};
use serde_json::Value;
use tokio::time::Instant;

/// How long one controller may take for one answer.
const ANSWER: Duration = Duration::from_secs(6);
/// Pause between two rounds, doubled up to the maximum.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));
/// Longest pause that a controller can ask for.
const RETRY_AFTER_MAX_S: u64 = 5;
/// Attempts that are told.
const ATTEMPTS_TOLD: usize = 12;

/// A client with one token; clones share its connections.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    servers: Arc<[String]>,
    token: Arc<str>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    /// Makes a repeated change happen once.
    pub(crate) key: Option<String>,
    pub(crate) if_match: Option<String>,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    /// The id under which the audit knows the request.
    pub(crate) request: Option<String>,
    pub(crate) body: Value,
    /// What was heard before it, and when.
    pub(crate) attempts: Vec<String>,
    retry_after: Option<Duration>,
}

impl Request {
    /// A read.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            key: None,
            if_match: None,
        }
    }

    /// A change under a key.
    pub(crate) fn change(
        method: Method,
        path: impl Into<String>,
        body: Value,
        key: String,
    ) -> Self {
        Self {
            method,
            path: path.into(),
            body: Some(body),
            key: Some(key),
            if_match: None,
        }
    }
}

impl Client {
    /// A client of these controllers.
    pub(crate) fn new(servers: Vec<String>, token: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER)
            // The controllers' certificates are made for the run.
            .tls_danger_accept_invalid_certs(true)
            .build()?;
        Ok(Self {
            http,
            servers: servers.into(),
            token: token.into(),
        })
    }

    /// The same client, of one controller only.
    pub(crate) fn of(&self, server: usize) -> Self {
        Self {
            servers: [self.servers[server].clone()].into(),
            ..self.clone()
        }
    }

    /// A client of another controller, with the same token.
    pub(crate) fn at(&self, server: String) -> Self {
        Self {
            servers: [server].into(),
            ..self.clone()
        }
    }

    /// How many controllers it knows.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Asks one controller once.
    ///
    /// # Errors
    /// When no whole answer comes: whether something happened is unknown.
    pub(crate) async fn ask_once(&self, server: usize, request: &Request) -> Result<Reply> {
        let url = format!("{}{}", self.servers[server], request.path);
        let mut asked = self.http.request(request.method.clone(), url);
        asked = asked.bearer_auth(&self.token);
        if let Some(key) = &request.key {
            asked = asked.header("Idempotency-Key", key);
        }
        if let Some(etag) = &request.if_match {
            asked = asked.header(header::IF_MATCH, etag);
        }
        if let Some(body) = &request.body {
            asked = asked.json(body);
        }
        let response = asked.send().await?;
        let text = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let (etag, request) = (text("etag"), text("x-request-id"));
        let seconds = text("retry-after").and_then(|value| value.parse::<u64>().ok());
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        Ok(Reply {
            status,
            etag,
            request,
            attempts: Vec::new(),
            retry_after: seconds.map(|one| Duration::from_secs(one.min(RETRY_AFTER_MAX_S))),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    /// Asks until there is an answer that stands, beginning with this controller; `None` when there is none in time, and
    /// what happened is unknown.
    pub(crate) async fn ask(
        &self,
        first: usize,
        request: &Request,
        within: Duration,
    ) -> Option<Reply> {
        let asking = async {
            let mut pause = PAUSE.0;
            let mut not_before = vec![Instant::now(); self.servers.len()];
            let (begun, mut attempts) = (Instant::now(), Vec::new());
            loop {
                for turn in 0..self.servers.len() {
                    let server = (first + turn) % self.servers.len();
                    if not_before[server] > Instant::now() {
                        continue;
                    }
                    let asked = begun.elapsed().as_millis();
                    let heard = match self.ask_once(server, request).await {
                        Ok(mut reply) if is_final(reply.status) => {
                            reply.attempts = attempts;
                            return reply;
                        }
                        Ok(reply) => {
                            let rest = reply.retry_after.unwrap_or_default();
                            not_before[server] = Instant::now() + rest;
                            format!("{} {}", reply.status, reply.body["code"])
                        }
                        Err(_) => "no answer".to_owned(),
                    };
                    let told = begun.elapsed().as_millis();
                    let name = server + 1;
                    attempts.push(format!("{asked}-{told} ms: controller {name}: {heard}"));
                    attempts.truncate(ATTEMPTS_TOLD);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        };
        tokio::time::timeout(within, asking).await.ok()
    }

    /// Reads something from whoever answers.
    ///
    /// # Errors
    /// When nobody does in time, or with anything but 200.
    pub(crate) async fn read(&self, path: &str, within: Duration) -> Result<Value> {
        let reply = self.ask(0, &Request::get(path), within).await;
        let reply = reply.with_context(|| format!("GET {path}: no answer within {within:?}"))?;
        anyhow::ensure!(
            reply.status == 200,
            "GET {path}: {} {}",
            reply.status,
            reply.body
        );
        Ok(reply.body)
    }
}

/// Whether a status is an answer, and not a word about the controller that gave it.
fn is_final(status: u16) -> bool {
    !matches!(status, 408 | 425 | 429 | 502..=504)
}
