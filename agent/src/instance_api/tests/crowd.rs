//! Whoever opens many connections keeps nobody else from the agent.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use dotmac_runtime::{metrics::Format, supervise};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, interval, timeout},
};

use super::{BASE, Site, validation};
use crate::{
    fixture::instance,
    instance_api::listener::{LimitedListener, Patience, Proof, UNIT_CONNECTIONS_MAX},
    link::tests::site::soon,
    metrics::{Listener, Metrics},
    status::{self, Status},
};

const PLACES: usize = super::super::CONNECTIONS_MAX;
const ASK: &str = "GET / HTTP/1.1\r\nHost: agent\r\n\r\n";

/// One connection of a client.
struct Line(BufStream<TcpStream>);

impl Line {
    async fn open(address: &str) -> Self {
        Self(BufStream::new(TcpStream::connect(address).await.unwrap()))
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next answer; `None` when the connection was closed instead.
    async fn hear(&mut self) -> Option<(u16, String)> {
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1)?.parse().ok();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some((status?, String::from_utf8(body).unwrap()))
    }

    /// Whether it was closed, waiting until it is.
    async fn closes(&mut self) -> bool {
        soon(self.hear()).await.is_none()
    }

    async fn ask(&mut self, text: &str) -> Option<(u16, String)> {
        self.0.write_all(text.as_bytes()).await.ok()?;
        self.0.flush().await.ok()?;
        soon(self.hear()).await
    }
}

impl Site {
    fn address(&self) -> &str {
        self.serving.url.strip_prefix("http://").unwrap()
    }

    fn validation_text(&self, name: &str) -> String {
        let body = validation(&self.license_key(name)).to_string();
        let (token, length) = (self.token(name), body.len());
        format!(
            "POST {BASE}/license/validate HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    async fn validates_on(&self, name: &str, line: &mut Line) -> bool {
        match line.ask(&self.validation_text(name)).await {
            Some((200, body)) => body.contains("\"valid\":true"),
            _ => false,
        }
    }
}

/// Connections of a client that begins a head on each and never ends one.
async fn drip(address: &str, count: usize) -> JoinHandle<()> {
    allow_descriptors();
    let mut streams = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.try_write(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
        streams.push(stream);
    }
    supervise::spawn("drip", async move {
        let mut every = interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            for stream in &streams {
                // Those that were closed take nothing.
                let _ = stream.try_write(b"x");
            }
        }
    })
}

