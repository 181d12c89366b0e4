//! What a hostile server may try: answers without end, of the wrong kind, or that lead elsewhere. Each is bounded.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse as _,
    routing::any,
};
use serde_json::{Value, json};

use super::{Arc, Seen, client, serve};
use crate::cli::{
    client::reading::ANSWER_BYTES_MAX,
    failure::Failure,
    list::Paging,
    plan::{Plan, Seen as SeenEntity},
};

/// Bytes without end, counted as they are taken.
fn endless(taken: Arc<AtomicU64>, piece: &'static [u8]) -> Body {
    Body::from_stream(futures::stream::repeat_with(move || {
        taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from_static(piece))
    }))
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_its_limit_and_not_asked_for_again() {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let router = Router::new().fallback(any(async move || endless(counted, &[b' '; 65_536])));
    let (server, _) = serve(router, Seen::default()).await;
    let failure = client(vec![server], 10_000)
        .get::<Value>("/things")
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("more than"), "{failure}");
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 2 * ANSWER_BYTES_MAX as u64, "{taken}");
}

/// A success of another service on the port is none of ours.
#[tokio::test]
async fn a_success_that_is_not_this_api_is_a_failure() {
    let foreign = |failure: Failure| {
        let said = failure.to_string();
        assert!(
            failure.code() == 1 && said.contains("no answer of a DotMac API"),
            "{said}"
        );
    };
    for (status, body) in [
        (204, ""),
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, "\"ok\""),
    ] {
        let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        let (server, _) = serve(Router::new().fallback(any(answer)), Seen::default()).await;
        let client = client(vec![server], 5_000);
        foreign(client.get::<Value>("/things/1").await.unwrap_err());
        foreign(client.post("/things", None).await.unwrap_err());
    }
    for body in [
        json!({}),
        json!({"items": {"a": 1}}),
        json!({"id": null, "name": "x"}),
    ] {
        let answer = move || std::future::ready(Json(body.clone()));
        let (server, _) = serve(Router::new().fallback(any(answer)), Seen::default()).await;
        let client = client(vec![server], 5_000);
        foreign(client.entity("/things/1").await.unwrap_err());
        foreign(client.list("/things", 9).await.unwrap_err());
        let listed = Paging::default().read(&client, "/things", &[]).await;
        foreign(listed.err().unwrap());
        let seen = SeenEntity::read(&client, "/things/1".into()).await;
        foreign(seen.err().unwrap());
        let plan = Plan::create("create x".into(), "/things", json!({}));
        foreign(plan.foresee(&client, "key").await.unwrap_err());
    }
}

#[tokio::test]
async fn an_answer_that_trickles_for_ever_ends_with_the_deadline() {
    let router = Router::new().fallback(any(async || {
        Body::from_stream(futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        }))
    }));
    let (server, _) = serve(router, Seen::default()).await;
    let started = tokio::time::Instant::now();
    let failure = client(vec![server], 1_000)
        .get::<Value>("/things")
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 5, "{failure}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn answers_of_the_wrong_kind_are_failures_and_nothing_worse() {
    let deep = "[".repeat(100_000);
    let bodies = [
        "",
        "null",
        "[1]",
        "{\"items\": 3}",
        "{\"items\"",
        "<html>",
        deep.as_str(),
    ];
    for body in bodies {
        let body = body.to_owned();
        let answer = async move || {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, body).into_response()
        };
        let (server, _) = serve(Router::new().fallback(any(answer)), Seen::default()).await;
        let failure = client(vec![server], 2_000)
            .list("/things", 10)
            .await
            .unwrap_err();
        assert_eq!(failure.code(), 1, "{failure}");
    }
    let problem = json!({"status": "x", "code": 7, "errors": "none", "title": null});
    let answer = async move || (StatusCode::CONFLICT, Json(problem)).into_response();
    let (server, _) = serve(Router::new().fallback(any(answer)), Seen::default()).await;
    let failure = client(vec![server], 2_000)
        .post("/things", None)
        .await
        .unwrap_err();
    assert_eq!(failure.code(), 4, "{failure}");
}

