//! Licences over the API: shown as they are now, changed by an operator, and withdrawn from and given back to instances.

use dotmac_domain::access::Role;
use serde_json::{Value, json};

use super::{
    changes::named,
    platform::{ask_seen, items},
    reported::usage,
    world::{ADMIN, World},
};
use crate::api::DEPLOYMENTS;

const LICENSES: &str = "/api/v1/licenses";
const DAY_MS: u64 = 24 * 3_600_000;

async fn deploy(world: &World, name: &str) -> String {
    let created = world.post(DEPLOYMENTS, &named(name)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_license_is_shown_changed_and_leads_by_time_into_grace_and_restriction() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    world.report(&id, vec![usage(1, 850)]).await;
    let path = format!("{LICENSES}/{id}");
    let shown = world.get(&path).await;
    assert_eq!(shown.header("etag"), "\"r1\"");
    let license = shown.json();
    let features = license["features"].as_object().unwrap();
    assert_eq!(
        (&features["api_access"], &features["ai_insights"]),
        (&json!(true), &json!(false))
    );
    let mut expected = json!({"id": id, "tenant_id": id, "tenant_name": "Demo ISP", "environment": "production",
        "status": "valid", "license_tier": "basic", "max_subscribers": 1000, "effective_max_subscribers": 1000, "max_services": 500,
        "api_rate_limit": 1000, "expires_at": null, "grace_days": 14, "restricted_at": null,
        "active_subscribers": 850, "limit_used_percent": 85, "reason": null, "since": null, "revision": 1});
    expected["features"] = license["features"].clone();
    assert_eq!(license, expected);

    let change = json!({"license_tier": "enterprise", "max_subscribers": 900, "max_services": 7, "api_rate_limit": 100,
        "expires_at": "2023-11-15T22:13:20Z", "grace_days": 1});
    let plan = format!("{path}?dry_run=true");
    let plan = world.ask(ADMIN, "PATCH", &plan, Some(&change)).await.json();
    assert_eq!(plan["result"]["max_subscribers"], 900);
    assert_eq!(
        world.get(&path).await.json(),
        expected,
        "a plan changes nothing"
    );
    let stale = ask_seen(&world, "PATCH", &path, "\"r9\"", Some(&change)).await;
    assert_eq!(stale.problem().1, "precondition-failed");
    let changed = ask_seen(&world, "PATCH", &path, "\"r1\"", Some(&change)).await;
    assert_eq!(
        (changed.status, changed.header("etag")),
        (200, "\"r2\""),
        "{}",
        changed.text
    );
    let changed = changed.json();
    assert_eq!(
        (&changed["license_tier"], &changed["limit_used_percent"]),
        (&json!("enterprise"), &json!(94))
    );
    assert_eq!(changed["features"]["ai_insights"], true);
    assert_eq!(changed["restricted_at"], "2023-11-16T22:13:20.000Z");

    for (phase, insights) in [("grace", true), ("restricted", false)] {
        world.clock.advance_millis(DAY_MS);
        // The State's time goes on with whatever is committed.
        let other = deploy(&world, phase).await;
        let license = world.get(&path).await.json();
        assert_eq!(license["status"], phase);
        assert_eq!(license["features"]["ai_insights"], insights);
        let listed = format!("{LICENSES}?status={phase}");
        let found = items(&world.get(&listed).await).collect::<Vec<_>>();
        assert_eq!(found, [license]);
        let deployment = world.get(&format!("{DEPLOYMENTS}/{id}")).await.json();
        assert_eq!(deployment["license"]["status"], phase);
        assert_eq!(deployment["status"], "provisioning", "time stops nothing");
        let valid = world.get(&format!("{LICENSES}?status=valid")).await;
        assert!(
            items(&valid)
                .map(|one| one["id"].clone())
                .any(|one| one == other)
        );
    }
    let never = json!({"expires_at": null});
    let renewed = world.ask(ADMIN, "PATCH", &path, Some(&never)).await.json();
    assert_eq!(
        (&renewed["status"], &renewed["expires_at"]),
        (&json!("valid"), &Value::Null)
    );
    world.stop().await;
}

#[tokio::test]
async fn a_withdrawn_license_stops_its_instance_and_a_reinstated_one_starts_it() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let (path, deployment) = (format!("{LICENSES}/{id}"), format!("{DEPLOYMENTS}/{id}"));
    let reason = json!({"reason": "unpaid"});
    let suspended = world.post(&format!("{path}/suspend"), &reason).await;
    assert_eq!(suspended.status, 202, "{}", suspended.text);
    let license = suspended.json();
    assert_eq!(
        (&license["status"], &license["reason"], &license["since"]),
        (
            &json!("suspended"),
            &json!("unpaid"),
            &json!("2023-11-14T22:13:20.000Z")
        )
    );
    let stopped = world.get(&deployment).await.json();
    assert_eq!(
        (&stopped["status"], &stopped["suspended_reason"]),
        (&json!("suspended"), &json!("license suspended: unpaid"))
    );
    assert_eq!(stopped["license"]["status"], "suspended");
    let resumed = world
        .post(&format!("{deployment}/resume"), &json!({}))
        .await;
    assert_eq!(resumed.problem().0, 409);
    let again = world.post(&format!("{path}/suspend"), &reason).await;
    assert_eq!(again.problem().1, "wrong-state");
    let revoked = world.post(&format!("{path}/revoke"), &reason).await;
    assert_eq!(
        (revoked.status, &revoked.json()["status"]),
        (202, &json!("revoked"))
    );
    let tenant = world.get(&format!("/api/v1/tenants/{id}")).await.json();
    assert_eq!(
        (&tenant["status"], &tenant["license"]["status"]),
        (&json!("suspended"), &json!("revoked"))
    );
    let reinstated = world
        .ask(ADMIN, "POST", &format!("{path}/reinstate"), None)
        .await;
    assert_eq!(
        (reinstated.status, &reinstated.json()["status"]),
        (202, &json!("valid"))
    );
    assert_eq!(
        world.get(&deployment).await.json()["status"],
        "provisioning"
    );
    let again = world
        .ask(ADMIN, "POST", &format!("{path}/reinstate"), None)
        .await;
    assert_eq!(again.problem().0, 409);
    world.stop().await;
}

