//! The CLI's side of the HTTP API: tries every controller in turn until one answers or the deadline is over, always
//! with the same `Idempotency-Key`, so that a retry never does a thing twice. It knows no proxies and follows no
//! redirects.

#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use dotmac_runtime::entropy::Entropy;
use reqwest::{Method, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::failure::{Failure, Problem};

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Milliseconds between two rounds through all controllers, doubled up to the maximum.
const ROUND_PAUSE_MS: (u64, u64) = (50, 800);

/// How to reach a cluster.
#[derive(Clone)]
pub(crate) struct Access {
    /// Base addresses such as `http://127.0.0.1:8000`, in the order to try them.
    pub(crate) servers: Vec<String>,
    /// The bearer token.
    pub(crate) token: String,
    /// How long to go on trying, in milliseconds.
    pub(crate) deadline_ms: u64,
    /// How long to wait for one controller's answer, in milliseconds.
    pub(crate) attempt_ms: u64,
}

/// A client of one cluster.
pub(crate) struct Client {
    http: reqwest::Client,
    access: Access,
    preferred: AtomicUsize,
    entropy: Entropy,
}

/// What a change asks for.
pub(crate) struct Change<'a> {
    /// The method.
    pub(crate) method: Method,
    /// Path below the server, with its query.
    pub(crate) path: &'a str,
    /// The body, if there is one.
    pub(crate) body: Option<&'a Value>,
    /// Makes a retry harmless; also after this client has given up.
    pub(crate) key: &'a str,
}

/// What became of one attempt.
enum Attempt {
    Answered(Value),
    Refused(Failure),
    /// Worth another try, perhaps elsewhere.
    Again(String),
}

impl Client {
    /// A client; connects when it is first used.
    ///
    /// # Errors
    /// When an address is not plain HTTP on the loopback.
    pub(crate) fn new(access: Access, entropy: Entropy) -> Result<Self, Failure> {
        for server in &access.servers {
            check_server(server)?;
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(access.attempt_ms.min(1_000)))
            .user_agent(concat!("dotmac/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|cause| Failure::Failed(format!("the HTTP client cannot start: {cause}")))?;
        let preferred = AtomicUsize::new(0);
        Ok(Self {
            http,
            access,
            preferred,
            entropy,
        })
    }

    /// Where the controllers are.
    pub(crate) fn servers(&self) -> &[String] {
        &self.access.servers
    }

    /// A new key for a change.
    pub(crate) fn key(&self) -> String {
        self.entropy.hex(16)
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let get = Change {
            method: Method::GET,
            path,
            body: None,
            key: "",
        };
        serde_json::from_value(self.ask(&get).await?).map_err(Failure::answer)
    }

    /// Reads every page of a list and gives the items, `items_max` at most.
    pub(crate) async fn list(&self, path: &str, items_max: usize) -> Result<Vec<Value>, Failure> {
        self.list_after(path, "cursor", items_max).await
    }

    /// Like [`Client::list`], where the place to go on from has this name.
    pub(crate) async fn list_after(
        &self,
        path: &str,
        name: &str,
        items_max: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page: Value = match &cursor {
                None => self.get(path).await?,
                Some(cursor) => {
                    let page = format!("{path}{separator}{name}={}", encode(cursor));
                    self.get(&page).await?
                }
            };
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            let next = match &page["next_cursor"] {
                Value::String(cursor) => Some(cursor.clone()),
                Value::Number(cursor) => Some(cursor.to_string()),
                _ => None,
            };
            if next.is_none() || next == cursor || items.len() >= items_max {
                items.truncate(items_max);
                return Ok(items);
            }
            cursor = next;
        }
    }

    /// Posts something under a new key.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.change(Method::POST, path, body).await
    }