#[tokio::test]
async fn a_list_of_empty_pages_ends() {
    let pages = Arc::new(AtomicU64::new(0));
    let page = async |State(pages): State<Arc<AtomicU64>>| {
        let number = pages.fetch_add(1, Ordering::Relaxed);
        Json(json!({"items": [], "next_cursor": number.to_string()}))
    };
    let router = Router::new()
        .fallback(any(page))
        .with_state(Arc::clone(&pages));
    let (server, _) = serve(router, Seen::default()).await;
    let failure = client(vec![server], 10_000)
        .list("/things", 10)
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("does not end"), "{failure}");
    assert!(pages.load(Ordering::Relaxed) < 200);
}

#[tokio::test]
async fn nobody_is_led_elsewhere_with_a_token() {
    let seen = Seen::default();
    let thief = async |State(seen): State<Seen>, headers: HeaderMap| {
        let token = headers.get(header::AUTHORIZATION);
        seen.lock().unwrap().push(format!("{token:?}"));
        Json(json!({}))
    };
    let router = Router::new()
        .fallback(any(thief))
        .with_state(Arc::clone(&seen));
    let (thief, seen) = serve(router, seen).await;
    for status in [301_u16, 302, 303, 307, 308] {
        let to = thief.clone();
        let lead = async move || {
            let code = StatusCode::from_u16(status).unwrap();
            (code, [(header::LOCATION, to)]).into_response()
        };
        let (server, _) = serve(Router::new().fallback(any(lead)), Seen::default()).await;
        let client = client(vec![server], 200);
        for failure in [
            client.get::<Value>("/things").await.err(),
            client.post("/things", None).await.err(),
            client.lines("/things", &[]).await.err(),
        ] {
            assert_eq!(failure.map(|failure| failure.code()), Some(5), "{status}");
        }
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_line_without_end_is_given_up_and_other_lines_come_whole() {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let router = Router::new()
        .route(
            "/endless",
            any(async move || endless(counted, &[b'x'; 65_536])),
        )
        .route("/lines", any(async || "one\ntwo\r\n\nthree"));
    let (server, _) = serve(router, Seen::default()).await;
    let client = client(vec![server], 5_000);
    let failure = client
        .lines("/endless", &[])
        .await
        .unwrap()
        .next()
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("too long"), "{failure}");
    assert!(taken.load(Ordering::Relaxed) < 16 << 20);
    let mut lines = client.lines("/lines", &[]).await.unwrap();
    let mut found = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        found.push(String::from_utf8(line).unwrap());
    }
    assert_eq!(found, ["one", "two\r", "", "three"]);
}

#[tokio::test]
async fn what_a_server_says_reaches_nobody_with_escapes_in_it() {
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\u{9b}31m";
    let problem = json!({"status": 409, "code": evil, "title": evil, "detail": evil, "next": evil,
        "errors": [{"field": evil, "value": evil, "allowed": [evil]}]});
    let busy = problem.clone();
    let router = Router::new()
        .route(
            "/refused",
            any(async move || (StatusCode::CONFLICT, Json(problem)).into_response()),
        )
        .route(
            "/busy",
            any(async move || (StatusCode::SERVICE_UNAVAILABLE, Json(busy)).into_response()),
        );
    let (server, _) = serve(router, Seen::default()).await;
    let client = client(vec![server], 200);
    for path in ["/refused", "/busy"] {
        let failure: Failure = client.post(path, None).await.unwrap_err();
        let text = failure.to_string();
        let is_clean =
            |letter: char| letter == '\n' || !(letter.is_control() || letter == '\u{202e}');
        assert!(text.chars().all(is_clean), "{text:?}");
    }
}
