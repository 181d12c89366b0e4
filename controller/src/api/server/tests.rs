//! One connection as its client sees it, served with little patience: who is slow, who says things twice.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use dotmac_runtime::supervise;
use futures::StreamExt as _;
use hyper_util::service::TowerToHyperService;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::watch,
    time::sleep,
};

use super::{Connection, Patience, Places, Refusal, serve_http};
use crate::{
    api::{body, limits::Gate, problem::Problem},
    config::Limits,
};

/// No patience with the one thing that is tested, and all of it with the rest.
const SHORT: Duration = Duration::from_millis(100);
/// Bytes between client and server that are on their way.
const ON_THE_WAY: usize = 16 * 1024;
/// Bytes of a large answer.
const LARGE: usize = 8 << 20;
const HEAD: &str = "Host: h\r\n";

/// A connection, and what makes it close.
struct Line {
    client: DuplexStream,
    closing: watch::Sender<bool>,
    /// Its sender is gone when the server has let go of the connection.
    given_up: watch::Receiver<()>,
}

impl Line {
    fn new() -> Self {
        Self::with(Patience::default())
    }

    fn with(patience: Patience) -> Self {
        let (client, server) = duplex(ON_THE_WAY);
        let gate = Arc::new(Gate::new(Limits::default()));
        let places = Arc::new(Places::new(1, 1));
        let peer = IpAddr::from([127, 0, 0, 1]).into();
        let connection = Connection::new(1, peer, false, gate, places);
        let closing = watch::Sender::new(false);
        let closed = closing.subscribe();
        let (held, given_up) = watch::channel(());
        supervise::spawn("line", async move {
            let service = TowerToHyperService::new(routes());
            serve_http(server, &connection, patience, service, closed).await;
            drop(held);
        });
        Self {
            client,
            closing,
            given_up,
        }
    }

    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything that is answered until the connection ends.
    async fn hear(&mut self) -> String {
        let mut heard = Vec::new();
        self.client.read_to_end(&mut heard).await.unwrap();
        String::from_utf8(heard).unwrap()
    }
}

fn routes() -> Router {
    let large = || async { "x".repeat(LARGE) };
    let quiet = || async {
        let pieces = futures::stream::iter([1, 2]).then(|piece| async move {
            sleep(3 * SHORT).await;
            Ok::<_, std::convert::Infallible>(format!("piece {piece}"))
        });
        Body::from_stream(pieces).into_response()
    };
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/large", get(large))
        .route("/quiet", get(quiet))
        .route("/echo", post(echo))
        .layer(from_fn(keep_busy))
}

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match body::read(&parts.headers, body).await {
        Ok(bytes) => bytes.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What admission does of it.
async fn keep_busy(request: Request, next: Next) -> Response {
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        return Problem::new(refusal.kind, refusal.detail).into_response();
    }
    let connection: Arc<Connection> = Arc::clone(request.extensions().get().unwrap());
    let busy = connection.busy();
    let (parts, body) = next.run(request).await.into_parts();
    let held = body.into_data_stream().map(move |piece| {
        let _ = &busy;
        piece
    });
    Response::from_parts(parts, Body::from_stream(held))
}

fn count(text: &str, wanted: &str) -> usize {
    text.matches(wanted).count()
}

#[tokio::test]
async fn a_head_that_trickles_is_answered_408() {
    let head = SHORT;
    let mut line = Line::with(Patience {
        head,
        ..Patience::default()
    });
    line.say("GET / HTTP/1.1\r\n").await;
    let (mut reader, mut writer) = tokio::io::split(line.client);
    let dripping = supervise::spawn("drip", async move {
        while writer.write_all(b"X").await.is_ok() {
            sleep(SHORT / 10).await;
        }
    });
    let mut heard = String::new();
    reader.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    assert!(heard.contains("\"head-timed-out\"") && heard.contains("application/problem+json"));
    dripping.abort();
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let mut line = Line::with(Patience {
        head: SHORT,
        ..Patience::default()
    });
    assert_eq!(line.hear().await, "");
    let mut line = Line::with(Patience {
        idle: SHORT,
        ..Patience::default()
    });
    line.say(&format!("GET / HTTP/1.1\r\n{HEAD}\r\n")).await;
    let heard = line.hear().await;
    assert_eq!(count(&heard, "200 OK"), 1, "{heard}");
}

