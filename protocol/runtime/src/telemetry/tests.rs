//! A collector in every state that it may be in, and what that costs whoever makes spans: nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dotmac_protocol::trace::{SpanId, TraceContext};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{Endpoint, SPANS_MAX, STOP_PATIENCE, Service, Span, Spans, Telemetry};
use crate::{clock::Clock, supervise};

const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// See [`Collector`].
const PARTIAL: u16 = 1;
/// What no test should come near.
const LONG: Duration = Duration::from_secs(20);

/// Answers every export with a status, not at all when that is 0, and when it is [`PARTIAL`] that it took all but one
/// span.
struct Collector {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    bodies: mpsc::Receiver<Vec<u8>>,
}

impl Collector {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, asked) = (Arc::new(AtomicU16::new(status)), Arc::default());
        let (taken, bodies) = mpsc::channel(64);
        let (answer, count) = (Arc::clone(&status), Arc::clone(&asked));
        supervise::spawn("collector", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, count, taken) = (answer.clone(), Arc::clone(&count), taken.clone());
                supervise::spawn("exports", async move {
                    let _ = serve(stream, &answer, &count, &taken).await;
                });
            }
        });
        Self {
            address,
            status,
            asked,
            bodies,
        }
    }

    /// The names of the spans of the next export, and its services.
    async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let body = timeout(LONG, self.bodies.recv()).await.unwrap().unwrap();
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        let (mut names, mut services) = (vec![], vec![]);
        for resource in request.resource_spans {
            for attribute in resource.resource.unwrap().attributes {
                services.push(format!("{:?}", attribute.value));
            }
            let spans = resource.scope_spans.into_iter().flat_map(|one| one.spans);
            names.extend(spans.map(|span| span.name));
        }
        (names, services)
    }
}

