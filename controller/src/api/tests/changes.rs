//! Changes: what is accepted, what is refused and how, and what a retry gets.

use dotmac_domain::access::Role;
use serde_json::{Value, json};

use super::world::{ADMIN, EMPTY_REGION, World};
use crate::{api::DEPLOYMENTS, log::LogError};

fn quick_start() -> Value {
    json!({"tenant_name": "Demo ISP", "resource_tier": "small", "license_tier": "professional",
        "domain_name": "demo-isp.dotmac.app"})
}

fn named(name: &str) -> Value {
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
    assert!(body["release"]["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(body["waiting"]["reason"], "its order is not sealed yet");
    assert_eq!(body["journey"][0]["station"], "api.received");
    let shown = world.get(created.header("location")).await;
    assert_eq!((shown.status, shown.json()), (200, body));
    assert_eq!(shown.header("etag"), created.header("etag"));
    assert_eq!(created.header("x-request-id").len(), 32);
    world.stop().await;
}

#[tokio::test]
async fn every_wrong_field_is_named_with_its_value_and_what_is_allowed() {
    let world = World::new().await;
    let cases = [
        (json!({}), vec!["tenant_name"]),
        (json!({"tenant_name": 5}), vec!["tenant_name"]),
        (json!({"tenant_name": ""}), vec!["tenant_name"]),
        (json!({"tenant_name": "x".repeat(256)}), vec!["tenant_name"]),
        (json!({"tenant_name": "X", "region": "mars"}), vec!["region"]),
        (json!({"tenant_name": "X", "domain_name": "a_b"}), vec!["domain_name"]),
        (json!({"tenant_name": "X", "resource_tier": "huge"}), vec!["resource_tier"]),
        (json!({"tenant_name": "X", "license_tier": "gold"}), vec!["license_tier"]),
        (json!({"tenant_name": "X", "environment": "test"}), vec!["environment"]),
        (json!({"tenant_name": "X", "image_tag": "9"}), vec!["image_tag"]),
        (json!({"tenant_name": "X", "max_customers": 0, "max_services": 1.5}), vec!["max_customers", "max_services"]),
        (json!({"tenant_name": "X", "features": {"a": 1}}), vec!["features.a"]),
        (json!({"tenant_name": "X", "custom_config": []}), vec!["custom_config"]),
        (json!({"tenant_name": "X", "nmae": 1, "colour": 2}), vec!["colour", "nmae"]),
        (json!({"tenant_name": "X", "resource_tier": "custom"}), vec!["resources"]),
        (
            json!({"tenant_name": "X", "resource_tier": "custom", "resources": {"cpu_request": "1x", "gpu": 1}}),
            vec!["resources.cpu_request", "resources.memory_request", "resources.cpu_limit",
                "resources.memory_limit", "resources.storage", "resources.max_replicas", "resources.gpu"],
        ),
    ];
    for (body, fields) in cases {
        let answer = world.post(DEPLOYMENTS, &body).await;
        let expected: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        assert_eq!(answer.problem(), (422, "invalid".into(), expected), "{body}");
    }
    let region = world.post(DEPLOYMENTS, &json!({"tenant_name": "X", "region": "mars"})).await.json();
    assert_eq!(region["errors"][0], json!({"field": "region", "value": "mars", "allowed": "one of do-fra1, byov-lagos"}));
}

#[tokio::test]
async fn custom_resources_are_read_as_kubernetes_writes_them() {
    let world = World::new().await;
    let body = json!({"tenant_name": "X", "resource_tier": "custom", "resources": {"cpu_request": "500m",
        "memory_request": "512Mi", "cpu_limit": "1.5", "memory_limit": "2Gi", "storage": "5Gi", "max_replicas": 4}});
    let created = world.post(DEPLOYMENTS, &body).await;
    assert_eq!((created.status, &created.json()["max_replicas"]), (201, &json!(4)), "{}", created.text);
    let state = world.node.state();
    let resources = state.deployments.values().next().unwrap().resources;
    assert_eq!((resources.cpu_request_millis, resources.cpu_limit_millis), (500, 1500));
    assert_eq!((resources.memory_request_bytes, resources.storage_bytes), (512 << 20, 5 << 30));
}

#[tokio::test]
async fn bodies_are_json_of_bounded_size_without_second_meanings() {
    let world = World::new().await;
    let send = async |kind: &'static str, body: String| {
        let request = world.request("POST", DEPLOYMENTS).bearer_auth(ADMIN);
        let answer = World::send(request.header("content-type", kind).body(body)).await;
        let (status, code, fields) = answer.problem();
        (status, code, fields.join(","))
    };
    let case = |status: u16, code: &str, fields: &str| (status, code.to_owned(), fields.to_owned());
    let json = "application/json";
    let twice = r#"{"tenant_name":"A","tenant_name":"B"}"#;
    assert_eq!(send(json, twice.into()).await, case(422, "invalid", "tenant_name"));
    assert_eq!(send(json, "{".into()).await, case(400, "malformed", ""));
    assert_eq!(send(json, "[]".into()).await, case(400, "malformed", ""));
    assert_eq!(send(json, String::new()).await, case(400, "malformed", ""));
    assert_eq!(send("text/plain", "{}".into()).await, case(415, "unsupported-media-type", ""));
    let large = format!(r#"{{"tenant_name":"{}"}}"#, "x".repeat(256 * 1024));
    assert_eq!(send(json, large.clone()).await, case(413, "too-large", ""));
    let pieces = futures::stream::iter(large.into_bytes().chunks(4096).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect::<Vec<_>>());
    let request = world.request("POST", DEPLOYMENTS).bearer_auth(ADMIN).header("content-type", json);
    let unannounced = World::send(request.body(reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!(unannounced.problem().0, 413);
    assert!(world.node.state().deployments.is_empty());
}

#[tokio::test]
async fn only_a_bearer_token_in_the_header_opens_the_api() {
    let world = World::new().await;
    let path = "/api/v1/agents";
    let nobody = World::send(world.request("GET", path)).await;
    assert_eq!(nobody.problem().1, "unauthenticated");
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, "Bearer"));
    let next = nobody.json()["next"].as_str().unwrap().to_owned();
    assert!(next.contains("Authorization: Bearer") && next.contains(".dotmac/admin.token"), "{next}");
    assert_eq!(world.ask("wrong", "GET", path, None).await.problem().1, "unauthenticated");
    let basic = world.request("GET", path).header("authorization", format!("Basic {ADMIN}"));
    assert_eq!(World::send(basic).await.status, 401);
    let query = format!("{path}?access_token={ADMIN}");
    assert_eq!(World::send(world.request("GET", &query)).await.problem().1, "token-in-query");
    assert_eq!(world.get(&query).await.problem(), (401, "token-in-query".into(), vec![]));
    assert_eq!(world.get(path).await.status, 200);
}

#[tokio::test]
async fn a_foreign_deployment_is_the_same_as_none() {
    let world = World::new().await;
    let foreign = world.post(DEPLOYMENTS, &named("Foreign")).await.json()["id"].as_str().unwrap().to_owned();
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"].as_str().unwrap().to_owned();
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let missing = "foreign-00000000";
    let seal_to = "ab".repeat(32);
    for (method, suffix) in
        [("GET", ""), ("DELETE", ""), ("POST", "/undelete"), ("GET", &*format!("/logs?seal_to={seal_to}"))]
    {
        let mut answers = Vec::new();
        for id in [&*foreign, missing, "..%2Fx", "%00", "NO", "x/y"] {
            let answer = world.ask(&token, method, &format!("{DEPLOYMENTS}/{id}{suffix}"), None).await;
            let mut body = answer.json();
            if id != "x/y" {
                assert_eq!(body["code"], "not-found", "{method} {id}");
                body["detail"] = "".into();
            }
            let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            answers.push((id, answer.status, names, body));
        }
        assert!(answers.iter().all(|answer| answer.1 == 404), "{method} {answers:?}");
        assert_eq!((&answers[0].2, &answers[0].3), (&answers[1].2, &answers[1].3), "{method}");
    }
    let listed = world.ask(&token, "GET", DEPLOYMENTS, None).await.json();
    let ids: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [own.as_str()]);
    for tenant in [&foreign, missing] {
        let further = json!({"tenant_id": tenant, "environment": "staging"});
        assert_eq!(world.ask(&token, "POST", DEPLOYMENTS, Some(&further)).await.problem().1, "not-found");
    }
    let further = json!({"tenant_id": own, "environment": "staging"});
    let made = world.ask(&token, "POST", DEPLOYMENTS, Some(&further)).await;
    assert_eq!((made.status, &made.json()["id"]), (201, &json!(format!("{own}-staging"))), "{}", made.text);
    assert_eq!(world.ask(&token, "POST", DEPLOYMENTS, Some(&named("New"))).await.problem().1, "forbidden");
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_does_nothing_twice() {
    let world = World::new().await;
    let send = async |body: Value, key: &str| {
        let request = world.request("POST", DEPLOYMENTS).bearer_auth(ADMIN).json(&body);
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
    assert_eq!(mixed_up.problem(), (422, "idempotency-key-reused".into(), vec![]));
    assert_eq!(send(body, "key 2").await.status, 201);
    assert_eq!(world.node.state().deployments.size(), 2);
    let wrong = send(named("X"), &"k".repeat(129)).await;
    assert_eq!(wrong.problem(), (422, "invalid".into(), vec!["Idempotency-Key".into()]));
}

#[tokio::test]
async fn a_taken_domain_names_its_holder_only_to_those_who_may_see_it() {
    let world = World::new().await;
    let holder = world.post(DEPLOYMENTS, &quick_start()).await.json()["id"].as_str().unwrap().to_owned();
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"].as_str().unwrap().to_owned();
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let seen = world.post(DEPLOYMENTS, &quick_start()).await;
    assert_eq!(seen.problem(), (409, "domain-in-use".into(), vec![]));
    assert!(seen.text.contains(&holder));
    let body = json!({"tenant_id": own, "environment": "staging", "domain_name": "demo-isp.dotmac.app"});
    let unseen = world.ask(&token, "POST", DEPLOYMENTS, Some(&body)).await;
    assert_eq!(unseen.problem().1, "domain-in-use");
    assert!(!unseen.text.contains(&holder));
}

#[tokio::test]
async fn credentials_leave_the_api_sealed_to_the_agent_only() {
    let world = World::new().await;
    let canary = "canary-7f3a";
    let body = json!({"tenant_name": "Sealed", "database_url": format!("postgres://u:{canary}@db/isp"),
        "redis_url": format!("redis://:{canary}@cache"),
        "custom_config": {"colour": "blue", "smtp": {"password": canary, "host": "mail"}}});
    let created = world.post(DEPLOYMENTS, &body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert!(!created.text.contains(canary));
    assert_eq!(created.json()["custom_config"], json!({"colour": "blue", "smtp": {"host": "mail"}}));
    assert_eq!(created.json()["credentials"], json!(["database.url", "redis.url", "config.smtp.password"]));
    let state = world.node.state();
    let deployment = state.deployments.values().next().unwrap();
    assert_eq!(deployment.agent.as_ref(), Some(&world.agent));
    let opened: Vec<String> = deployment
        .credentials
        .iter()
        .map(|one| {
            let clear = world.seal_key.open("dotmac/credential/v1", &one.sealed).unwrap();
            String::from_utf8(clear.to_vec()).unwrap()
        })
        .collect();
    assert_eq!(opened, [format!("postgres://u:{canary}@db/isp"), format!("redis://:{canary}@cache"), canary.into()]);
    // Wrong requests do not leak it either.
    for wrong in [
        json!({"tenant_name": "X", "database_url": [canary]}),
        json!({"tenant_name": "X", "databaseUrl": canary}),
        json!({"tenant_name": "X", "custom_config": canary}),
        json!({"tenant_name": "X", "features": {"x": canary}}),
        json!({"tenant_name": "X", "database_url": format!("{canary}\n")}),
        json!({"tenant_name": "X", "database_url": canary, "region": EMPTY_REGION}),
    ] {
        let refused = world.post(DEPLOYMENTS, &wrong).await;
        assert!(refused.status >= 400 && !refused.text.contains(canary), "{}", refused.text);
    }
    assert!(!world.remembers(canary));
    assert!(world.remembers("config.smtp.password"), "the search finds what is there");
}

#[tokio::test]
async fn credentials_need_an_agent_to_be_sealed_to() {
    let world = World::new().await;
    let body = json!({"tenant_name": "X", "region": EMPTY_REGION, "redis_url": "redis://h"});
    let refused = world.post(DEPLOYMENTS, &body).await;
    assert_eq!(refused.problem(), (409, "no-agent".into(), vec![]));
    assert!(refused.text.contains("no agent has joined region byov-lagos yet"));
    let without = world.post(DEPLOYMENTS, &json!({"tenant_name": "X", "region": EMPTY_REGION})).await;
    assert_eq!((without.status, &without.json()["status"]), (201, &json!("pending")));
}

#[tokio::test]
async fn a_deletion_is_accepted_and_taken_back_within_its_grace_time() {
    let world = World::new().await;
    let created = world.post(DEPLOYMENTS, &quick_start()).await;
    let path = created.header("location").to_owned();
    let stale = world.request("DELETE", &path).bearer_auth(ADMIN).header("If-Match", "\"0-0\"");
    assert_eq!(World::send(stale).await.problem().1, "precondition-failed");
    let delete = || {
        let request = world.request("DELETE", &path).bearer_auth(ADMIN);
        request.header("If-Match", created.header("etag")).header("Idempotency-Key", "once")
    };
    world.clock.advance_millis(10);
    for _ in 0..2 {
        let deleted = World::send(delete()).await;
        assert_eq!((deleted.status, &deleted.json()["status"]), (202, &json!("destroying")), "{}", deleted.text);
        assert_eq!(deleted.json()["delete_after"], "2023-11-14T22:13:21.010Z");
    }
    let undeleted = world.ask(ADMIN, "POST", &format!("{path}/undelete"), None).await;
    assert_eq!((undeleted.status, &undeleted.json()["status"]), (200, &json!("provisioning")));
    let again = world.ask(ADMIN, "POST", &format!("{path}/undelete"), None).await;
    assert_eq!(again.problem(), (409, "wrong-state".into(), vec![]));
}

#[tokio::test]
async fn roles_get_no_more_than_they_grant() {
    let world = World::new().await;
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"].as_str().unwrap().to_owned();
    let user = world.token(Role::TenantUser, Some(&own)).await;
    let auditor = world.token(Role::Auditor, None).await;
    let path = format!("{DEPLOYMENTS}/{own}");
    assert_eq!(world.ask(&user, "GET", &path, None).await.status, 200);
    assert_eq!(world.ask(&user, "DELETE", &path, None).await.problem().1, "forbidden");
    assert_eq!(world.ask(&auditor, "DELETE", &path, None).await.problem().1, "forbidden");
    assert_eq!(world.ask(&auditor, "POST", DEPLOYMENTS, Some(&named("X"))).await.problem().1, "forbidden");
    assert_eq!(world.ask(&user, "GET", "/api/v1/audit", None).await.problem().1, "forbidden");
    assert_eq!(world.ask(&user, "GET", "/api/v1/cluster/status", None).await.problem().1, "forbidden");
    assert_eq!(world.ask(&auditor, "GET", "/api/v1/cluster/status", None).await.status, 200);
}

#[tokio::test]
async fn tokens_are_made_by_the_caller_and_work_at_once() {
    let world = World::new().await;
    let secret = "a-new-token";
    let digest = crate::node::bearer_digest(secret).to_string();
    let body = json!({"id": "0123456789abcdef", "secret_digest": digest, "name": "auditor", "role": "auditor"});
    let created = world.post("/api/v1/tokens", &body).await;
    assert_eq!((created.status, &created.json()["role"]), (201, &json!("auditor")), "{}", created.text);
    assert_eq!(world.ask(secret, "GET", "/api/v1/audit", None).await.status, 200);
    assert_eq!(world.ask(secret, "POST", "/api/v1/tokens", Some(&body)).await.problem().1, "forbidden");
    let wrong = json!({"id": "x", "secret_digest": "y", "role": "king"});
    let fields = ["id", "secret_digest", "name", "role"].map(str::to_owned).to_vec();
    assert_eq!(world.post("/api/v1/tokens", &wrong).await.problem(), (422, "invalid".into(), fields));
    let unknown = json!({"id": "1123456789abcdef", "secret_digest": "sha256:".to_owned() + &"0".repeat(64),
        "name": "n", "role": "tenant_admin", "tenant_id": "none-00000000"});
    assert_eq!(world.post("/api/v1/tokens", &unknown).await.problem().1, "not-found");
}

#[tokio::test]
async fn a_join_token_names_what_an_agent_needs_and_a_retry_keeps_its_time() {
    let world = World::new().await;
    let body = json!({"id": "0123456789abcdef", "secret_digest": "sha256:".to_owned() + &"1".repeat(64),
        "region": EMPTY_REGION, "ttl_ms": 60_000});
    let send = async || {
        let request = world.request("POST", "/api/v1/agents/tokens").bearer_auth(ADMIN).json(&body);
        World::send(request.header("Idempotency-Key", "join")).await
    };
    let first = send().await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(first.json(), json!({"id": "0123456789abcdef", "region": EMPTY_REGION,
        "expires_at": "2023-11-14T22:14:20.000Z", "trust_root": world.node.genesis.trust_root.digest().to_string(),
        "controllers": ["127.0.0.1:7001", "127.0.0.1:7002"]}));
    world.clock.advance_millis(1_000);
    assert_eq!(send().await.json(), first.json());
}

#[tokio::test]
async fn a_cluster_without_a_majority_says_so_and_shows_stale_state_when_asked() {
    let world = World::new().await;
    let path = world.post(DEPLOYMENTS, &quick_start()).await.header("location").to_owned();
    *world.log.failure.lock().unwrap() = Some(LogError::Unavailable("nobody leads".into()));
    let refused = world.post(DEPLOYMENTS, &named("X")).await;
    assert_eq!(refused.problem(), (503, "unavailable".into(), vec![]));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(world.get(&path).await.status, 503);
    assert_eq!(world.get(&format!("{path}?consistency=stale")).await.status, 200);
    assert_eq!(world.get("/api/v1/cluster/status").await.status, 200);
}