/// Client and server are one process here.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(8192, |maximum| maximum.min(8192));
    if limit.current.is_some_and(|before| before < current) {
        let raised = Rlimit {
            current: Some(current),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

/// Waits until so many connections were closed to make room.
async fn closed_for_room(metrics: &Metrics, listener: &str, count: usize) {
    let series = format!("dotmac_agent_connections_closed_total{{listener=\"{listener}\"}} ");
    soon(async {
        loop {
            let text = metrics.render(Format::OpenMetrics);
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            if value.unwrap().parse::<usize>().unwrap() >= count {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn law_4_connections_that_say_half_keep_no_instance_from_its_licence() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let mut kept = Line::open(site.address()).await;
    assert!(site.validates_on("demo", &mut kept).await);
    let dripping = drip(site.address(), 600).await;
    let metrics = site.serving.stations.metrics();
    closed_for_room(metrics, "platform", 601 - PLACES).await;
    let answered = timeout(Duration::from_secs(1), async {
        let mut fresh = Line::open(site.address()).await;
        site.validates_on("other", &mut fresh).await
    });
    assert_eq!(answered.await, Ok(true));
    assert!(site.validates_on("demo", &mut kept).await);
    dripping.abort();
}

#[tokio::test]
async fn law_4_a_unit_with_many_proven_connections_closes_its_own() {
    allow_descriptors();
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let mut kept = Line::open(site.address()).await;
    assert!(site.validates_on("other", &mut kept).await);
    let mut lines = Vec::new();
    for _ in 0..600 {
        let mut line = Line::open(site.address()).await;
        assert!(site.validates_on("demo", &mut line).await);
        lines.push(line);
    }
    let metrics = site.serving.stations.metrics();
    closed_for_room(metrics, "platform", 600 - UNIT_CONNECTIONS_MAX).await;
    assert!(site.validates_on("other", &mut kept).await);
    let mut newest = lines.split_off(600 - UNIT_CONNECTIONS_MAX);
    for line in &mut lines {
        assert!(line.closes().await);
    }
    for line in &mut newest {
        assert!(site.validates_on("demo", line).await);
    }
}

#[tokio::test]
async fn half_a_request_keeps_nobody_from_the_status() {
    let directory = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let bound = status::bind(listen, &directory.path().join("port")).await;
    let (bound, metrics) = (bound.unwrap(), Metrics::default());
    let address = bound.url().strip_prefix("http://").unwrap().to_owned();
    let serving = Status::new(metrics.clone()).serve(bound);
    let ask = "GET /health/ready HTTP/1.1\r\nHost: agent\r\n\r\n";
    let mut kept = Line::open(&address).await;
    assert_eq!(kept.ask(ask).await.unwrap().0, 503);
    let dripping = drip(&address, 200).await;
    closed_for_room(&metrics, "status", 201 - 128).await;
    for line in [&mut Line::open(&address).await, &mut kept] {
        let (status, body) = line.ask(ask).await.unwrap();
        assert!(
            status == 503 && body.contains("it has not begun its work"),
            "{body}"
        );
    }
    dripping.abort();
    serving.abort();
}

/// A listener whose `/` answers at once, and whose `/slow` does when it is told to.
struct Small {
    address: String,
    metrics: Metrics,
    go: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Drop for Small {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Small {
    async fn new(places: usize, patience: Patience) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (metrics, go) = (Metrics::default(), Arc::new(Notify::new()));
        let (closed, told) = (metrics.closed_for_room(Listener::Status), Arc::clone(&go));
        let slow = async move || told.notified().await;
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/slow", get(slow));
        let listener =
            LimitedListener::new(listener, places, Proof::Answer, closed).with_patience(patience);
        let serving = supervise::spawn("small", async move { listener.serve(router).await });
        Self {
            address,
            metrics,
            go,
            serving,
        }
    }

    async fn proven(&self) -> Line {
        let mut line = Line::open(&self.address).await;
        assert_eq!(line.ask(ASK).await, Some((200, "hello".to_owned())));
        line
    }
}

#[tokio::test]
async fn proven_connections_leave_places_for_newcomers() {
    let small = Small::new(16, Patience::default()).await;
    let mut proven = Vec::new();
    for _ in 0..16 {
        proven.push(small.proven().await);
    }
    let mut first = Line::open(&small.address).await;
    let mut second = Line::open(&small.address).await;
    closed_for_room(&small.metrics, "status", 2).await;
    assert!(proven[0].closes().await && proven[1].closes().await);
    assert!(first.ask(ASK).await.is_some() && second.ask(ASK).await.is_some());
}

#[tokio::test]
async fn a_connection_that_is_being_answered_goes_last() {
    let small = Small::new(4, Patience::default()).await;
    let mut busy = small.proven().await;
    busy.say("GET /slow HTTP/1.1\r\nHost: agent\r\n\r\n").await;
    let mut later = Vec::new();
    for _ in 0..6 {
        later.push(small.proven().await);
    }
    closed_for_room(&small.metrics, "status", 3).await;
    for line in &mut later[..3] {
        assert!(line.closes().await);
    }
    small.go.notify_one();
    assert_eq!(soon(busy.hear()).await, Some((200, String::new())));
}

#[tokio::test]
async fn a_head_that_does_not_end_is_closed_and_an_idle_connection_is_not() {
    let head = Duration::from_millis(300);
    let patience = Patience {
        head,
        ..Patience::default()
    };
    let small = Small::new(16, patience).await;
    let mut idle = small.proven().await;
    let mut slow = small.proven().await;
    let begun = Instant::now();
    let mut every = interval(Duration::from_millis(20));
    let said = soon(async {
        loop {
            every.tick().await;
            if slow.0.write_all(b"G").await.is_err() || slow.0.flush().await.is_err() {
                return;
            }
        }
    });
    said.await;
    assert!(begun.elapsed() >= head, "{:?}", begun.elapsed());
    assert!(idle.ask(ASK).await.is_some());
}
