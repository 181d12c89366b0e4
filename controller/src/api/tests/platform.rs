//! Tenants, regions, agents and tiers over HTTP: made, seen, changed by whoever saw them as they are, ended.

use dotmac_domain::access::Role;
use serde_json::{Value, json};

use super::{
    changes::named,
    world::{ADMIN, Answer, EMPTY_REGION, REGION, World},
};
use crate::api::DEPLOYMENTS;

const TENANTS: &str = "/api/v1/tenants";
const REGIONS: &str = "/api/v1/regions";
const AGENTS: &str = "/api/v1/agents";

/// Asks as the administrator, who saw this version.
pub(super) async fn ask_seen(
    world: &World,
    method: &str,
    path: &str,
    seen: &str,
    body: Option<&Value>,
) -> Answer {
    let mut request = world
        .request(method, path)
        .bearer_auth(ADMIN)
        .header("if-match", seen);
    if let Some(body) = body {
        request = request.json(body);
    }
    World::send(request).await
}

pub(super) fn items(answer: &Answer) -> impl Iterator<Item = Value> {
    let body = answer.json();
    body["items"].as_array().unwrap().clone().into_iter()
}

#[tokio::test]
async fn a_tenant_is_made_seen_changed_and_deleted() {
    let world = World::new().await;
    let body = json!({"tenant_name": "Alone ISP", "reseller_id": "partner-1"});
    let plan = world.post(&format!("{TENANTS}?dry_run=true"), &body).await;
    assert_eq!(
        (plan.status, &plan.json()["dry_run"]),
        (200, &json!(true)),
        "{}",
        plan.text
    );
    let made = world.post(TENANTS, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = format!("{TENANTS}/{id}");
    assert_eq!(
        (made.header("location"), made.header("etag")),
        (&*path, "\"r1\"")
    );
    let expected = json!({"id": id, "tenant_name": "Alone ISP", "status": "pending", "reseller_id": "partner-1",
        "deployments": [], "created_at": "2023-11-14T22:13:20.000Z", "last_updated": "2023-11-14T22:13:20.000Z",
        "license": null, "usage": null});
    assert_eq!(made.json(), expected);
    assert_eq!(world.get(&path).await.json(), expected);
    let rename = json!({"tenant_name": "Renamed ISP", "reseller_id": ""});
    let seen = "\"r1\"";
    let renamed = ask_seen(&world, "PATCH", &path, seen, Some(&rename)).await;
    assert_eq!(
        (renamed.status, renamed.header("etag")),
        (200, "\"r2\""),
        "{}",
        renamed.text
    );
    assert_eq!(
        (
            &renamed.json()["tenant_name"],
            &renamed.json()["reseller_id"]
        ),
        (&json!("Renamed ISP"), &Value::Null)
    );
    assert_eq!(
        ask_seen(&world, "PATCH", &path, seen, Some(&rename))
            .await
            .status,
        412
    );
    let wrong = json!({"tenant_name": " ", "reseller_id": "a\u{1b}", "status": "active"});
    let refused = world.ask(ADMIN, "PATCH", &path, Some(&wrong)).await;
    let fields = ["tenant_name", "reseller_id", "status"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(refused.problem(), (422, "invalid".into(), fields));
    let first = json!({"tenant_id": id, "environment": "staging"});
    let deployment = world.post(DEPLOYMENTS, &first).await.json();
    assert_eq!(deployment["id"], json!(id));
    assert_eq!(world.get(&path).await.json()["deployments"], json!([id]));
    let kept = world.ask(ADMIN, "DELETE", &path, None).await;
    assert_eq!(kept.problem().1, "wrong-state");
    world
        .ask(ADMIN, "DELETE", &format!("{DEPLOYMENTS}/{id}"), None)
        .await;
    world.clock.advance_millis(1_000);
    world.remove(&id).await;
    assert_eq!(world.get(&path).await.json()["status"], "deprovisioning");
    world.stop().await;
}

#[tokio::test]
async fn a_deleted_tenant_is_cancelled_and_listed_only_when_asked_for() {
    let world = World::new().await;
    let body = json!({"tenant_name": "Short ISP", "reseller_id": "partner-1"});
    let id = world.post(TENANTS, &body).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let token = world.token(Role::TenantAdmin, Some(&id)).await;
    assert_eq!(world.ask(&token, "GET", TENANTS, None).await.status, 200);
    let deleted = world
        .ask(ADMIN, "DELETE", &format!("{TENANTS}/{id}"), None)
        .await;
    assert_eq!(
        (deleted.status, &deleted.json()["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(
        world.ask(&token, "GET", TENANTS, None).await.problem().1,
        "token-ended"
    );
    let other = world.post(DEPLOYMENTS, &named("Other")).await.json()["id"].clone();
    for (query, expected) in [
        ("", vec![&other]),
        ("?status_filter=cancelled", vec![&deleted.json()["id"]]),
        ("?status_filter=cancelled&reseller_id=partner-2", vec![]),
        ("?reseller_id=partner-1", vec![]),
        ("?status_filter=provisioning", vec![&other]),
    ] {
        let listed = world.get(&format!("{TENANTS}{query}")).await;
        let ids: Vec<Value> = items(&listed).map(|one| one["id"].clone()).collect();
        assert_eq!(ids.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let wrong = world.get(&format!("{TENANTS}?status_filter=happy")).await;
    assert_eq!(wrong.problem().2, ["status_filter"]);
    // Its story is still told.
    let story = world.get(&format!("/api/v1/audit?tenant={id}")).await;
    let actions: Vec<Value> = items(&story).map(|one| one["action"].clone()).collect();
    assert_eq!(
        actions,
        ["tenant.created", "token.created", "tenant.deleted"]
    );
    world.stop().await;
}

#[tokio::test]
async fn pages_hold_while_things_come_and_go() {
    let world = World::new().await;
    for name in ["b", "d", "f", "h"] {
        let made = world
            .post(REGIONS, &json!({"id": format!("p-{name}")}))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let page = world.get(&format!("{REGIONS}?limit=3")).await;
    let mut seen: Vec<Value> = items(&page).map(|one| one["id"].clone()).collect();
    assert_eq!(seen, [EMPTY_REGION, REGION, "p-b"]);
    // One before the cursor, one behind it.
    for name in ["a", "c"] {
        world
            .post(REGIONS, &json!({"id": format!("p-{name}")}))
            .await;
    }
    let mut cursor = page.json()["next_cursor"].clone();
    while let Some(after) = cursor.as_str() {
        let page = world
            .get(&format!("{REGIONS}?limit=2&cursor={after}"))
            .await;
        seen.extend(items(&page).map(|one| one["id"].clone()));
        cursor = page.json()["next_cursor"].clone();
    }
    assert_eq!(
        seen,
        [EMPTY_REGION, REGION, "p-b", "p-c", "p-d", "p-f", "p-h"]
    );
    world.stop().await;
}

#[tokio::test]
async fn a_region_is_added_described_and_closed_and_shows_a_tenant_only_its_own() {
    let world = World::new().await;
    let made = world
        .post(REGIONS, &json!({"id": "moon-1", "description": "far"}))
        .await;
    let expected = json!({"id": "moon-1", "description": "far", "default": false, "accepts_deployments": true,
        "agents": {"connected": 0, "total": 0}, "deployments": 0, "created_at": "2023-11-14T22:13:20.000Z",
        "last_updated": "2023-11-14T22:13:20.000Z"});
    assert_eq!((made.status, made.json()), (201, expected), "{}", made.text);
    let again = world.post(REGIONS, &json!({"id": "moon-1"})).await;
    assert_eq!(again.problem().1, "already-exists");
    let own = world.post(DEPLOYMENTS, &named("Own")).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.post(DEPLOYMENTS, &named("Other")).await;
    let path = format!("{REGIONS}/{REGION}");
    let region = world.get(&path).await.json();
    assert_eq!(
        (&region["agents"], &region["deployments"]),
        (&json!({"connected": 0, "total": 1}), &json!(2))
    );
    assert_eq!(region["default"], true);
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let narrow = world.ask(&token, "GET", &path, None).await.json();
    assert_eq!(
        (&narrow["agents"], &narrow["deployments"]),
        (&Value::Null, &json!(1))
    );
    let closed = ask_seen(
        &world,
        "PATCH",
        &path,
        "\"r1\"",
        Some(&json!({"accepts_deployments": false})),
    )
    .await;
    assert_eq!(
        (closed.status, &closed.json()["accepts_deployments"]),
        (200, &json!(false))
    );
    let refused = world.post(DEPLOYMENTS, &named("Late")).await;
    assert_eq!(refused.problem().2, ["region"]);
    assert!(
        refused.text.contains(EMPTY_REGION) && refused.text.contains("moon-1"),
        "{}",
        refused.text
    );
    let elsewhere = json!({"tenant_name": "Late", "region": "moon-1"});
    assert_eq!(world.post(DEPLOYMENTS, &elsewhere).await.status, 201);
    world.stop().await;
}

#[tokio::test]
async fn an_agent_is_shown_and_shut_out() {
    let world = World::new().await;
    let path = format!("{AGENTS}/{}", world.agent);
    let shown = world.get(&path).await;
    assert_eq!((shown.status, shown.header("etag")), (200, "\"r1\""));
    assert_eq!(
        (&shown.json()["status"], &shown.json()["units"]),
        (&json!("unknown"), &json!(0))
    );
    for (query, count) in [
        (String::new(), 1),
        (format!("?region={REGION}&status=unknown"), 1),
        (format!("?region={EMPTY_REGION}"), 0),
        ("?status=connected".to_owned(), 0),
        ("?status=revoked".to_owned(), 0),
    ] {
        let listed = world.get(&format!("{AGENTS}{query}")).await;
        assert_eq!(items(&listed).count(), count, "{query}");
    }
    let plan = world
        .ask(ADMIN, "DELETE", &format!("{path}?dry_run=true"), None)
        .await;
    assert_eq!(plan.json()["result"]["status"], "revoked", "{}", plan.text);
    let gone = ask_seen(&world, "DELETE", &path, "\"r1\"", None).await;
    assert_eq!(
        (gone.status, &gone.json()["status"], gone.header("etag")),
        (200, &json!("revoked"), "\"r2\"")
    );
    let again = world.ask(ADMIN, "DELETE", &path, None).await;
    assert_eq!((again.status, again.json()), (200, gone.json()));
    assert_eq!(items(&world.get(AGENTS).await).count(), 0);
    assert_eq!(
        items(&world.get(&format!("{AGENTS}?status=revoked")).await).count(),
        1
    );
    world.stop().await;
}

#[tokio::test]
async fn a_join_token_is_listed_and_taken_back() {
    let world = World::new().await;
    let digest = format!("sha256:{}", "3".repeat(64));
    let body = json!({"id": "00000000000000bb", "secret_digest": digest, "region": REGION, "ttl_ms": 60_000});
    let tokens = format!("{AGENTS}/tokens");
    let made = world.post(&tokens, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let path = made.header("location").to_owned();
    let status = |answer: &Answer| answer.json()["status"].clone();
    assert_eq!(status(&world.get(&path).await), "waiting");
    let used = format!("{tokens}/00000000000000aa");
    let shown = world.get(&used).await.json();
    assert_eq!(
        (&shown["status"], &shown["used_by"]),
        (&json!("used"), &json!(world.agent))
    );
    let refused = world.ask(ADMIN, "DELETE", &used, None).await;
    assert_eq!(refused.problem().1, "wrong-state");
    let back = ask_seen(&world, "DELETE", &path, "\"r1\"", None).await;
    assert_eq!((back.status, status(&back)), (200, json!("revoked")));
    for (status, count) in [("waiting", 0), ("used", 1), ("revoked", 1), ("expired", 0)] {
        let listed = world.get(&format!("{tokens}?status={status}")).await;
        assert_eq!(items(&listed).count(), count, "{status}");
    }
    assert_eq!(items(&world.get(&tokens).await).count(), 2);
    let elsewhere = json!({"id": "00000000000000cc", "secret_digest": digest, "region": "mars"});
    let refused = world.post(&tokens, &elsewhere).await;
    assert_eq!(refused.problem().2, ["region"]);
    world.stop().await;
}

#[tokio::test]
async fn tiers_have_the_contracts_numbers() {
    let world = World::new().await;
    let tiers = world.get("/api/v1/tiers").await.json();
    let small = json!({"name": "small", "cpu_request": "250m", "memory_request": "512Mi", "cpu_limit": "1000m",
        "memory_limit": "2Gi", "storage": "10Gi", "max_replicas": 3, "production_replicas": 1, "price_usd": 79});
    assert_eq!(tiers["resource_tiers"][1], small);
    assert_eq!(tiers["resource_tiers"][5]["name"], "custom");
    let professional = json!({"name": "professional", "alias_of": "premium",
        "service_level": {"availability_percent": 99.5, "response_ms": 750, "error_percent": 1.5}});
    assert_eq!(tiers["license_tiers"][3], professional);
    assert_eq!(tiers["license_tiers"][0]["service_level"], Value::Null);
    world.stop().await;
}
