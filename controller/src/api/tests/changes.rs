//! Changes: what they answer, and what a retry gets.

use serde_json::{Value, json};

use super::world::{ADMIN, EMPTY_REGION, World};
use crate::{api::DEPLOYMENTS, log::LogError};

/// The contract's quick start.
pub(super) fn quick_start() -> Value {
    json!({"tenant_name": "Demo ISP", "resource_tier": "small", "license_tier": "professional",
        "domain_name": "demo-isp.dotmac.app"})
}

/// The least that can be asked for.
pub(super) fn named(name: &str) -> Value {
    json!({ "tenant_name": name })
}

#[tokio::test]
async fn the_quick_start_request_is_created_and_says_where() {
    let world = World::new().await;
    let created = world.post(DEPLOYMENTS, &quick_start()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let body = created.json();
    let id = body["id"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("{DEPLOYMENTS}/{id}"));
    assert!(id.starts_with("demo-isp-"));
    let expected = [
        ("tenant_id", json!(id)),
        ("namespace", json!(format!("dotmac-tenant-{id}"))),
        ("environment", json!("production")),
        ("region", json!("do-fra1")),
        ("agent", json!(world.agent)),
        ("status", json!("provisioning")),
        ("resource_tier", json!("small")),
        ("license_tier", json!("professional")),
        ("domain_name", json!("demo-isp.dotmac.app")),
        ("health_status", json!("unknown")),
        ("replicas", json!(1)),
        ("pod_count", json!(0)),
        ("generation", json!(1)),
        ("created_at", json!("2023-11-14T22:13:20.000Z")),
        ("deployed_at", Value::Null),
        ("delete_after", Value::Null),
        ("max_customers", json!(1000)),
    ];
    for (member, value) in expected {
        assert_eq!(body[member], value, "{member} of {body}");
    }
    assert_eq!(body["release"]["name"], "demo-isp");
    assert!(
        body["release"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert_eq!(body["waiting"]["reason"], "its order is not sealed yet");
    assert_eq!(body["journey"][0]["station"], "api.received");
    let shown = world.get(created.header("location")).await;
    assert_eq!((shown.status, shown.json()), (200, body));
    assert_eq!(shown.header("etag"), created.header("etag"));
    assert_eq!(created.header("x-request-id").len(), 32);
    world.stop().await;
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_does_nothing_twice() {
    let world = World::new().await;
    let send = async |body: Value, key: &str| {
        let request = world
            .request("POST", DEPLOYMENTS)
            .bearer_auth(ADMIN)
            .json(&body);
        World::send(request.header("Idempotency-Key", key)).await
    };
    // Credentials are sealed differently each time, and it is the same request all the same.
    let body = json!({"tenant_name": "Once", "database_url": "postgres://u:p@h/d"});
    let first = send(body.clone(), "key 1").await;
    world.clock.advance_millis(5_000);
    let again = send(body.clone(), "key 1").await;
    assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(first.header("x-request-id"), again.header("x-request-id"));
    assert_eq!(world.node.state().deployments.size(), 1);
    let mixed_up = send(named("Other"), "key 1").await;
    assert_eq!(
        mixed_up.problem(),
        (422, "idempotency-key-reused".into(), vec![])
    );
    assert_eq!(send(body, "key 2").await.status, 201);
    assert_eq!(world.node.state().deployments.size(), 2);
    let wrong = send(named("X"), &"k".repeat(129)).await;
    assert_eq!(
        wrong.problem(),
        (422, "invalid".into(), vec!["Idempotency-Key".into()])
    );
}

#[tokio::test]
async fn a_deletion_is_accepted_and_taken_back_within_its_grace_time() {
    let world = World::new().await;
    let created = world.post(DEPLOYMENTS, &quick_start()).await;
    let path = created.header("location").to_owned();
    let stale = world
        .request("DELETE", &path)
        .bearer_auth(ADMIN)
        .header("If-Match", "\"r9\"");
    assert_eq!(World::send(stale).await.problem().1, "precondition-failed");
    let delete = || {
        let request = world.request("DELETE", &path).bearer_auth(ADMIN);
        request
            .header("If-Match", created.header("etag"))
            .header("Idempotency-Key", "once")
    };
    world.clock.advance_millis(10);
    for _ in 0..2 {
        let deleted = World::send(delete()).await;
        assert_eq!(
            (deleted.status, &deleted.json()["status"]),
            (202, &json!("destroying")),
            "{}",
            deleted.text
        );
        assert_eq!(deleted.json()["delete_after"], "2023-11-14T22:13:21.010Z");
    }
    let undeleted = world
        .ask(ADMIN, "POST", &format!("{path}/undelete"), None)
        .await;
    assert_eq!(
        (undeleted.status, &undeleted.json()["status"]),
        (200, &json!("provisioning"))
    );
    let again = world
        .ask(ADMIN, "POST", &format!("{path}/undelete"), None)
        .await;
    assert_eq!(again.problem(), (409, "wrong-state".into(), vec![]));
}

#[tokio::test]
async fn a_join_token_names_what_an_agent_needs_and_a_retry_keeps_its_time() {
    let world = World::new().await;
    let body = json!({"id": "0123456789abcdef", "secret_digest": "sha256:".to_owned() + &"1".repeat(64),
        "region": EMPTY_REGION, "ttl_ms": 60_000});
    let send = async || {
        let request = world
            .request("POST", "/api/v1/agents/tokens")
            .bearer_auth(ADMIN)
            .json(&body);
        World::send(request.header("Idempotency-Key", "join")).await
    };
    let first = send().await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(
        first.json(),
        json!({"id": "0123456789abcdef", "region": EMPTY_REGION,
        "expires_at": "2023-11-14T22:14:20.000Z", "trust_root": world.node.genesis.trust_root.digest().to_string(),
        "controllers": ["127.0.0.1:7001"], "created_at": "2023-11-14T22:13:20.000Z",
        "created_by": "00000000000000ad", "revoked_at": null, "status": "waiting", "used_by": null})
    );
    world.clock.advance_millis(1_000);
    assert_eq!(send().await.json(), first.json());
}

#[tokio::test]
async fn a_cluster_without_a_majority_says_so_and_shows_stale_state_when_asked() {
    let world = World::new().await;
    let path = world
        .post(DEPLOYMENTS, &quick_start())
        .await
        .header("location")
        .to_owned();
    *world.log.failure.lock().unwrap() = Some(LogError::Unavailable("nobody leads".into()));
    let refused = world.post(DEPLOYMENTS, &named("X")).await;
    assert_eq!(refused.problem(), (503, "unavailable".into(), vec![]));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(world.get(&path).await.status, 503);
    assert_eq!(
        world.get(&format!("{path}?consistency=stale")).await.status,
        200
    );
    assert_eq!(world.get("/api/v1/cluster/status").await.status, 200);
}