    /// Changes something under a new key.
    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let key = self.key();
        self.ask(&Change {
            method,
            path,
            body,
            key: &key,
        })
        .await
    }

    /// Asks one controller after the other until one answers or the deadline is over.
    pub(crate) async fn ask(&self, change: &Change<'_>) -> Result<Value, Failure> {
        let started = Instant::now();
        let mut pause_ms = ROUND_PAUSE_MS.0;
        let servers = self.access.servers.len();
        let mut cause = String::from("no server is known");
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            for offset in 0..servers {
                let index = (first + offset) % servers;
                match self.attempt(index, change).await {
                    Attempt::Answered(value) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(value);
                    }
                    Attempt::Refused(failure) => return Err(failure),
                    Attempt::Again(why) => cause = why,
                }
                if elapsed_ms(started) >= self.access.deadline_ms {
                    break;
                }
            }
            let waited_ms = elapsed_ms(started);
            if servers == 0 || waited_ms + pause_ms >= self.access.deadline_ms {
                let servers = self.access.servers.join(", ");
                return Err(Failure::Unreachable {
                    servers,
                    waited_ms,
                    cause,
                });
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(ROUND_PAUSE_MS.1);
        }
    }

    /// Opens a stream of lines at the first controller that gives one. A controller that names another one is not
    /// followed there: that one is among ours and is asked in its turn. They may disagree for a moment after an agent
    /// moved, so it takes several rounds while one of them points elsewhere.
    pub(crate) async fn stream(&self, path: &str) -> Result<reqwest::Response, Failure> {
        let started = Instant::now();
        let mut last = String::from("no server is known");
        loop {
            let mut points_elsewhere = false;
            for server in &self.access.servers {
                let url = format!("{server}{path}");
                let asked = self.http.get(url).bearer_auth(&self.access.token).send();
                match asked.await {
                    Ok(response) if response.status().is_success() => return Ok(response),
                    Ok(response) if response.status().is_redirection() => points_elsewhere = true,
                    Ok(response) => match read(response).await {
                        Attempt::Refused(failure) => return Err(failure),
                        Attempt::Again(why) => last = why,
                        Attempt::Answered(_) => last = "an answer that is no stream".into(),
                    },
                    Err(cause) => last = innermost(&cause),
                }
            }
            let waited_ms = elapsed_ms(started);
            if !points_elsewhere || waited_ms >= self.access.deadline_ms {
                let servers = self.access.servers.join(", ");
                return Err(Failure::Unreachable {
                    servers,
                    waited_ms,
                    cause: last,
                });
            }
            tokio::time::sleep(Duration::from_millis(ROUND_PAUSE_MS.0)).await;
        }
    }

    /// Whether the controller at this place says that it is ready; no token is shown.
    pub(crate) async fn is_ready(&self, index: usize) -> Result<bool, String> {
        let url = format!("{}/health/ready", self.access.servers[index]);
        let asked = self
            .http
            .get(url)
            .timeout(Duration::from_millis(1_000))
            .send()
            .await;
        let response = asked.map_err(|cause| innermost(&cause))?;
        Ok(response.status().is_success())
    }

    async fn attempt(&self, index: usize, change: &Change<'_>) -> Attempt {
        let url = format!("{}{}", self.access.servers[index], change.path);
        let mut request = self
            .http
            .request(change.method.clone(), url)
            .timeout(Duration::from_millis(self.access.attempt_ms))
            .bearer_auth(&self.access.token);
        if change.method != Method::GET {
            request = request.header("idempotency-key", change.key);
        }
        if let Some(body) = change.body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(cause) => Attempt::Again(innermost(&cause)),
        }
    }
}

/// Milliseconds since then.
pub(crate) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A value as one segment or value of an address.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Tokens travel in clear over plain HTTP, so only to this machine.
fn check_server(server: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::Usage(format!("--server {server}: {why}")));
    let Ok(url) = reqwest::Url::parse(server) else {
        return wrong("not an address such as http://127.0.0.1:8000");
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "http" if loopback => Ok(()),
        "http" => wrong(
            "plain HTTP is for this machine only; forward the port (ssh -L 8000:127.0.0.1:8000 HOST)",
        ),
        _ => wrong(
            "only http:// on this machine is spoken; forward the port (ssh -L 8000:127.0.0.1:8000 HOST)",
        ),
    }
}

async fn read(response: reqwest::Response) -> Attempt {
    let status = response.status();
    let retry = matches!(status.as_u16(), 425 | 429 | 502..=504);
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    let body = match body(response).await {
        Ok(body) => body,
        Err(why) => return Attempt::Again(why),
    };
    if status.is_success() {
        if body.is_empty() {
            return Attempt::Answered(Value::Null);
        }
        return match serde_json::from_slice(&body) {
            Ok(value) => Attempt::Answered(value),
            Err(cause) => Attempt::Refused(Failure::answer(cause)),
        };
    }
    let mut problem: Problem = if is_json {
        serde_json::from_slice(&body).unwrap_or_default()
    } else {
        Problem::default()
    };
    problem.status = status.as_u16();
    if problem.title.is_empty() {
        problem.title = status.to_string();
    }
    if retry {
        return Attempt::Again(problem.to_string());
    }
    Attempt::Refused(Failure::of(problem))
}

async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(&chunk)
            }
            Ok(Some(_)) => return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")),
            Err(cause) => return Err(innermost(&cause)),
        }
    }
}

/// The cause at the bottom, which is the one that helps ("connection refused").
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
