//! What a body may hold: fields, their limits, and secrets that nobody but the agent may read.

use serde_json::json;

use super::world::{ADMIN, EMPTY_REGION, World};
use crate::api::DEPLOYMENTS;

#[tokio::test]
async fn every_wrong_field_is_named_with_its_value_and_what_is_allowed() {
    let world = World::new().await;
    let cases = [
        (json!({}), vec!["tenant_name"]),
        (json!({"tenant_name": 5}), vec!["tenant_name"]),
        (json!({"tenant_name": ""}), vec!["tenant_name"]),
        (json!({"tenant_name": "x".repeat(256)}), vec!["tenant_name"]),
        (
            json!({"tenant_name": "X", "region": "mars"}),
            vec!["region"],
        ),
        (
            json!({"tenant_name": "X", "domain_name": "a_b"}),
            vec!["domain_name"],
        ),
        (
            json!({"tenant_name": "X", "resource_tier": "huge"}),
            vec!["resource_tier"],
        ),
        (
            json!({"tenant_name": "X", "license_tier": "gold"}),
            vec!["license_tier"],
        ),
        (
            json!({"tenant_name": "X", "environment": "test"}),
            vec!["environment"],
        ),
        (
            json!({"tenant_name": "X", "max_customers": 0, "max_services": 1.5}),
            vec!["max_customers", "max_services"],
        ),
        (
            json!({"tenant_name": "X", "features": {"a": 1}}),
            vec!["features.a"],
        ),
        (
            json!({"tenant_name": "X", "custom_config": []}),
            vec!["custom_config"],
        ),
        (
            json!({"tenant_name": "X", "nmae": 1, "colour": 2}),
            vec!["colour", "nmae"],
        ),
        (
            json!({"tenant_name": "X", "resource_tier": "custom"}),
            vec!["resources"],
        ),
        (
            json!({"tenant_name": "X", "resource_tier": "custom", "resources": {"cpu_request": "1x", "gpu": 1}}),
            vec![
                "resources.cpu_request",
                "resources.memory_request",
                "resources.cpu_limit",
                "resources.memory_limit",
                "resources.storage",
                "resources.max_replicas",
                "resources.gpu",
            ],
        ),
    ];
    for (body, fields) in cases {
        let answer = world.post(DEPLOYMENTS, &body).await;
        let expected: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        assert_eq!(
            answer.problem(),
            (422, "invalid".into(), expected),
            "{body}"
        );
    }
    let region = world
        .post(DEPLOYMENTS, &json!({"tenant_name": "X", "region": "mars"}))
        .await
        .json();
    assert_eq!(
        region["errors"][0],
        json!({"field": "region", "value": "mars", "allowed": "one of byov-lagos, do-fra1"})
    );
}

#[tokio::test]
async fn custom_resources_are_read_as_kubernetes_writes_them() {
    let world = World::new().await;
    let body = json!({"tenant_name": "X", "resource_tier": "custom", "resources": {"cpu_request": "500m",
        "memory_request": "512Mi", "cpu_limit": "1.5", "memory_limit": "2Gi", "storage": "5Gi", "max_replicas": 4}});
    let created = world.post(DEPLOYMENTS, &body).await;
    assert_eq!(
        (created.status, &created.json()["max_replicas"]),
        (201, &json!(4)),
        "{}",
        created.text
    );
    let state = world.node.state();
    let resources = state.deployments.values().next().unwrap().resources;
    assert_eq!(
        (resources.cpu_request_millis, resources.cpu_limit_millis),
        (500, 1500)
    );
    assert_eq!(
        (resources.memory_request_bytes, resources.storage_bytes),
        (512 << 20, 5 << 30)
    );
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
    assert_eq!(
        send(json, twice.into()).await,
        case(422, "invalid", "tenant_name")
    );
    assert_eq!(send(json, "{".into()).await, case(400, "malformed", ""));
    assert_eq!(send(json, "[]".into()).await, case(400, "malformed", ""));
    assert_eq!(send(json, String::new()).await, case(400, "malformed", ""));
    assert_eq!(
        send("text/plain", "{}".into()).await,
        case(415, "unsupported-media-type", "")
    );
    let large = format!(r#"{{"tenant_name":"{}"}}"#, "x".repeat(256 * 1024));
    assert_eq!(send(json, large.clone()).await, case(413, "too-large", ""));
    let pieces = futures::stream::iter(
        large
            .into_bytes()
            .chunks(4096)
            .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
            .collect::<Vec<_>>(),
    );
    let request = world
        .request("POST", DEPLOYMENTS)
        .bearer_auth(ADMIN)
        .header("content-type", json);
    let unannounced = World::send(request.body(reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!(unannounced.problem().0, 413);
    assert!(world.node.state().deployments.is_empty());
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
    assert_eq!(
        created.json()["custom_config"],
        json!({"colour": "blue", "smtp": {"host": "mail"}})
    );
    assert_eq!(
        created.json()["credentials"],
        json!(["database.url", "redis.url", "config.smtp.password"])
    );
    let state = world.node.state();
    let deployment = state.deployments.values().next().unwrap();
    assert_eq!(deployment.agent.as_ref(), Some(&world.agent));
    let opened: Vec<String> = deployment
        .credentials
        .iter()
        .map(|one| {
            let clear = world
                .seal_key
                .open("dotmac/credential/v1", &one.sealed)
                .unwrap();
            String::from_utf8(clear.to_vec()).unwrap()
        })
        .collect();
    assert_eq!(
        opened,
        [
            format!("postgres://u:{canary}@db/isp"),
            format!("redis://:{canary}@cache"),
            canary.into()
        ]
    );
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
        assert!(
            refused.status >= 400 && !refused.text.contains(canary),
            "{}",
            refused.text
        );
    }
    assert!(!world.remembers(canary));
    assert!(
        world.remembers("config.smtp.password"),
        "the search finds what is there"
    );
}

#[tokio::test]
async fn credentials_need_an_agent_to_be_sealed_to() {
    let world = World::new().await;
    let body = json!({"tenant_name": "X", "region": EMPTY_REGION, "redis_url": "redis://h"});
    let refused = world.post(DEPLOYMENTS, &body).await;
    assert_eq!(refused.problem(), (409, "no-agent".into(), vec![]));
    assert!(
        refused
            .text
            .contains("no agent has joined region byov-lagos yet")
    );
    let without = world
        .post(
            DEPLOYMENTS,
            &json!({"tenant_name": "X", "region": EMPTY_REGION}),
        )
        .await;
    assert_eq!(
        (without.status, &without.json()["status"]),
        (201, &json!("pending"))
    );
}
