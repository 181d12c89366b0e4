//! Who may do what, and who may know of what: tokens, roles, other people's things.

use dotmac_domain::access::Role;
use serde_json::json;

use super::{
    changes::{named, quick_start},
    world::{ADMIN, World},
};
use crate::api::DEPLOYMENTS;

#[tokio::test]
async fn only_a_bearer_token_in_the_header_opens_the_api() {
    let world = World::new().await;
    let path = "/api/v1/agents";
    let nobody = World::send(world.request("GET", path)).await;
    assert_eq!(nobody.problem().1, "unauthenticated");
    assert_eq!(
        (nobody.status, nobody.header("www-authenticate")),
        (401, "Bearer")
    );
    let next = nobody.json()["next"].as_str().unwrap().to_owned();
    assert!(
        next.contains("Authorization: Bearer") && next.contains(".dotmac/admin.token"),
        "{next}"
    );
    assert_eq!(
        world.ask("wrong", "GET", path, None).await.problem().1,
        "unauthenticated"
    );
    let basic = world
        .request("GET", path)
        .header("authorization", format!("Basic {ADMIN}"));
    assert_eq!(World::send(basic).await.status, 401);
    let query = format!("{path}?access_token={ADMIN}");
    assert_eq!(
        World::send(world.request("GET", &query)).await.problem().1,
        "token-in-query"
    );
    assert_eq!(
        world.get(&query).await.problem(),
        (401, "token-in-query".into(), vec![])
    );
    assert_eq!(world.get(path).await.status, 200);
}

#[tokio::test]
async fn a_foreign_deployment_is_the_same_as_none() {
    let world = World::new().await;
    let foreign = world.post(DEPLOYMENTS, &named("Foreign")).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let missing = "foreign-00000000";
    let seal_to = "ab".repeat(32);
    for (method, suffix) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/undelete"),
        ("GET", &*format!("/logs?seal_to={seal_to}")),
    ] {
        let mut answers = Vec::new();
        for id in [&*foreign, missing, "..%2Fx", "%00", "NO", "x/y"] {
            let answer = world
                .ask(&token, method, &format!("{DEPLOYMENTS}/{id}{suffix}"), None)
                .await;
            let mut body = answer.json();
            if !matches!(id, "x/y" | "..%2Fx" | "%00") {
                assert_eq!(body["code"], "not-found", "{method} {id}");
                body["detail"] = "".into();
            }
            let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            answers.push((id, answer.status, names, body));
        }
        assert!(
            answers.iter().all(|answer| answer.1 == 404),
            "{method} {answers:?}"
        );
        assert_eq!(
            (&answers[0].2, &answers[0].3),
            (&answers[1].2, &answers[1].3),
            "{method}"
        );
    }
    let listed = world.ask(&token, "GET", DEPLOYMENTS, None).await.json();
    let ids: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [own.as_str()]);
    for tenant in [&foreign, missing] {
        let further = json!({"tenant_id": tenant, "environment": "staging"});
        assert_eq!(
            world
                .ask(&token, "POST", DEPLOYMENTS, Some(&further))
                .await
                .problem()
                .1,
            "not-found"
        );
    }
    let further = json!({"tenant_id": own, "environment": "staging"});
    let made = world.ask(&token, "POST", DEPLOYMENTS, Some(&further)).await;
    assert_eq!(
        (made.status, &made.json()["id"]),
        (201, &json!(format!("{own}-staging"))),
        "{}",
        made.text
    );
    assert_eq!(
        world
            .ask(&token, "POST", DEPLOYMENTS, Some(&named("New")))
            .await
            .problem()
            .1,
        "forbidden"
    );
}

#[tokio::test]
async fn a_taken_domain_names_its_holder_only_to_those_who_may_see_it() {
    let world = World::new().await;
    let holder = world.post(DEPLOYMENTS, &quick_start()).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let seen = world.post(DEPLOYMENTS, &quick_start()).await;
    assert_eq!(seen.problem(), (409, "domain-in-use".into(), vec![]));
    assert!(seen.text.contains(&holder));
    let body =
        json!({"tenant_id": own, "environment": "staging", "domain_name": "demo-isp.dotmac.app"});
    let unseen = world.ask(&token, "POST", DEPLOYMENTS, Some(&body)).await;
    assert_eq!(unseen.problem().1, "domain-in-use");
    assert!(!unseen.text.contains(&holder));
}

#[tokio::test]
async fn roles_get_no_more_than_they_grant() {
    let world = World::new().await;
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let user = world.token(Role::TenantUser, Some(&own)).await;
    let auditor = world.token(Role::Auditor, None).await;
    let path = format!("{DEPLOYMENTS}/{own}");
    assert_eq!(world.ask(&user, "GET", &path, None).await.status, 200);
    assert_eq!(
        world.ask(&user, "DELETE", &path, None).await.problem().1,
        "forbidden"
    );
    assert_eq!(
        world.ask(&auditor, "DELETE", &path, None).await.problem().1,
        "forbidden"
    );
    assert_eq!(
        world
            .ask(&auditor, "POST", DEPLOYMENTS, Some(&named("X")))
            .await
            .problem()
            .1,
        "forbidden"
    );
    assert_eq!(
        world
            .ask(&user, "GET", "/api/v1/audit", None)
            .await
            .problem()
            .1,
        "forbidden"
    );
    assert_eq!(
        world
            .ask(&user, "GET", "/api/v1/cluster/status", None)
            .await
            .problem()
            .1,
        "forbidden"
    );
    assert_eq!(
        world
            .ask(&auditor, "GET", "/api/v1/cluster/status", None)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn tokens_are_made_by_the_caller_and_work_at_once() {
    let world = World::new().await;
    let secret = "a-new-token";
    let digest = crate::node::bearer_digest(secret).to_string();
    let body = json!({"id": "0123456789abcdef", "secret_digest": digest, "name": "auditor", "role": "auditor"});
    let created = world.post("/api/v1/tokens", &body).await;
    assert_eq!(
        (created.status, &created.json()["role"]),
        (201, &json!("auditor")),
        "{}",
        created.text
    );
    assert_eq!(
        world.ask(secret, "GET", "/api/v1/audit", None).await.status,
        200
    );
    assert_eq!(
        world
            .ask(secret, "POST", "/api/v1/tokens", Some(&body))
            .await
            .problem()
            .1,
        "forbidden"
    );
    let wrong = json!({"id": "x", "secret_digest": "y", "role": "king"});
    let fields = ["id", "secret_digest", "name", "role"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        world.post("/api/v1/tokens", &wrong).await.problem(),
        (422, "invalid".into(), fields)
    );
    let unknown = json!({"id": "1123456789abcdef", "secret_digest": "sha256:".to_owned() + &"0".repeat(64),
        "name": "n", "role": "tenant_admin", "tenant_id": "none-00000000"});
    assert_eq!(
        world.post("/api/v1/tokens", &unknown).await.problem().1,
        "not-found"
    );
}
