//! The client against real servers on the loopback.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use dotmac_runtime::entropy::Entropy;
use serde_json::{Value, json};

use super::{Access, Client, check_server, encode};
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

/// An address on which nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn client(servers: Vec<String>, deadline_ms: u64) -> Client {
    let access = Access {
        servers,
        token: "token".into(),
        deadline_ms,
        attempt_ms: 2_000,
    };
    Client::new(access, Entropy::seeded(1)).unwrap()
}

#[tokio::test]
async fn a_change_keeps_its_key_from_one_controller_to_the_next() {
    let dead = nobody().await;
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
    let (dead, other) = (nobody().await, nobody().await);
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

#[test]
fn a_token_is_never_sent_in_clear_to_another_machine() {
    for fine in [
        "http://127.0.0.1:8000",
        "http://localhost:8000",
        "http://[::1]:8000",
    ] {
        assert!(check_server(fine).is_ok(), "{fine}");
    }
    for wrong in [
        "http://10.0.0.1:8000",
        "http://127.0.0.1.evil.example",
        "https://127.0.0.1",
        "127.0.0.1:8000",
    ] {
        assert!(check_server(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn names_cannot_leave_their_place_in_a_path() {
    assert_eq!(encode("../a b?c#d/é"), "..%2Fa%20b%3Fc%23d%2F%C3%A9");
}
