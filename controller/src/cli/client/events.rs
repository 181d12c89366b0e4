//! Follows what changes, through whichever controller serves: when a stream ends, another one goes on, and only what
//! really differs from what was told before is told again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use serde_json::Value;

use super::{Client, Lines};
use crate::cli::{failure::Failure, view};

/// Where events are told.
const EVENTS: &str = "/api/v1/events";
/// How they are asked for.
const HEADERS: [(&str, &str); 1] = [("accept", "text/event-stream")];
/// Without a line for so long a stream is dead: it has a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(40);
/// Pause before another stream is opened.
const PAUSE: Duration = Duration::from_millis(100);
/// Entities remembered at most; beyond, some may be told again after a stream broke.
const KNOWN_MAX: usize = 200_000;

/// One thing that the followed stream tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// An entity as it is now.
    Is(Entity),
    /// An entity that is no more.
    Gone(Entity),
    /// Everything as it was at the beginning has been told; what follows are changes. Told once.
    Synced,
}

/// What was told of an entity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entity {
    /// Its type, such as `deployment`.
    pub(crate) kind: String,
    /// Its id.
    pub(crate) id: String,
    /// As GET shows it; of one that is gone, only its id.
    pub(crate) data: Value,
}

/// A stream of events that outlives its controllers.
pub(crate) struct Follow<'a> {
    client: &'a Client,
    path: String,
    lines: Option<Lines>,
    memory: Memory,
    /// Told and not yet taken.
    ready: VecDeque<Told>,
}

impl<'a> Follow<'a> {
    /// Follows what `query` selects, such as `types=deployment`; connects when it is first asked.
    pub(crate) fn new(client: &'a Client, query: &str) -> Self {
        Self {
            client,
            path: format!("{EVENTS}?{query}"),
            lines: None,
            memory: Memory::default(),
            ready: VecDeque::new(),
        }
    }

