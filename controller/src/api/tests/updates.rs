//! Changes of a deployment that is there: what they answer, what a dry run answers, and what a stale `If-Match` gets.

use serde_json::{Value, json};

use super::{
    changes::quick_start,
    world::{ADMIN, Answer, World},
};
use crate::api::DEPLOYMENTS;

async fn created(world: &World) -> (String, Answer) {
    let created = world.post(DEPLOYMENTS, &quick_start()).await;
    assert_eq!(created.status, 201, "{}", created.text);
    (created.header("location").to_owned(), created)
}

async fn suspend(world: &World, path: &str, if_match: &str, query: &str) -> Answer {
    let request = world
        .request("POST", &format!("{path}/suspend{query}"))
        .bearer_auth(ADMIN)
        .json(&json!({"reason": "unpaid"}));
    World::send(request.header("If-Match", if_match)).await
}

#[tokio::test]
async fn a_dry_run_answers_with_the_differences_and_changes_nothing() {
    let world = World::new().await;
    let (path, _) = created(&world).await;
    let before = world.node.state().digest();
    let plan = suspend(&world, &path, "*", "?dry_run=true").await;
    assert_eq!(plan.status, 200, "{}", plan.text);
    let body = plan.json();
    assert_eq!(
        (&body["dry_run"], &body["changes"]),
        (
            &json!(true),
            &json!([
                {"field": "status", "from": "provisioning", "to": "suspended"},
                {"field": "suspended_reason", "from": null, "to": "unpaid"},
            ])
        )
    );
    assert_eq!(body["result"]["status"], "suspended");
    assert_eq!(
        plan.header("etag"),
        "\"r1\"",
        "the version that the plan is about"
    );
    assert_eq!(world.node.state().digest(), before);

    let creation = json!({"tenant_name": "New ISP", "max_customers": 7});
    let plan = world
        .post(&format!("{DEPLOYMENTS}?dry_run=true"), &creation)
        .await;
    assert_eq!(
        (plan.status, plan.header("location")),
        (200, ""),
        "{}",
        plan.text
    );
    let changes = plan.json()["changes"].clone();
    let changes: Vec<Value> = serde_json::from_value(changes).unwrap();
    assert!(changes.contains(&json!({"field": "max_customers", "from": null, "to": 7})));
    assert_eq!(world.node.state().digest(), before);

    // What would be refused is refused in the same words.
    let wrong = json!({"tenant_name": "X", "resource_tier": "custom"});
    let refused = world
        .post(&format!("{DEPLOYMENTS}?dry_run=true"), &wrong)
        .await;
    assert_eq!(
        refused.problem(),
        (422, "invalid".into(), vec!["resources".into()])
    );
    let unclear = world
        .post(&format!("{DEPLOYMENTS}?dry_run=1"), &creation)
        .await;
    assert_eq!(
        unclear.problem(),
        (422, "invalid".into(), vec!["dry_run".into()])
    );
    world.stop().await;
}

#[tokio::test]
async fn a_change_of_something_newer_than_was_seen_is_refused() {
    let world = World::new().await;
    let (path, seen) = created(&world).await;
    let suspended = suspend(&world, &path, seen.header("etag"), "").await;
    assert_eq!(
        (suspended.status, suspended.header("etag")),
        (202, "\"r2\"")
    );
    let resume = async |if_match: &str| {
        let request = world.request("POST", &format!("{path}/resume"));
        World::send(request.bearer_auth(ADMIN).header("If-Match", if_match)).await
    };
    for stale in [seen.header("etag"), "\"another\"", "\"\""] {
        assert_eq!(
            resume(stale).await.problem(),
            (412, "precondition-failed".into(), vec![])
        );
    }
    for wrong in ["r2", "W/\"r2\"", "\"r1\", \"r2\""] {
        assert_eq!(
            resume(wrong).await.problem(),
            (422, "invalid".into(), vec!["If-Match".into()])
        );
    }
    assert_eq!(resume(suspended.header("etag")).await.status, 202);
    world.stop().await;
}

#[tokio::test]
async fn numbers_and_words_of_a_change_are_checked_field_by_field() {
    let world = World::new().await;
    let (path, _) = created(&world).await;
    let scale = format!("{path}/scale");
    let cases = [
        ("POST", scale.as_str(), json!({"replicas": 4}), "replicas"),
        ("POST", &scale, json!({"replicas": 21}), "replicas"),
        ("POST", &scale, json!({}), "replicas"),
        (
            "POST",
            &scale,
            json!({"replicas": 1, "reason": "é".repeat(501)}),
            "reason",
        ),
        ("PATCH", &path, json!({"min_replicas": 21}), "min_replicas"),
        ("PATCH", &path, json!({"max_replicas": 0}), "max_replicas"),
        (
            "PATCH",
            &path,
            json!({"license_tier": "gold"}),
            "license_tier",
        ),
        (
            "PATCH",
            &path,
            json!({"features": {"crm": 1}}),
            "features.crm",
        ),
        ("PATCH", &path, json!({"status": "active"}), "status"),
    ];
    for (method, path, body, field) in cases {
        let refused = world.ask(ADMIN, method, path, Some(&body)).await;
        let expected = (422, "invalid".to_owned(), vec![field.to_owned()]);
        assert_eq!(refused.problem(), expected, "{body}");
    }
    let body = json!({"replicas": 4});
    let above = world.ask(ADMIN, "POST", &scale, Some(&body)).await.json();
    assert_eq!(
        above["errors"][0]["allowed"],
        "at most 3, the maximum of tier small"
    );
    let unknown = json!({"tenant_name": "X", "image_tag": "9"});
    let unknown = world.post(DEPLOYMENTS, &unknown).await;
    assert_eq!(
        unknown.problem(),
        (409, "unknown-release".into(), vec!["image_tag".into()])
    );
    let early = world
        .ask(
            ADMIN,
            "PATCH",
            &path,
            Some(&json!({"license_tier": "free"})),
        )
        .await;
    assert_eq!(early.problem().1, "wrong-state");
    world.stop().await;
}
