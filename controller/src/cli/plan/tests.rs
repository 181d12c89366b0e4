//! Plans against a server that says what it was asked.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use dotmac_runtime::{clock::Clock, entropy::Entropy};
use serde_json::{Value, json};

use super::{Consent, Outcome, Plan, Seen};
use crate::cli::{
    client::{Access, Client},
    failure::Failure,
    find::{Context, Flags},
    output::{Format, Output},
};

/// What a request was: method, path with query, If-Match and Idempotency-Key.
type Asked = (String, String, String, String);

/// One entity with a version, which counts what happens to it.
#[derive(Default)]
struct World {
    asked: Vec<Asked>,
    replicas: u64,
    version: u64,
    /// Somebody else's change, made as soon as the plan was told.
    is_contested: bool,
}

type Shared = Arc<Mutex<World>>;

async fn answer(State(world): State<Shared>, request: Request) -> Response {
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    let (method, uri) = (request.method().clone(), request.uri().to_string());
    let version = header(request.headers(), "if-match");
    let key = header(request.headers(), "idempotency-key");
    world
        .asked
        .push((method.to_string(), uri.clone(), version.clone(), key));
    let etag = format!("\"r{}\"", world.version);
    let entity =
        |world: &World| json!({"id": "a-1", "replicas": world.replicas, "revision": world.version});
    if method == Method::GET {
        return ([("etag", etag)], Json(entity(&world))).into_response();
    }
    if version != etag {
        let problem = json!({"code": "precondition-failed", "detail": "another version"});
        return (StatusCode::PRECONDITION_FAILED, Json(problem)).into_response();
    }
    if uri.ends_with("?dry_run=true") {
        let changes = match world.replicas {
            2 => json!([]),
            before => json!([{"field": "replicas", "from": before, "to": 2}]),
        };
        if world.is_contested {
            (world.replicas, world.version) = (5, world.version + 1);
        }
        return Json(json!({"dry_run": true, "changes": changes, "result": {"id": "a-1"}}))
            .into_response();
    }
    (world.replicas, world.version) = (2, world.version + 1);
    Json(entity(&world)).into_response()
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

async fn scale(world: &Shared, dry_run: bool) -> Result<Outcome, Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(Arc::clone(world));
    dotmac_runtime::supervise::spawn("test server", async move {
        axum::serve(listener, router).await.unwrap();
    });
    let access = Access {
        servers: vec![server],
        token: "token".into(),
        ca_file: None,
        deadline_ms: 5_000,
        attempt_ms: 2_000,
        voice: None,
    };
    let client = Client::new(access, Entropy::seeded(1)).unwrap();
    let output = Output::new(Format::Table);
    let context = Context::new(
        Flags::default(),
        output,
        Clock::system(),
        Entropy::seeded(2),
    );
    let seen = Seen::read(&client, "/things/a-1".into()).await.unwrap();
    let plan = Plan::change(
        "scale a-1".into(),
        Method::POST,
        "/things/a-1/scale".into(),
        seen,
    );
    let consent = Consent { yes: true, dry_run };
    plan.with_body(json!({"replicas": 2}))
        .run(&context, &client, consent)
        .await
}

fn world(replicas: u64, is_contested: bool) -> Shared {
    Arc::new(Mutex::new(World {
        replicas,
        version: 1,
        is_contested,
        ..World::default()
    }))
}

#[tokio::test]
async fn what_is_sent_is_for_the_version_and_under_the_key_that_were_shown() {
    let world = world(1, false);
    let Outcome::Done(done) = scale(&world, false).await.unwrap() else {
        panic!("it was to be done")
    };
    assert_eq!(done["replicas"], 2);
    let asked = &world.lock().unwrap().asked;
    let (plan, change) = (&asked[1], &asked[2]);
    assert_eq!(
        (plan.1.as_str(), change.1.as_str()),
        ("/things/a-1/scale?dry_run=true", "/things/a-1/scale")
    );
    assert_eq!((plan.2.as_str(), change.2.as_str()), ("\"r1\"", "\"r1\""));
    assert!(!plan.3.is_empty() && plan.3 == change.3);
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_told_and_nothing_is_done() {
    let world = world(1, true);
    let failure = scale(&world, false).await.unwrap_err();
    assert_eq!(failure.code(), 7);
    assert!(
        failure.to_string().contains("~ replicas: 1 -> 5"),
        "{failure}"
    );
    assert_eq!(world.lock().unwrap().replicas, 5);
}

#[tokio::test]
async fn a_dry_run_ends_after_the_plan_and_says_whether_there_is_one() {
    let changed = world(1, false);
    assert!(matches!(scale(&changed, true).await, Ok(Outcome::Shown)));
    assert_eq!(changed.lock().unwrap().replicas, 1);
    assert_eq!(changed.lock().unwrap().asked.len(), 2);
    let same = world(2, false);
    assert!(matches!(scale(&same, true).await, Err(Failure::Ended(8))));
    let Ok(Outcome::Same(Value::Object(_))) = scale(&same, false).await else {
        panic!("it was so already")
    };
    assert!(
        same.lock()
            .unwrap()
            .asked
            .iter()
            .all(|asked| asked.1 != "/things/a-1/scale")
    );
}