#[tokio::test]
async fn a_stream_may_be_silent_for_as_long_as_it_lasts() {
    let mut line = Line::with(Patience {
        idle: SHORT,
        ..Patience::default()
    });
    let head = format!("GET /quiet HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n");
    line.say(&head).await;
    let heard = line.hear().await;
    assert!(
        heard.contains("piece 1") && heard.ends_with("piece 2\r\n0\r\n\r\n"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_body_that_trickles_is_answered_408_and_one_that_flows_is_taken() {
    let short = Patience {
        grace: SHORT,
        ..Patience::default()
    };
    for (patience, piece, pause, status) in [
        (short, 1, SHORT / 4, "408"),
        (short, 20, SHORT, "408"),
        (Patience::default(), 8_192, Duration::ZERO, "200"),
    ] {
        let mut line = Line::with(patience);
        let length = 32 * 8_192;
        let head = format!(
            "POST /echo HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        line.say(&head).await;
        let (mut reader, mut writer) = tokio::io::split(line.client);
        let sending = supervise::spawn("send", async move {
            for _ in 0..length / piece {
                if writer.write_all(&vec![b' '; piece]).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
        });
        let mut heard = String::new();
        reader.read_to_string(&mut heard).await.unwrap();
        assert!(
            heard.starts_with(&format!("HTTP/1.1 {status} ")),
            "{piece}: {heard:.200}"
        );
        sending.abort();
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_given_up() {
    let mut line = Line::with(Patience {
        grace: SHORT,
        ..Patience::default()
    });
    let head = format!("GET /large HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n");
    line.say(&head).await;
    line.given_up.changed().await.unwrap_err();
    assert!(line.hear().await.len() <= ON_THE_WAY);
    let mut line = Line::new();
    line.say(&head).await;
    assert!(line.hear().await.len() > LARGE);
}

#[tokio::test]
async fn a_refusal_comes_behind_the_answers_before_it_and_ends_the_connection() {
    let mut line = Line::new();
    let good = format!("GET / HTTP/1.1\r\n{HEAD}\r\n");
    let posted = format!(
        "POST /echo HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: 4\r\n\r\ntrue"
    );
    let twice = format!(
        "POST /echo HTTP/1.1\r\n{HEAD}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    line.say(&format!("{good}{posted}{twice}0\r\n\r\n{good}{good}"))
        .await;
    let heard = line.hear().await;
    let answers: Vec<&str> = heard
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &heard[at + 9..at + 12])
        .collect();
    assert_eq!(answers, ["200", "200", "400"], "{heard}");
    assert!(heard.contains("contradict each other") && heard.contains("connection: close"));
}

#[tokio::test]
async fn bad_chunks_are_no_body() {
    for chunks in [
        "3;x=y\r\ntru\r\n0\r\n\r\n",
        "4\r\ntrue\r\n0\r\nX: y\r\n\r\n",
        "zz\r\n",
    ] {
        let mut line = Line::new();
        let head = format!(
            "POST /echo HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        line.say(&format!("{head}{chunks}GET / HTTP/1.1\r\n{HEAD}\r\n"))
            .await;
        let heard = line.hear().await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{chunks:?}: {heard}");
        assert_eq!(count(&heard, "HTTP/1.1 "), 1, "{heard}");
    }
}

#[tokio::test]
async fn a_body_is_asked_for_only_by_whoever_reads_it() {
    let expecting = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: 4\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let mut line = Line::new();
    line.say(&expecting("/nowhere")).await;
    let heard = line.hear().await;
    assert!(heard.starts_with("HTTP/1.1 404 "), "{heard}");
    let mut line = Line::new();
    line.say(&expecting("/echo")).await;
    let mut asked = [0; 25];
    line.client.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    line.say("true").await;
    let heard = line.hear().await;
    assert!(
        heard.starts_with("HTTP/1.1 200 ") && heard.contains("true"),
        "{heard}"
    );
}

#[tokio::test]
async fn closing_lets_an_answer_end_and_closes_what_is_idle() {
    let mut idle = Line::new();
    idle.say(&format!("GET / HTTP/1.1\r\n{HEAD}\r\n")).await;
    let mut first = [0; 12];
    idle.client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut busy = Line::new();
    busy.say(&format!("GET /large HTTP/1.1\r\n{HEAD}\r\n"))
        .await;
    busy.client.read_exact(&mut first).await.unwrap();
    idle.closing.send_replace(true);
    busy.closing.send_replace(true);
    assert!(busy.hear().await.len() > LARGE);
    assert!(idle.hear().await.ends_with("hello\r\n0\r\n\r\n"));
}
