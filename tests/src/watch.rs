//! Those who watch: an event stream of one controller as a program would read it, and a command of the CLI that goes on.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::api::Api;

/// How long an event or a line that has to come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, such as `deployment`.
    pub kind: String,
    /// Its id, a log index.
    pub id: String,
    /// What it tells.
    pub data: Value,
}

/// An event stream.
#[derive(Debug)]
pub struct Watch {
    response: reqwest::Response,
    pending: Vec<u8>,
}

impl Watch {
    /// Opens the stream of an API's first controller with this query.
    ///
    /// # Errors
    /// When it is not given.
    pub async fn open(api: &Api, query: &str) -> Result<Self> {
        let response = api.open(&format!("/api/v1/events?{query}")).await?;
        let status = response.status();
        ensure!(status.is_success(), "{status}: {}", response.text().await?);
        let pending = Vec::new();
        Ok(Self { response, pending })
    }

    /// The next event; `None` when the stream has ended.
    ///
    /// # Errors
    /// When none comes in time, or the stream breaks.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let end = self.pending.windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let text: Vec<u8> = self.pending.drain(..end + 2).collect();
                match read(&String::from_utf8(text)?)? {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            match chunk.context("no event came")?? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// Goes on until an event is what is waited for.
    ///
    /// # Errors
    /// When none comes in time, or the stream ends.
    pub async fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Result<Event> {
        loop {
            match self.next().await? {
                Some(event) if is_it(&event) => return Ok(event),
                Some(_) => {}
                None => bail!("the stream ended"),
            }
        }
    }
}

/// An event by its lines; a comment or a hint is none.
fn read(text: &str) -> Result<Option<Event>> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let (Some(kind), Some(data)) = (field("event"), field("data")) else {
        return Ok(None);
    };
    Ok(Some(Event {
        kind: kind.to_owned(),
        id: field("id").unwrap_or_default().to_owned(),
        data: serde_json::from_str(data)?,
    }))
}

/// A command that goes on, read line by line. It ends when it is dropped.
#[derive(Debug)]
pub struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env_remove("DOTMAC_SERVER")
            .env_remove("DOTMAC_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let out = child.stdout.take().context("no standard output")?;
        let lines = BufReader::new(out).lines();
        Ok(Self { child, lines })
    }

    /// Goes on until a line has all these words, and gives it.
    ///
    /// # Errors
    /// When none comes in time, or the command ends.
    pub async fn until(&mut self, words: &[&str]) -> Result<String> {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.with_context(|| format!("no line with {words:?} came"))??;
            let line = line.with_context(|| format!("it ended before a line with {words:?}"))?;
            if words.iter().all(|word| line.contains(word)) {
                return Ok(line);
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn end(mut self) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.context("it does not end")??)
    }
}
