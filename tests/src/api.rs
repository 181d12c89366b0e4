//! The operator API as a program would call it: with a token, through any controller. It retries reads only.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use reqwest::Method;
use serde_json::Value;

/// How long one controller may take for an answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a stream is read at most.
const STREAM_PATIENCE: Duration = Duration::from_secs(180);
/// Where deployments live.
pub const DEPLOYMENTS: &str = "/api/v1/tenant-orchestration/deployments";

/// A client with one token.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "it holds a token")]
pub struct Api {
    http: reqwest::Client,
    servers: Vec<String>,
    token: Option<String>,
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body; null when there is none or it is not JSON.
    pub body: Value,
    /// What was asked, for messages.
    pub asked: String,
}

impl Api {
    /// A client of the controllers on these ports.
    ///
    /// # Errors
    /// When HTTP cannot be spoken at all.
    pub fn new(port_base: u16, token: Option<String>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        let servers = (0..3)
            .map(|node| format!("http://127.0.0.1:{}", port_base + node))
            .collect();
        Ok(Self {
            http,
            servers,
            token,
        })
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    /// The same client, of one controller only (1, 2 or 3).
    #[must_use]
    pub fn of_node(&self, node: usize) -> Self {
        self.of_nodes(&[node])
    }

    /// The same client, of these controllers only.
    #[must_use]
    pub fn of_nodes(&self, nodes: &[usize]) -> Self {
        let servers = nodes
            .iter()
            .map(|node| self.servers[node - 1].clone())
            .collect();
        Self {
            servers,
            ..self.clone()
        }
    }

    /// Asks the first controller that answers at all. A change with a `key` may be asked again.
    ///
    /// # Errors
    /// When none answers.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Answer> {
        let mut last = anyhow!("there is no controller");
        for server in &self.servers {
            match self.ask_one(server, method.clone(), path, body, key).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Opens a stream of the first controller, which goes on for as long as it is read.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn open(&self, path: &str) -> Result<reqwest::Response> {
        let server = self.servers.first().context("there is no controller")?;
        let address = format!("{server}{path}");
        let answer = self.open_at(&address).await?;
        // Another controller has the agent: the token goes along, which no client does of its own accord.
        match answer.headers().get(reqwest::header::LOCATION) {
            Some(location) if answer.status().is_redirection() => {
                self.open_at(location.to_str()?).await
            }
            _ => Ok(answer),
        }
    }

    async fn open_at(&self, address: &str) -> Result<reqwest::Response> {
        let mut request = self.http.get(address).timeout(STREAM_PATIENCE);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request.send().await?)
    }

    async fn ask_one(
        &self,
        server: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Answer> {
        let asked = format!("{method} {server}{path}");
        let mut request = self.http.request(method, format!("{server}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::of(request.send().await.with_context(|| asked.clone())?, asked).await
    }

    /// Reads something.
    ///
    /// # Errors
    /// When no controller answers, or the answer is no success.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, None, None).await?.ok(200)
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// When no controller answers.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask(Method::POST, path, Some(body), None).await
    }

    /// Sends a body byte by byte as it is written here, to the first controller.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
        let asked = format!("POST {}{path}", self.servers[0]);
        let request = self
            .http
            .post(format!("{}{path}", self.servers[0]))
            .header("Content-Type", "application/json")
            .body(body);
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        Answer::of(request.send().await.with_context(|| asked.clone())?, asked).await
    }

    /// All items of a list.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub async fn list(&self, path: &str, place: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut page = self.get(path).await?;
        loop {
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            let Some(cursor) = cursor_of(&page) else {
                return Ok(items);
            };
            let joint = if path.contains('?') { '&' } else { '?' };
            page = self.get(&format!("{path}{joint}{place}={cursor}")).await?;
        }
    }
}

/// Fetches a page of an instance, directly.
///
/// # Errors
/// When it does not answer in time, or with an error.
pub async fn fetch(url: &str) -> Result<reqwest::Response> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()?;
    Ok(client.get(url).send().await?.error_for_status()?)
}

fn cursor_of(page: &Value) -> Option<String> {
    match &page["next_cursor"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

impl Answer {
    async fn of(response: reqwest::Response, asked: String) -> Result<Self> {
        let status = response.status().as_u16();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
            .collect();
        let bytes = response.bytes().await.with_context(|| asked.clone())?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Self {
            status,
            headers,
            body,
            asked,
        })
    }

    /// The body, if the status is this one.
    ///
    /// # Errors
    /// With status and body.
    pub fn ok(self, status: u16) -> Result<Value> {
        ensure!(
            self.status == status,
            "{} answered {}, not {status}: {}",
            self.asked,
            self.status,
            self.body
        );
        Ok(self.body)
    }
}