    /// What is told next.
    ///
    /// # Errors
    /// When a controller refuses, or none serves within the client's deadline.
    pub(crate) async fn next(&mut self) -> Result<Told, Failure> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(told);
            }
            let Some(lines) = &mut self.lines else {
                self.lines = Some(self.client.lines(&self.path, &HEADERS).await?);
                self.memory.begin();
                continue;
            };
            match tokio::time::timeout(SILENCE, event(lines)).await {
                Ok(Ok(Some((kind, data)))) => self.ready.extend(self.memory.take(&kind, data)?),
                Ok(Ok(None) | Err(_)) | Err(_) => {
                    self.lines = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The next event of a stream, name and data; none at its end.
async fn event(lines: &mut Lines) -> Result<Option<(String, Vec<u8>)>, Failure> {
    let (mut kind, mut data) = (String::new(), Vec::new());
    while let Some(line) = lines.next().await? {
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let (field, value) = split(line);
        match field {
            b"event" => kind = String::from_utf8_lossy(value).into_owned(),
            b"data" => data = value.to_vec(),
            b"" if line.is_empty() && !kind.is_empty() => return Ok(Some((kind, data))),
            _ => {}
        }
    }
    Ok(None)
}

/// Field and value of a line; a comment has an empty field.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return (line, b"");
    };
    let value = &line[colon + 1..];
    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

/// What was told so far.
#[derive(Debug, Default)]
struct Memory {
    known: BTreeMap<(String, String), u64>,
    /// Told since everything was begun again.
    told: BTreeSet<(String, String)>,
    is_synced: bool,
}

impl Memory {
    /// Everything is about to be told from the beginning.
    fn begin(&mut self) {
        self.told.clear();
    }

    fn take(&mut self, kind: &str, data: Vec<u8>) -> Result<Vec<Told>, Failure> {
        match kind {
            "reset" => self.begin(),
            "synced" => return Ok(self.synced()),
            // The stream ends, and another controller goes on or says why none does.
            "closing" => {}
            _ => return self.entity(kind, data),
        }
        Ok(Vec::new())
    }

    fn entity(&mut self, event: &str, data: Vec<u8>) -> Result<Vec<Told>, Failure> {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let digest = hasher.finish();
        let data: Value = serde_json::from_slice(&data).map_err(Failure::answer)?;
        let (kind, is_gone) = match event.strip_suffix(".gone") {
            Some(kind) => (kind, true),
            None => (event, false),
        };
        let key = (kind.to_owned(), id(kind, &data));
        let entity = Entity {
            kind: key.0.clone(),
            id: key.1.clone(),
            data,
        };
        if is_gone {
            self.told.remove(&key);
            self.known.remove(&key);
            return Ok(vec![Told::Gone(entity)]);
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
            self.told.clear();
        }
        self.told.insert(key.clone());
        let is_new = self.known.insert(key, digest) != Some(digest);
        Ok(is_new.then_some(Told::Is(entity)).into_iter().collect())
    }

    /// What was not told again is gone.
    fn synced(&mut self) -> Vec<Told> {
        let gone = self.known.keys().filter(|key| !self.told.contains(*key));
        let gone: Vec<(String, String)> = gone.cloned().collect();
        let mut told = Vec::new();
        for key in gone {
            self.known.remove(&key);
            let (kind, id) = key;
            let data = serde_json::json!({ "id": id });
            told.push(Told::Gone(Entity { kind, id, data }));
        }
        if !self.is_synced {
            self.is_synced = true;
            told.push(Told::Synced);
        }
        told
    }
}

fn id(kind: &str, data: &Value) -> String {
    let id = view::text(data, "id");
    if !id.is_empty() {
        return id;
    }
    match (view::text(data, "name"), view::text(data, "version")) {
        (name, version) if !name.is_empty() && !version.is_empty() => format!("{name}:{version}"),
        _ => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Memory, Told, split};

    /// What is told, in short.
    fn told(memory: &mut Memory, kind: &str, data: &str) -> Vec<String> {
        let told = memory.take(kind, data.as_bytes().to_vec()).unwrap();
        told.into_iter()
            .map(|one| match one {
                Told::Is(entity) => format!("{} {}", entity.kind, entity.id),
                Told::Gone(entity) => format!("{} {} gone", entity.kind, entity.id),
                Told::Synced => "synced".into(),
            })
            .collect()
    }

    #[test]
    fn another_stream_tells_only_what_differs() {
        let mut memory = Memory::default();
        let (a, b) = (r#"{"id":"a","n":1}"#, r#"{"id":"b"}"#);
        memory.begin();
        assert_eq!(told(&mut memory, "deployment", a), ["deployment a"]);
        assert_eq!(told(&mut memory, "deployment", b), ["deployment b"]);
        assert_eq!(told(&mut memory, "synced", "{}"), ["synced"]);
        // Another controller begins from the beginning; meanwhile one changed, and one is gone.
        memory.begin();
        let none: Vec<String> = vec![];
        assert_eq!(
            told(&mut memory, "deployment", r#"{"id":"a","n":2}"#),
            ["deployment a"]
        );
        assert_eq!(told(&mut memory, "synced", "{}"), ["deployment b gone"]);
        assert_eq!(told(&mut memory, "reset", "{}"), none);
        assert_eq!(told(&mut memory, "deployment", r#"{"id":"a","n":2}"#), none);
        assert_eq!(told(&mut memory, "synced", "{}"), none);
        assert_eq!(
            told(&mut memory, "deployment.gone", a),
            ["deployment a gone"]
        );
        assert_eq!(
            told(&mut memory, "release", r#"{"name":"x","version":"1"}"#),
            ["release x:1"]
        );
        assert_eq!(
            told(&mut memory, "cluster", &json!({"leader": 1}).to_string()),
            ["cluster cluster"]
        );
    }

    #[test]
    fn lines_are_fields_and_comments() {
        assert_eq!(split(b"event: a: b"), (&b"event"[..], &b"a: b"[..]));
        assert_eq!(split(b"data:{}"), (&b"data"[..], &b"{}"[..]));
        assert_eq!(split(b": heartbeat"), (&b""[..], &b"heartbeat"[..]));
        assert_eq!(split(b""), (&b""[..], &b""[..]));
    }
}
