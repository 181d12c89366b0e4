//! What instances report and what is measured of them, over the API: in pages that stay as they are while more comes.

use dotmac_domain::access::Role;
use dotmac_protocol::{
    record::reports::{Claim, EVENT_TYPES, InstanceEvent, PluginUsage, ProbeMinute, Report, Usage},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{
    changes::named,
    platform::items,
    world::{ADMIN, World},
};
use crate::api::DEPLOYMENTS;

const TENANTS: &str = "/api/v1/tenants";
/// When the world begins, in minutes.
const NOW_MINUTES: u64 = 1_700_000_000_000 / 60_000;

pub(super) fn usage(at: u64, active_subscribers: u64) -> Report {
    Report::Usage(Box::new(Usage {
        reported_at: Timestamp(at),
        active_subscribers,
        total_subscribers: 1_200,
        new_subscribers_today: 3,
        churned_subscribers_today: 1,
        active_sessions: 70,
        sessions_today: 400,
        data_usage_kb: 1_234_567,
        active_nas_devices: 2,
        active_olts: 1,
        active_onts: 60,
        revenue_today: Some("120.50".into()),
        outstanding_invoices: None,
    }))
}

fn event(number: u64, event_type: &str, payload: &str) -> Report {
    Report::Event(InstanceEvent {
        event_id: format!("event-{number}"),
        event_type: event_type.into(),
        occurred_at: Timestamp(number),
        payload: payload.into(),
    })
}

fn minute(number: u64, component: &str, probes: u32, failed: u32) -> Report {
    Report::Minute(ProbeMinute {
        minute: Timestamp(number * 60_000),
        component: component.parse().unwrap(),
        probes,
        failed,
        latency_sum_ms: u64::from(probes) * 5,
        latency_max_ms: 9,
    })
}

async fn deploy(world: &World, name: &str) -> String {
    let created = world.post(DEPLOYMENTS, &named(name)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.json()["id"].as_str().unwrap().to_owned()
}

/// One member of all items of all pages, newest first.
async fn walked(world: &World, path: &str, member: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}{cursor}")).await;
        found.extend(items(&page).map(|item| item[member].clone()));
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn usage_is_shown_against_the_license_and_in_stable_pages() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let path = format!("{TENANTS}/{id}/usage");
    let nothing = world.get(&path).await.json();
    assert_eq!(
        nothing,
        json!({"tenant_id": id, "deployment": id, "environment": "production", "current": null, "peaks": [],
            "counts": {"count": 0, "last_at": null}, "plugin_counts": {"count": 0, "last_at": null}, "ignored": 0,
            "items": [], "next_cursor": null})
    );
    for (number, counts) in (1..).zip([700, 990, 800, 810, 820]) {
        let at = NOW_MINUTES * 60_000 + number;
        world.report(&id, vec![usage(at, counts)]).await;
    }
    let plugin = PluginUsage {
        plugin_id: "crm".into(),
        metric_name: "api_calls".into(),
        usage_count: 5,
        timestamp: Timestamp(6),
    };
    world.report(&id, vec![Report::Plugin(plugin)]).await;
    let page = world.get(&format!("{path}?limit=2")).await.json();
    let current = &page["current"];
    assert_eq!(
        (
            &current["active_subscribers"],
            &current["limit_used_percent"]
        ),
        (&json!(820), &json!(82))
    );
    assert_eq!(
        (&current["max_subscribers"], &current["total_data_usage_mb"]),
        (&json!(1000), &json!(1234.567))
    );
    assert_eq!(
        page["peaks"],
        json!([{"month": "2023-11", "active_subscribers": 990}])
    );
    assert_eq!(page["counts"]["count"], 5);
    assert_eq!(
        page["items"][0]["plugin"],
        json!({"plugin_id": "crm", "metric_name": "api_calls", "usage_count": 5,
            "timestamp": "1970-01-01T00:00:00.006Z"})
    );
    assert_eq!(page["items"][1]["usage"]["active_subscribers"], 820);
    // More that comes moves nothing that a cursor leads to.
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let next = format!("{path}?limit=2&cursor={cursor}");
    let before = world.get(&next).await.json()["items"].clone();
    world.report(&id, vec![usage(7, 5)]).await;
    assert_eq!(world.get(&next).await.json()["items"], before);
    let all = walked(&world, &format!("{path}?limit=2"), "sequence").await;
    assert_eq!(all, [7, 6, 5, 4, 3, 2, 1].map(|number| json!(number)));
    let plugins = walked(&world, &format!("{path}?limit=1&kind=plugin"), "sequence").await;
    assert_eq!(plugins, [json!(6)]);
    let tenant = world.get(&format!("{TENANTS}/{id}")).await.json();
    let deployment = world.get(&format!("{DEPLOYMENTS}/{id}")).await.json();
    // A count that comes late is kept, but what is used now stays what was counted last.
    let brief = json!({"active_subscribers": 820, "max_subscribers": 1000, "effective_max_subscribers": 1000, "limit_used_percent": 82,
        "received_at": "2023-11-14T22:13:20.000Z"});
    assert_eq!((&tenant["usage"], &deployment["usage"]), (&brief, &brief));
    world.stop().await;
}

#[tokio::test]
async fn events_are_shown_newest_first_and_by_type_however_rare() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let path = format!("{TENANTS}/{id}/events");
    world
        .report(&id, vec![event(0, "olt.alarm", r#"{"olt": 3}"#)])
        .await;
    // More than are looked at for one page.
    for batch in 0..60 {
        let reports = (1..=100).map(|one| event(batch * 100 + one, "session.started", "{}"));
        world.report(&id, reports.collect()).await;
    }
    world.report(&id, vec![event(9_999, "olt.alarm", "")]).await;
    let page = world.get(&format!("{path}?limit=2")).await.json();
    assert_eq!(page["count"], 6_002);
    assert_eq!(
        page["items"][0],
        json!({"sequence": 6_002, "received_at": "2023-11-14T22:13:20.000Z", "event_id": "event-9999",
            "event_type": "olt.alarm", "occurred_at": "1970-01-01T00:00:09.999Z", "payload": null})
    );
    assert_eq!(page["items"][1]["event_id"], "event-6000");
    let alarms = format!("{path}?event_type=olt.alarm");
    let first = world.get(&alarms).await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
    assert!(
        first["next_cursor"].is_string(),
        "it goes on where it stopped looking"
    );
    let found = walked(&world, &format!("{alarms}&limit=10"), "payload").await;
    assert_eq!(found, [Value::Null, json!({"olt": 3})]);
    let none = world.get(&format!("{path}?event_type=nas.offline")).await;
    assert_eq!(none.json()["items"], json!([]));
    world.stop().await;
}

#[tokio::test]
async fn a_type_of_event_that_cannot_exist_is_refused_with_those_that_can() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let path = format!("{TENANTS}/{id}/events?event_type=payment.recieved");
    let answer = world.get(&path).await;
    assert_eq!(answer.status, 422);
    let expected = json!([{"field": "event_type", "value": "payment.recieved",
        "allowed": EVENT_TYPES.join(", ")}]);
    assert_eq!(answer.json()["errors"], expected);
    world.stop().await;
}

#[tokio::test]
async fn what_an_instance_claims_stands_beside_what_probes_found_and_never_instead() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let path = format!("{TENANTS}/{id}/health");
    let nothing = world.get(&path).await.json();
    assert_eq!(
        (&nothing["claimed"], &nothing["observed"]["last_hour"]),
        (&Value::Null, &Value::Null)
    );
    let word = || "healthy".to_owned();
    let claim = Claim {
        reported_at: Timestamp(5),
        status: word(),
        api_status: word(),
        radius_status: word(),
        database_status: word(),
        redis_status: word(),
        cpu_usage_basis_points: 1_250,
        memory_usage_basis_points: 4_000,
        disk_usage_basis_points: 1,
        app_version: "1.0.0".into(),
        config_version: "none".into(),
    };
    let reports = vec![
        minute(NOW_MINUTES - 90, "web", 6, 6),
        minute(NOW_MINUTES - 2, "web", 6, 6),
        minute(NOW_MINUTES - 2, "db", 6, 0),
        minute(NOW_MINUTES - 1, "web", 4, 0),
        Report::Claim(Box::new(claim)),
    ];
    world.report(&id, reports).await;
    let health = world.get(&format!("{path}?limit=3")).await.json();
    assert_eq!(
        health["observed"],
        json!({"status": "unknown", "reason": "", "pod_count": 0, "ready_pods": 0,
            "last_hour": {"minutes": 2, "probes": 16, "failed": 6, "availability_percent": 62.5,
                "latency_mean_ms": 5, "latency_max_ms": 9}})
    );
    let claimed = &health["claimed"];
    assert_eq!(
        (
            &claimed["status"],
            &claimed["cpu_usage_percent"],
            &claimed["disk_usage_percent"]
        ),
        (&json!("healthy"), &json!(12.5), &json!(0.01))
    );
    let deployment = world.get(&format!("{DEPLOYMENTS}/{id}")).await.json();
    assert_eq!(deployment["health_status"], "unknown");
    assert_eq!(health["items"].as_array().unwrap().len(), 3);
    assert_eq!(
        (
            &health["items"][0]["component"],
            &health["items"][0]["failed"]
        ),
        (&json!("web"), &json!(0))
    );
    let all = walked(&world, &format!("{path}?limit=3"), "probes").await;
    assert_eq!(all, [4, 6, 6, 6].map(|probes| json!(probes)));
    world.stop().await;
}

#[tokio::test]
async fn law_7_a_series_is_its_tenants_alone_and_so_is_its_chain() {
    let world = World::new().await;
    let (own, other) = (deploy(&world, "Own").await, deploy(&world, "Other").await);
    for id in [&own, &other] {
        world
            .report(id, vec![usage(1, 5), event(1, "olt.alarm", "{}")])
            .await;
    }
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    for series in ["usage", "events", "health"] {
        let path = |id: &str| format!("{TENANTS}/{id}/{series}");
        assert_eq!(
            world.ask(&token, "GET", &path(&own), None).await.status,
            200
        );
        let foreign = world.ask(&token, "GET", &path(&other), None).await;
        assert_eq!(foreign.problem().1, "not-found");
    }
    let streams = world
        .ask(&token, "GET", "/api/v1/audit/streams", None)
        .await;
    let seen: Vec<Value> = items(&streams).map(|one| one["stream"].clone()).collect();
    assert_eq!(
        seen,
        [
            format!("tenant/{own}"),
            format!("usage/{own}"),
            format!("events/{own}")
        ]
        .map(|one| json!(one))
    );
    let records = |id: &str| format!("/api/v1/audit/records?stream=usage/{id}");
    let links = world.ask(&token, "GET", &records(&own), None).await;
    assert_eq!(items(&links).count(), 1);
    for id in [&other, &"nobody-00000000".to_owned()] {
        let foreign = world.ask(&token, "GET", &records(id), None).await;
        assert_eq!(foreign.problem().1, "not-found");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_series_is_of_the_environment_that_is_named() {
    let world = World::new().await;
    let id = deploy(&world, "Demo ISP").await;
    let staging = json!({"tenant_id": id, "environment": "staging"});
    let staging = world.post(DEPLOYMENTS, &staging).await.json()["id"].clone();
    let staging = staging.as_str().unwrap();
    world.report(staging, vec![usage(1, 5)]).await;
    let of = |environment: &str| format!("{TENANTS}/{id}/usage?environment={environment}");
    let shown = world.get(&of("staging")).await.json();
    assert_eq!(
        (&shown["deployment"], &shown["counts"]["count"]),
        (&json!(staging), &json!(1))
    );
    let usual = world.get(&format!("{TENANTS}/{id}/usage")).await.json();
    assert_eq!(
        (&usual["deployment"], &usual["counts"]["count"]),
        (&json!(id), &json!(0))
    );
    assert_eq!(world.get(&of("development")).await.problem().1, "not-found");
    for wrong in [
        "environment=moon",
        "limit=0",
        "cursor=0",
        "cursor=x",
        "kind=all",
    ] {
        let problem = world
            .get(&format!("{TENANTS}/{id}/usage?{wrong}"))
            .await
            .problem();
        let field = wrong.split('=').next().unwrap().to_owned();
        assert_eq!((problem.0, problem.2), (422, vec![field]), "{wrong}");
    }
    let alone = world
        .post(TENANTS, &json!({"tenant_name": "Alone"}))
        .await
        .json();
    let path = format!("{TENANTS}/{}/usage", alone["id"].as_str().unwrap());
    assert_eq!(
        world.ask(ADMIN, "GET", &path, None).await.problem().1,
        "wrong-state"
    );
    world.stop().await;
}