async fn serve(
    mut stream: TcpStream,
    status: &AtomicU16,
    asked: &AtomicUsize,
    bodies: &mpsc::Sender<Vec<u8>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        assert!(text.starts_with("post /v1/traces http/1.1\r\n"), "{text}");
        assert!(
            text.contains("content-type: application/x-protobuf"),
            "{text}"
        );
        let length = text.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        while bytes.len() < head + length {
            stream.read_buf(&mut bytes).await?;
        }
        let rest = bytes.split_off(head + length);
        let body = std::mem::replace(&mut bytes, rest).split_off(head);
        asked.fetch_add(1, Ordering::SeqCst);
        match status.load(Ordering::SeqCst) {
            0 => std::future::pending().await,
            200 => {
                let _ = bodies.send(body).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await?;
            }
            PARTIAL => {
                let partial = ExportTracePartialSuccess {
                    rejected_spans: 1,
                    error_message: "too old".into(),
                };
                let words = ExportTraceServiceResponse {
                    partial_success: Some(partial),
                };
                let words = words.encode_to_vec();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", words.len());
                stream
                    .write_all(&[head.as_bytes(), &words].concat())
                    .await?;
            }
            other => {
                let answer = format!("HTTP/1.1 {other} no\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }
}

fn telemetry(address: SocketAddr) -> Telemetry {
    let endpoint: Endpoint = format!("http://{address}").parse().unwrap();
    let service = Service {
        name: "dotmac-test",
        namespace: "cluster-1".to_owned(),
        instance: "test-1".to_owned(),
        version: "1",
    };
    Telemetry::start(Some(&endpoint), service, &Clock::system()).unwrap()
}

fn span(name: &'static str) -> Span {
    let context: TraceContext = CONTEXT.parse().unwrap();
    Span::new(
        &context,
        name,
        (SpanId::of([1; 8]), Some(context.parent)),
        (1, 2),
    )
}

/// Makes more spans than have room, and gives how long that took.
fn flood(spans: &Spans) -> Duration {
    let started = Instant::now();
    for _ in 0..2 * SPANS_MAX {
        spans.emit(span("flood"));
    }
    started.elapsed()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LONG, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn spans_arrive_with_their_service_and_the_last_ones_at_the_stop() {
    let mut collector = Collector::start(200).await;
    let telemetry = telemetry(collector.address);
    let spans = telemetry.spans();
    spans.emit(span("first"));
    let (names, services) = collector.next().await;
    assert_eq!(names, ["first"]);
    for expected in ["dotmac-test", "cluster-1", "test-1"] {
        assert!(
            services.iter().any(|one| one.contains(expected)),
            "{services:?}"
        );
    }
    spans.emit(span("last"));
    telemetry.stop().await;
    assert_eq!(collector.next().await.0, ["last"]);
    assert_eq!((spans.counts().exported, spans.counts().dropped), (2, 0));
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_made() {
    let service = Service {
        name: "dotmac-test",
        namespace: String::new(),
        instance: String::new(),
        version: "1",
    };
    let telemetry = Telemetry::start(None, service, &Clock::system()).unwrap();
    let spans = telemetry.spans();
    assert_eq!((spans.is_on(), spans.now()), (false, 0));
    assert_eq!(spans.follow(CONTEXT.parse().ok()), None);
    spans.emit(span("nowhere"));
    assert_eq!(spans.counts(), super::SpanCounts::default());
    telemetry.stop().await;
}

#[tokio::test]
async fn what_is_not_sampled_is_not_followed() {
    let collector = Collector::start(200).await;
    let telemetry = telemetry(collector.address);
    let context: TraceContext = CONTEXT.parse().unwrap();
    let unsampled = TraceContext {
        is_sampled: false,
        ..context
    };
    let spans = telemetry.spans();
    assert_eq!(spans.follow(Some(unsampled)), None);
    assert_eq!(spans.follow(Some(context)), Some(context));
    telemetry.stop().await;
}

#[tokio::test]
async fn law_12_a_collector_that_refuses_hangs_or_fails_costs_neither_time_nor_memory() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = nobody.local_addr().unwrap();
    drop(nobody);
    let (hanging, failing) = (Collector::start(0).await, Collector::start(503).await);
    for (what, address) in [
        ("refuses", refusing),
        ("hangs", hanging.address),
        ("fails", failing.address),
    ] {
        let telemetry = telemetry(address);
        let spans = telemetry.spans();
        spans.emit(span("before"));
        if what == "hangs" {
            until("it hangs", || hanging.asked.load(Ordering::SeqCst) > 0).await;
        }
        let took = flood(&spans);
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
        let counts = spans.counts();
        // What is under way to the collector takes room, too: no more is ever kept.
        let room = u64::try_from(SPANS_MAX).unwrap();
        assert_eq!(
            (counts.waiting, counts.dropped),
            (room, room + 1),
            "{what}: {counts:?}"
        );
        let stopping = Instant::now();
        telemetry.stop().await;
        let took = stopping.elapsed();
        assert!(
            took < STOP_PATIENCE + Duration::from_secs(1),
            "{what}: {took:?}"
        );
        until("nothing waits after the end", || {
            spans.counts().waiting == 0
        })
        .await;
        assert_eq!(spans.counts().exported, 0, "{what}");
    }
}

#[tokio::test]
async fn what_waited_arrives_when_the_collector_is_back() {
    let mut collector = Collector::start(503).await;
    let telemetry = telemetry(collector.address);
    let spans = telemetry.spans();
    spans.emit(span("meanwhile"));
    until("it was tried", || {
        collector.asked.load(Ordering::SeqCst) > 0
    })
    .await;
    spans.emit(span("later"));
    collector.status.store(200, Ordering::SeqCst);
    assert_eq!(collector.next().await.0, ["meanwhile"]);
    assert_eq!(collector.next().await.0, ["later"]);
    assert_eq!(spans.counts().dropped, 0);
    telemetry.stop().await;
}

#[tokio::test]
async fn what_the_collector_calls_wrong_is_dropped_and_holds_up_nothing() {
    let mut collector = Collector::start(400).await;
    let telemetry = telemetry(collector.address);
    let spans = telemetry.spans();
    spans.emit(span("wrong"));
    until("it is dropped", || spans.counts().dropped == 1).await;
    assert_eq!(collector.asked.load(Ordering::SeqCst), 1);
    collector.status.store(200, Ordering::SeqCst);
    spans.emit(span("right"));
    assert_eq!(collector.next().await.0, ["right"]);
    telemetry.stop().await;
}

#[tokio::test]
async fn spans_that_the_collector_rejects_count_as_dropped_and_do_not_come_again() {
    let collector = Collector::start(PARTIAL).await;
    let telemetry = telemetry(collector.address);
    let spans = telemetry.spans();
    spans.emit(span("taken"));
    spans.emit(span("too old"));
    until("both are settled", || {
        let counts = spans.counts();
        (counts.exported, counts.dropped) == (1, 1)
    })
    .await;
    assert_eq!(collector.asked.load(Ordering::SeqCst), 1);
    telemetry.stop().await;
}

#[test]
fn a_name_that_somebody_made_long_is_cut_off() {
    let context: TraceContext = CONTEXT.parse().unwrap();
    let name = format!("{}ä", "M".repeat(255));
    let span = Span::new(&context, name, (SpanId::of([1; 8]), None), (0, 0));
    assert_eq!(span.name.len(), 255);
}

#[tokio::test]
async fn spans_of_which_others_make_any_number_leave_half_of_the_room() {
    let collector = Collector::start(0).await;
    let telemetry = telemetry(collector.address);
    let spans = telemetry.spans();
    spans.emit(span("before"));
    until("it hangs", || collector.asked.load(Ordering::SeqCst) > 0).await;
    for _ in 0..SPANS_MAX {
        spans.emit_modestly(span("reads"));
    }
    let half = u64::try_from(SPANS_MAX / 2).unwrap();
    let before = spans.counts();
    assert!(before.waiting == half, "{before:?}");
    spans.emit(span("an order"));
    assert_eq!(spans.counts().dropped, before.dropped);
    telemetry.stop().await;
}

#[test]
fn an_endpoint_is_an_address_and_nothing_else() {
    let traces = |text: &str| text.parse::<Endpoint>().map(|one| one.traces().to_string());
    assert_eq!(
        traces("http://127.0.0.1:4318").unwrap(),
        "http://127.0.0.1:4318/v1/traces"
    );
    assert_eq!(
        traces("https://otel.example/prefix/").unwrap(),
        "https://otel.example/prefix/v1/traces"
    );
    for wrong in [
        "",
        "localhost:4318",
        "grpc://localhost:4317",
        "http://user:secret@localhost:4318",
        "http://localhost:4318/?key=secret",
        "http://localhost:4318/#x",
        "http://localhost:0",
        "http://localhost:4318/v1/traces",
        "http://localhost:4318/otlp/v1/traces/",
    ] {
        assert!(traces(wrong).is_err(), "{wrong}");
    }
}
