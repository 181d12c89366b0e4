//! An OpenTelemetry collector (the peer `otelcol`) beside a fleet, and what it got: spans with their services.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{ports, programs, wait::until};

/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A collector and the file that it writes; it ends with this value.
#[derive(Debug)]
pub struct Collector {
    program: PathBuf,
    home: TempDir,
    ports: ports::Reserved,
    running: Option<Child>,
}

/// One span that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name`.
    pub service: String,
    /// `service.instance.id`.
    pub instance: String,
    /// What it is called.
    pub name: String,
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// 16 hexadecimal digits; empty for a root.
    pub parent: String,
    /// Whether it answers a request.
    pub is_server: bool,
    /// Whether it ended with a failure.
    pub has_failed: bool,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// A place for this program of it; nothing runs.
    ///
    /// # Errors
    /// When there is no port, or no room.
    pub fn prepare(program: PathBuf) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("otelcol-")
            .tempdir_in(programs::homes()?)?;
        let ports = ports::reserve()?;
        let file = home.path().join("spans.json");
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{}'}}}}}}}}\n\
             exporters: {{file: {{path: '{}', append: true, flush_interval: 100ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n",
            ports.base,
            file.display()
        );
        fs::write(home.path().join("config.yaml"), config)?;
        Ok(Self {
            program,
            home,
            ports,
            running: None,
        })
    }

    /// Starts it, again too; it goes on with the file.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start(&mut self) -> Result<()> {
        let log = fs::File::create(self.home.path().join("log"))?;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.home.path().join("config.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.running = Some(child);
        let port = self.ports.base;
        let started = until("the collector listens", START_WITHIN, async || {
            TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(Some(()))
        });
        let log = || fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        started.await.with_context(log)
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it does not run")?;
        Ok(running.kill().await?)
    }

    /// Where it takes OTLP over HTTP.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.base)
    }

    /// Everything that it wrote.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.home.path().join("spans.json")
    }

    /// The spans of a trace that it got so far.
    ///
    /// # Errors
    /// When it wrote something else.
    pub fn trace(&self, trace: &str) -> Result<Vec<Span>> {
        Ok(read(&self.file())?
            .into_iter()
            .filter(|span| span.trace == trace)
            .collect())
    }
}

fn read(file: &Path) -> Result<Vec<Span>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut spans = Vec::new();
    for line in whole.lines() {
        let export: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        for resource in list(&export["resourceSpans"]) {
            let service = attributes(&resource["resource"]);
            let scopes = list(&resource["scopeSpans"]).iter();
            for span in scopes.flat_map(|scope| list(&scope["spans"])) {
                spans.push(parse(span, &service)?);
            }
        }
    }
    Ok(spans)
}

fn parse(span: &Value, service: &BTreeMap<String, String>) -> Result<Span> {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let named = |name: &str| service.get(name).cloned().unwrap_or_default();
    Ok(Span {
        service: named("service.name"),
        instance: named("service.instance.id"),
        name: text("name"),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        is_server: span["kind"] == 2,
        has_failed: span["status"]["code"] == 2,
        start: text("startTimeUnixNano").parse()?,
        end: text("endTimeUnixNano").parse()?,
        attributes: attributes(span),
    })
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let attributes = list(&of["attributes"]).iter().map(|attribute| {
        let key = attribute["key"].as_str().unwrap_or_default().to_owned();
        let value = &attribute["value"];
        let text = ["stringValue", "intValue"];
        let text = text.iter().find_map(|kind| value[*kind].as_str());
        (key, text.unwrap_or_default().to_owned())
    });
    attributes.collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