#[tokio::test]
async fn what_a_license_cannot_be_is_refused_by_name() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let path = format!("{LICENSES}/{id}");
    let wrong = [
        json!({"license_tier": "gold"}),
        json!({"max_subscribers": 0}),
        json!({"max_services": 100_001}),
        json!({"api_rate_limit": 99}),
        json!({"expires_at": "tomorrow"}),
        json!({"grace_days": 91}),
        json!({"standing": "valid"}),
    ];
    for body in wrong {
        let field = body.as_object().unwrap().keys().next().unwrap().clone();
        let problem = world
            .ask(ADMIN, "PATCH", &path, Some(&body))
            .await
            .problem();
        assert_eq!(problem, (422, "invalid".into(), vec![field]));
    }
    for body in [
        json!({}),
        json!({"reason": " "}),
        json!({"reason": "x".repeat(501)}),
    ] {
        for order in ["suspend", "revoke"] {
            let problem = world
                .post(&format!("{path}/{order}"), &body)
                .await
                .problem();
            assert_eq!(problem, (422, "invalid".into(), vec!["reason".into()]));
        }
    }
    for query in ["status=gone", "tenant_id=x", "colour=1"] {
        let problem = world.get(&format!("{LICENSES}?{query}")).await.problem();
        assert_eq!(problem.0, 422, "{query}");
    }
    world.stop().await;
}

#[tokio::test]
async fn law_7_a_tenant_sees_its_own_license_alone_and_changes_none() {
    let world = World::new().await;
    let (own, other) = (deploy(&world, "Own").await, deploy(&world, "Other").await);
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let listed = world.ask(&token, "GET", LICENSES, None).await;
    let ids: Vec<Value> = items(&listed).map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [json!(own)]);
    let foreign = format!("{LICENSES}?tenant_id={other}");
    assert_eq!(
        items(&world.ask(&token, "GET", &foreign, None).await).count(),
        0
    );
    let reason = json!({"reason": "mine"});
    for id in [&own, &other] {
        let path = format!("{LICENSES}/{id}/suspend");
        let answer = world.ask(&token, "POST", &path, Some(&reason)).await;
        assert_eq!(answer.problem().0, 403);
    }
    world.stop().await;
}
