//! The client against real servers on the loopback.

mod hostile;
mod secure;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use dotmac_runtime::entropy::Entropy;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use super::{Access, Change, Client, check_server, encode};
use crate::cli::failure::Failure;

/// Keys that a server saw.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server that answers everything the same; gives its address and the idempotency keys it sees.
async fn server(status: u16, body: Value) -> (String, Seen) {
    let seen = Seen::default();
    let answer = move |State(seen): State<Seen>, headers: HeaderMap| async move {
        let key = headers
            .get("idempotency-key")
            .map(|key| key.to_str().unwrap().to_owned());
        seen.lock().unwrap().extend(key);
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    };
    serve(
        Router::new()
            .fallback(any(answer))
            .with_state(Arc::clone(&seen)),
        seen,
    )
    .await
}

async fn serve(router: Router, seen: Seen) -> (String, Seen) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    dotmac_runtime::supervise::spawn("test server", async move {
        axum::serve(listener, router).await.unwrap()
    });
    (address, seen)
}

/// An address on which nobody listens, and nobody can for as long as the socket is there.
fn nobody() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (format!("http://{}", socket.local_addr().unwrap()), socket)
}

fn client(servers: Vec<String>, deadline_ms: u64) -> Client {
    let access = Access {
        servers,
        token: "token".into(),
        ca_file: None,
        deadline_ms,
        attempt_ms: 2_000,
        voice: None,
    };
    Client::new(access, Entropy::seeded(1)).unwrap()
}

/// A client of a server with these routes.
pub(crate) async fn client_of(router: Router) -> Client {
    let (server, _) = serve(router, Seen::default()).await;
    client(vec![server], 10_000)
}

#[tokio::test]
async fn a_change_keeps_its_key_from_one_controller_to_the_next() {
    let (dead, _held) = nobody();
    let (without_leader, first) = server(503, json!({"code": "no-leader"})).await;
    let (well, second) = server(201, json!({"id": "x"})).await;
    let client = client(vec![dead, without_leader, well], 10_000);
    assert_eq!(
        client.post("/things", None).await.unwrap(),
        json!({"id": "x"})
    );
    let (first, second) = (
        first.lock().unwrap().clone(),
        second.lock().unwrap().clone(),
    );
    assert_eq!(first.len(), 1);
    assert_eq!(first, second);
    assert!(!first[0].is_empty());
}

#[tokio::test]
async fn a_controller_that_answered_is_asked_first_from_then_on() {
    let (ill, first) = server(503, json!({})).await;
    let (well, second) = server(200, json!({})).await;
    let client = client(vec![ill, well], 10_000);
    for _ in 0..3 {
        client.post("/things", None).await.unwrap();
    }
    assert_eq!(
        (first.lock().unwrap().len(), second.lock().unwrap().len()),
        (1, 3)
    );
}

