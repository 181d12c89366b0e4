//! `make bench-tracing`: creates and shows a second, with traces going to a collector that takes them, with the collector
//! away, with one that takes connections and never answers, and without traces. A fleet each, measured in turn.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use bytes::Bytes;
use clap::Args;
use dotmac_tests::api::DEPLOYMENTS;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    drive::{Make, Round, drive_whole},
    ground::{Ground, create},
    report::{self, put},
    samples::{Samples, median},
    tell,
    wire::{Ask, Target, Wire},
};

/// How long the sink may take to start.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of one export at most.
const EXPORT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: u64,
}

/// One way to trace, and its fleet.
struct Way {
    name: &'static str,
    ground: Ground,
    show: Make,
    creates: Vec<Samples>,
    shows: Vec<Samples>,
}

/// Measures all ways in turn.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("rounds".into(), json!(settings.rounds));
    found.insert("connections".into(), json!(settings.connections));
    let sink = Sink::start().await?;
    // Bound and never accepted: connections succeed, and no answer comes.
    let hung = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let away = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        listener.local_addr()?
    };
    let mut ways = Vec::new();
    for (name, endpoint) in [
        ("off", None),
        ("on", Some(sink.address)),
        ("dead", Some(away)),
        ("hung", Some(hung.local_addr()?)),
    ] {
        ways.push(Way::start(name, endpoint).await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let create: Make = Arc::new(move |_| create("Traced", next.fetch_add(1, Ordering::Relaxed)));
    let round = Round {
        connections: settings.connections,
        over: Duration::from_secs(settings.seconds),
        every: None,
    };
    let count = ways.len();
    for number in 0..settings.rounds {
        // Whoever comes first must not always be the same.
        for place in 0..count {
            let way = &mut ways[(place + number) % count];
            let targets = &way.ground.targets;
            let creates = drive_whole(targets, round, Arc::clone(&create)).await?;
            let shows = drive_whole(targets, round, Arc::clone(&way.show)).await?;
            way.creates.push(creates);
            way.shows.push(shows);
        }
    }
    for way in &ways {
        for (what, rounds) in [("create", &way.creates), ("show", &way.shows)] {
            let name = format!("{}_{what}", way.name);
            let rate = median(rounds.iter().map(Samples::rate));
            let p50 = median(rounds.iter().map(|round| round.percentile(50)));
            let p99 = median(rounds.iter().map(|round| round.percentile(99)));
            put(&mut found, format!("{name}_per_second"), rate);
            put(&mut found, format!("{name}_p50_ms"), p50);
            put(&mut found, format!("{name}_p99_ms"), p99);
            tell(&format!(
                "{name}: {rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms"
            ));
        }
    }
    let (exports, bytes) = sink.count().await?;
    ensure!(
        exports > 0,
        "nothing was exported: the fleet with traces on made none"
    );
    found.insert("exports".into(), json!(exports));
    found.insert("exported_bytes".into(), json!(bytes));
    report::write("tracing.json", found)
}

impl Way {
    async fn start(name: &'static str, endpoint: Option<SocketAddr>) -> Result<Self> {
        let endpoint = endpoint.map(|address| format!("http://{address}"));
        let arguments = endpoint.as_deref().map(|url| ["--otlp-endpoint", url]);
        let arguments = arguments
            .as_ref()
            .map_or(&[][..], |arguments| &arguments[..]);
        let ground = Ground::start_with(&format!("bench-tracing-{name}"), arguments).await?;
        ground.fill("Filler", 100).await?;
        let ids = ground.ids(1).await?;
        let id = ids.first().context("there is no deployment")?.clone();
        ground.warm_up(&id).await?;
        let show: Make = Arc::new(move |_| Ask::get(format!("{DEPLOYMENTS}/{id}")));
        Ok(Self {
            name,
            ground,
            show,
            creates: Vec::new(),
            shows: Vec::new(),
        })
    }
}

/// A collector as a process of its own; it ends with this value.
#[derive(Debug)]
struct Sink {
    address: SocketAddr,
    _child: Child,
}

impl Sink {
    async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("sink")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().context("no output")?);
        timeout(START_WITHIN, lines.read_line(&mut line))
            .await
            .context("the sink does not start")??;
        Ok(Self {
            address: line.trim().parse().context("the sink tells no address")?,
            _child: child,
        })
    }

    /// Exports and their bytes so far.
    async fn count(&self) -> Result<(u64, u64)> {
        let mut wire = Wire::open(&Target::open(self.address), 0).await?;
        let (_, body) = wire.ask(&Ask::get("/count")).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// The process of [`Sink`].
pub(crate) async fn serve_sink() -> Result<()> {
    let (exports, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen_exports, seen_bytes) = (Arc::clone(&exports), Arc::clone(&bytes));
    let take = post(async move |body: Bytes| {
        exports.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    });
    let count = get(async move || -> Json<Value> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Json(json!([of(&seen_exports), of(&seen_bytes)]))
    });
    let router = Router::new()
        .route("/v1/traces", take)
        .route("/count", count)
        .layer(DefaultBodyLimit::max(EXPORT_BYTES_MAX));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    axum::serve(listener, router).await?;
    Ok(())
}
