//! The CLI's side of the HTTP API: tries every controller in turn until one answers or the deadline is over, always
//! with the same `Idempotency-Key`, so that a retry never does a thing twice. It knows no proxies and follows no
//! redirects, and reads no answer that is too long.

mod address;
mod events;
mod reading;
mod rounds;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod voice;

use std::{
    path::PathBuf,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use dotmac_runtime::entropy::Entropy;
use reqwest::{Method, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use self::{
    reading::{Again, Attempt, innermost, read},
    rounds::Rounds,
};
use super::failure::Failure;

pub(crate) use self::{
    address::{check_server, encode},
    events::{Entity, Follow, Told},
    stream::Lines,
    voice::Voice,
};

/// Pages of a list that may follow each other without an item in them.
const EMPTY_PAGES_MAX: usize = 100;

/// How to reach a cluster.
pub(crate) struct Access {
    /// Base addresses such as `http://127.0.0.1:8000`, in the order to try them.
    pub(crate) servers: Vec<String>,
    /// The bearer token.
    pub(crate) token: String,
    /// Certificates of the authorities to trust; without it the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// How long to go on trying, in milliseconds.
    pub(crate) deadline_ms: u64,
    /// How long to wait for one controller's answer, in milliseconds.
    pub(crate) attempt_ms: u64,
    /// Says what goes on; without it the client is silent.
    pub(crate) voice: Option<Voice>,
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
    /// The version that must still be the one there is, as its `ETag` said; without it any is changed.
    pub(crate) if_match: Option<&'a str>,
}

/// What the API answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The body; null when it is empty.
    pub(crate) body: Value,
    /// The version of the entity in it, if it says one.
    pub(crate) etag: Option<String>,
}

/// What one controller says to a question that needs no other one.
#[derive(Debug)]
pub(crate) struct Look {
    /// HTTP status.
    pub(crate) status: u16,
    /// Its clock, as the header `Date` tells it.
    pub(crate) date: Option<String>,
    /// The body; null when it is no JSON.
    pub(crate) body: Value,
    /// How long it took.
    pub(crate) took_ms: u64,
}

impl Client {
    /// A client; connects when it is first used.
    ///
    /// # Errors
    /// When an address may not get a token, or the certificates to trust cannot be read.
    pub(crate) fn new(access: Access, entropy: Entropy) -> Result<Self, Failure> {
        for server in &access.servers {
            check_server(server)?;
        }
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(access.attempt_ms.min(1_000)))
            .user_agent(concat!("dotmac/", env!("CARGO_PKG_VERSION")));
        let http = address::trusting(builder, &access.servers, access.ca_file.as_deref())?
            .build()
            .map_err(|cause| {
                let cause = innermost(&cause);
                Failure::Failed(format!(
                    "the HTTP client cannot start: {cause}; --ca-file names certificates to trust"
                ))
            })?;
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
        serde_json::from_value(self.read(path).await?.body).map_err(Failure::answer)
    }

    /// Reads something that has an id (or name and version), with the version it has.
    pub(crate) async fn entity(&self, path: &str) -> Result<Answer, Failure> {
        let answer = self.read(path).await?;
        match is_entity(&answer.body) {
            true => Ok(answer),
            false => Err(Failure::foreign(path, "it has no id")),
        }
    }

    /// Like [`Client::entity`], without the version.
    pub(crate) async fn thing(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.entity(path).await?.body)
    }

    async fn read(&self, path: &str) -> Result<Answer, Failure> {
        self.answer(&Change {
            method: Method::GET,
            path,
            body: None,
            key: "",
            if_match: None,
        })
        .await
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
        let mut items: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        let mut empty_pages = 0;
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let mut page: Value = match &cursor {
                None => self.get(path).await?,
                Some(cursor) => {
                    let page = format!("{path}{separator}{name}={}", encode(cursor));
                    self.get(&page).await?
                }
            };
            let found = page.get_mut("items").map(Value::take);
            let Some(Value::Array(found)) = found else {
                return Err(Failure::foreign(path, "it is no list"));
            };
            empty_pages = if found.is_empty() { empty_pages + 1 } else { 0 };
            if empty_pages > EMPTY_PAGES_MAX {
                return Err(Failure::answer("the list does not end"));
            }
            items.extend(found);
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
        let change = Change {
            method,
            path,
            body,
            key: &key,
            if_match: None,
        };
        Ok(self.answer(&change).await?.body)
    }

    /// Asks one controller after the other until one answers or the deadline is over.
    ///
    /// # Errors
    /// When a controller refuses, none can serve within the deadline, or the answer cannot be read.
    pub(crate) async fn answer(&self, change: &Change<'_>) -> Result<Answer, Failure> {
        address::check_path(change.path)?;
        let voice = self.access.voice.as_ref();
        let mut rounds = Rounds::new(&self.access.servers, self.access.deadline_ms, voice);
        loop {
            for index in self.order() {
                if !rounds.may_ask(index) {
                    continue;
                }
                self.tell(change.method != Method::GET, index);
                match self.patiently(index, change).await {
                    Attempt::Answered(answer) if !answer.body.is_object() => {
                        return Err(Failure::foreign(change.path, "it is no JSON object"));
                    }
                    Attempt::Answered(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Attempt::Refused(failure) => return Err(failure.at(change.path)),
                    Attempt::Again(again) => rounds.note(index, again),
                }
            }
            rounds.next().await?;
        }
    }

    /// Whether the controller at this place says that it is ready; no token is shown.
    pub(crate) async fn is_ready(&self, index: usize) -> Result<bool, String> {
        let look = self.look(index, "/health/ready").await?;
        Ok((200..300).contains(&look.status))
    }

    /// Asks only the controller at this place, once, within a second and without a token.
    pub(crate) async fn look(&self, index: usize, path: &str) -> Result<Look, String> {
        let started = Instant::now();
        let url = format!("{}{path}", self.access.servers[index]);
        let asked = self
            .http
            .get(url)
            .timeout(Duration::from_millis(1_000))
            .send()
            .await;
        let response = asked.map_err(|cause| innermost(&cause))?;
        let date = response.headers().get(header::DATE);
        let date = date.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let (status, took_ms) = (response.status().as_u16(), elapsed_ms(started));
        let body = reading::body(response).await.unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Look {
            status,
            date,
            body,
            took_ms,
        })
    }

    /// Places of the controllers, the one that answered last first.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let servers = self.access.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        (0..servers).map(move |offset| (first + offset) % servers)
    }

    fn tell(&self, is_change: bool, index: usize) {
        if let Some(voice) = &self.access.voice {
            voice.asking(is_change, &self.access.servers[index]);
        }
    }

    /// One attempt; where somebody looks, he is told when it takes long.
    async fn patiently(&self, index: usize, change: &Change<'_>) -> Attempt {
        let mut attempt = pin!(self.attempt(index, change));
        if let Some(voice) = &self.access.voice {
            let silence = Duration::from_millis(voice::SILENCE_MS);
            match tokio::time::timeout(silence, &mut attempt).await {
                Ok(attempt) => return attempt,
                Err(_) => voice.waiting(
                    voice::SILENCE_MS,
                    &format!("{} has not answered yet", self.access.servers[index]),
                ),
            }
        }
        attempt.await
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
        if let Some(version) = change.if_match {
            request = request.header(header::IF_MATCH, version);
        }
        if let Some(body) = change.body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(cause) => Attempt::Again(Again::unanswered(innermost(&cause))),
        }
    }
}

/// Whether this is a thing of the API: it has an id, or a release's name and version.
pub(crate) fn is_entity(body: &Value) -> bool {
    let has = |name: &str| body[name].as_str().is_some_and(|text| !text.is_empty());
    has("id") || body["id"].is_u64() || (has("name") && has("version"))
}

/// Milliseconds since then.
pub(crate) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