#[tokio::test]
async fn a_refusal_is_not_asked_again_elsewhere() {
    let (refusing, _) = server(409, json!({"code": "domain-in-use", "detail": "taken"})).await;
    let (other, seen) = server(201, json!({})).await;
    let failure = client(vec![refusing, other], 10_000)
        .post("/things", None)
        .await
        .unwrap_err();
    assert!(
        matches!(&failure, Failure::Refused(problem) if problem.status == 409),
        "{failure}"
    );
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nobody_within_the_deadline_is_said_with_all_addresses() {
    let ((dead, _held), (other, _also)) = (nobody(), nobody());
    let failure = client(vec![dead.clone(), other.clone()], 200)
        .get::<Value>("/things")
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 5);
    let text = failure.to_string();
    assert!(text.contains(&dead) && text.contains(&other), "{text}");
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_no_further_than_asked() {
    let pages = |uri: axum::http::Uri| async move {
        let page = match uri.query().unwrap_or_default() {
            "" => json!({"items": [1, 2], "next_cursor": "a/b"}),
            "cursor=a%2Fb" => json!({"items": [3], "next_cursor": null}),
            other => json!({"unexpected": other}),
        };
        Json(page) as Json<Value>
    };
    let router = Router::new().fallback(any(async move |uri| -> Response {
        pages(uri).await.into_response()
    }));
    let (address, _) = serve(router, Seen::default()).await;
    let client = client(vec![address], 5_000);
    assert_eq!(
        client.list("/things", 10).await.unwrap(),
        [json!(1), json!(2), json!(3)]
    );
    assert_eq!(client.list("/things", 1).await.unwrap(), [json!(1)]);
}

/// A server that answers the first `refusals` requests with a status and `Retry-After`, and then well.
async fn busy(status: u16, retry_after_s: u64, refusals: usize) -> (String, Seen) {
    let seen = Seen::default();
    let answer = move |State(seen): State<Seen>, headers: HeaderMap| async move {
        let key = headers.get("idempotency-key").unwrap().to_str().unwrap();
        let mut seen = seen.lock().unwrap();
        seen.push(key.to_owned());
        if seen.len() > refusals {
            return Json(json!({"done": true})).into_response();
        }
        let code = StatusCode::from_u16(status).unwrap();
        let wait = [("retry-after", retry_after_s.to_string())];
        (
            code,
            wait,
            Json(json!({"code": "overloaded", "detail": "busy"})),
        )
            .into_response()
    };
    let router = Router::new()
        .fallback(any(answer))
        .with_state(Arc::clone(&seen));
    serve(router, seen).await
}

#[tokio::test]
async fn a_restart_under_way_is_waited_out_with_one_key() {
    for status in [408, 425, 429, 502, 503, 504] {
        let (server, seen) = busy(status, 0, 2).await;
        let answer = client(vec![server], 10_000).post("/things", None).await;
        assert_eq!(answer.unwrap(), json!({"done": true}), "{status}");
        let mut seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 3, "{status}");
        seen.dedup();
        assert_eq!(seen.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_and_the_others_are_asked_meanwhile() {
    let (limiting, first) = busy(429, 1, 1).await;
    let (restarting, second) = busy(503, 0, usize::MAX).await;
    let started = tokio::time::Instant::now();
    let client = client(vec![limiting, restarting], 10_000);
    client.post("/things", None).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        first.lock().unwrap().len(),
        2,
        "asked once before and once after"
    );
    assert!(second.lock().unwrap().len() > 2, "asked all the while");
}

#[tokio::test]
async fn too_many_requests_for_longer_than_the_deadline_is_a_refusal_at_once() {
    let (limiting, seen) = busy(429, 60, usize::MAX).await;
    let started = tokio::time::Instant::now();
    let failure = client(vec![limiting], 10_000)
        .post("/things", None)
        .await
        .unwrap_err();
    assert!(
        matches!(&failure, Failure::Refused(problem) if problem.code == "overloaded"),
        "{failure}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_controller_that_comes_back_within_the_deadline_serves() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client(vec![format!("http://{address}")], 10_000);
    let (answer, ()) = tokio::join!(client.get::<Value>("/things"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let router = Router::new().fallback(any(async || Json(json!({"back": true}))));
        dotmac_runtime::supervise::spawn("test server", async move {
            axum::serve(listener, router).await.unwrap();
        });
    });
    assert_eq!(answer.unwrap(), json!({"back": true}));
}

#[tokio::test]
async fn a_version_that_was_seen_travels_with_the_change() {
    let router = Router::new().fallback(any(async |headers: HeaderMap| {
        let version = headers
            .get("if-match")
            .map(|value| value.to_str().unwrap().to_owned());
        ([("etag", "\"r3\"")], Json(json!({ "version": version })))
    }));
    let (address, _) = serve(router, Seen::default()).await;
    let change = Change {
        method: reqwest::Method::PATCH,
        path: "/things/1",
        body: None,
        key: "k",
        if_match: Some("\"r2\""),
    };
    let answer = client(vec![address], 5_000).answer(&change).await.unwrap();
    assert_eq!(answer.body, json!({"version": "\"r2\""}));
    assert_eq!(answer.etag.as_deref(), Some("\"r3\""));
}

#[test]
fn a_token_is_never_sent_in_clear_to_another_machine() {
    for fine in [
        "http://127.0.0.1:8000",
        "http://localhost:8000",
        "http://[::1]:8000",
        "https://10.0.0.1:8000",
        "https://controller.example",
    ] {
        assert!(check_server(fine).is_ok(), "{fine}");
    }
    for wrong in [
        "http://10.0.0.1:8000",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "https://user:password@controller.example",
        "https://controller.example/?token=x",
        "https://controller.example/path",
        "ftp://127.0.0.1",
        "127.0.0.1:8000",
    ] {
        assert!(check_server(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_name_that_would_lead_elsewhere_is_not_asked_for() {
    let (well, _) = server(200, json!({"elsewhere": true})).await;
    let client = client(vec![well], 1_000);
    for path in [
        "/releases/..",
        "/releases/../tokens",
        "/releases/%2e%2E/x?y",
        "/./x",
    ] {
        assert_eq!(
            client.get::<Value>(path).await.unwrap_err().code(),
            2,
            "{path}"
        );
        assert_eq!(
            client.lines(path, &[]).await.unwrap_err().code(),
            2,
            "{path}"
        );
    }
    assert!(
        client
            .get::<Value>("/releases/..x/1..2?a=../..")
            .await
            .is_ok()
    );
}

#[test]
fn names_cannot_leave_their_place_in_a_path() {
    assert_eq!(encode("../a b?c#d/é"), "..%2Fa%20b%3Fc%23d%2F%C3%A9");
}
