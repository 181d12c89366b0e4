//! What an instance is started with: who may ask, where, and what is left of it.

use dotmac_domain::{access::Role, fleet::Presence};
use dotmac_protocol::{ids::NodeId, time::Timestamp};
use serde_json::{Value, json};

use super::world::{ADMIN, EMPTY_REGION, World};
use crate::api::DEPLOYMENTS;

const MISSING: &str = "nobody-00000000";

async fn deploy(world: &World, body: Value) -> String {
    let created = world.post(DEPLOYMENTS, &body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.json()["tenant_id"].as_str().unwrap().to_owned()
}

fn path(tenant: &str, rest: &str) -> String {
    let key = "ab".repeat(32);
    format!("/api/v1/tenants/{tenant}/instance-env?seal_to={key}{rest}")
}

#[tokio::test]
async fn the_question_goes_where_the_agent_is_and_is_audited_before_it_is_put() {
    let world = World::new().await;
    let tenant = deploy(&world, json!({"tenant_name": "a"})).await;
    let away = world.get(&path(&tenant, "&component=web")).await;
    assert_eq!(away.problem(), (503, "agent-disconnected".into(), vec![]));
    let connected = Presence::Connected {
        node: NodeId(2),
        software: "1".into(),
        since: Timestamp(5),
    };
    world.note_presence(connected).await;
    let elsewhere = world.get(&path(&tenant, "")).await;
    let there = format!("http://127.0.0.1:8002{}", path(&tenant, ""));
    assert_eq!(
        (elsewhere.status, elsewhere.header("location")),
        (307, &*there)
    );
    let story = world.get(&format!("/api/v1/audit?tenant={tenant}")).await;
    let story = story.json();
    let looks: Vec<&Value> = story["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["action"] == "tenant.instance-env-read")
        .collect();
    assert_eq!(looks.len(), 1, "whoever is asked notes it: {story}");
    let detail = format!("{tenant}: the environment of web, with its secrets");
    assert_eq!(looks[0]["detail"], detail);
    assert_eq!(looks[0]["request"], away.header("x-request-id"));
    assert!(looks[0]["actor"].as_str().unwrap().starts_with("person:"));
}

#[tokio::test]
async fn law_7_a_foreign_tenant_and_a_missing_one_are_the_same_404() {
    let world = World::new().await;
    let own = deploy(&world, json!({"tenant_name": "own"})).await;
    let foreign = deploy(&world, json!({"tenant_name": "foreign"})).await;
    let admin = world.token(Role::TenantAdmin, Some(&own)).await;
    let own = world.ask(&admin, "GET", &path(&own, ""), None).await;
    assert_eq!(own.status, 503, "he may ask: {}", own.text);
    let mut said = Vec::new();
    for tenant in [&*foreign, MISSING] {
        let answer = world.ask(&admin, "GET", &path(tenant, ""), None).await;
        assert_eq!(answer.problem().0, 404);
        said.push(
            answer.json()["detail"]
                .to_string()
                .replace(tenant, "TENANT"),
        );
    }
    assert_eq!(said[0], said[1]);
    let note = format!("{foreign}: the environment");
    assert!(!world.remembers(&note), "nothing was asked of it");
    for role in [Role::Support, Role::Auditor, Role::Reseller] {
        let token = world.token(role, None).await;
        for tenant in [&*foreign, MISSING] {
            let answer = world.ask(&token, "GET", &path(tenant, ""), None).await;
            assert_eq!(answer.problem().1, "forbidden", "{role:?}");
        }
    }
}

#[tokio::test]
async fn which_deployment_is_meant_is_never_guessed_wrongly() {
    let world = World::new().await;
    let tenant = deploy(
        &world,
        json!({"tenant_name": "a", "environment": "staging"}),
    )
    .await;
    let found = async |rest: &str| world.get(&path(&tenant, rest)).await.problem().1;
    assert_eq!(found("").await, "agent-disconnected", "its only one");
    assert_eq!(found("&environment=production").await, "not-found");
    let further = json!({"tenant_name": "a", "tenant_id": tenant, "environment": "development"});
    deploy(&world, further).await;
    let several = world.get(&path(&tenant, "")).await;
    assert_eq!(several.problem().1, "wrong-state");
    let detail = several.json()["detail"].to_string();
    assert!(detail.contains("say which environment"), "{detail}");
    assert_eq!(found("&environment=staging").await, "agent-disconnected");
    let wrong = world
        .get(&path(&tenant, "&environment=test&component=%2f"))
        .await;
    let fields = vec!["environment".into(), "component".into()];
    assert_eq!(wrong.problem(), (422, "invalid".into(), fields));
    let without = format!("/api/v1/tenants/{tenant}/instance-env?seal_to=abc");
    let wrong = world.ask(ADMIN, "GET", &without, None).await.problem();
    assert_eq!(wrong, (422, "invalid".into(), vec!["seal_to".into()]));

    let pending = json!({"tenant_name": "b", "region": EMPTY_REGION});
    let pending = deploy(&world, pending).await;
    let nobody = world.get(&path(&pending, "")).await;
    assert_eq!(nobody.problem().1, "wrong-state");
}
