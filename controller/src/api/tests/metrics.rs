//! What a controller tells of itself: metrics for whoever may read them, in a form that collectors read, and whether it
//! is ready, for everybody.

use std::collections::BTreeSet;

use dotmac_domain::access::Role;
use dotmac_runtime::metrics::{PROCESS, READINESS, SPANS};
use serde_json::{Value, json};

use super::world::{ADMIN, Answer, REGION, World};
use crate::{
    log::{Leadership, LogError},
    metrics::catalogue::ALL,
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The world's controller, with everything that a program tells.
async fn told() -> (World, tempfile::TempDir) {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    world
        .node
        .metrics
        .watch(&world.node, directory.path().to_owned());
    (world, directory)
}

async fn metrics(world: &World, accept: &str) -> Answer {
    let request = world.request("GET", "/metrics").bearer_auth(ADMIN);
    World::send(request.header("accept", accept)).await
}

/// The value of a series, as it is written.
fn value<'t>(text: &'t str, series: &str) -> &'t str {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("{series} is missing in {text}"))
        .trim()
}

#[tokio::test]
async fn metrics_are_for_whoever_may_read_them_and_tell_no_names() {
    let (world, _directory) = told().await;
    let nobody = World::send(world.request("GET", "/metrics")).await;
    assert_eq!(nobody.problem().0, 401);
    assert!(!nobody.text.contains("dotmac_"), "{}", nobody.text);
    let asked = json!({"tenant_name": "Lagos Fibre"});
    let tenant = world.post("/api/v1/tenants", &asked).await;
    let tenant = tenant.json()["id"].as_str().unwrap().to_owned();
    let user = world.token(Role::TenantAdmin, Some(&tenant)).await;
    assert_eq!(
        world.ask(&user, "GET", "/metrics", None).await.problem().0,
        403
    );
    let unknown = world.get("/metrics?consistency=stale").await;
    assert_eq!(unknown.problem().0, 422);
    world.get(&format!("/api/v1/tenants/{tenant}")).await;
    let told = metrics(&world, "*/*").await;
    assert_eq!(
        (told.status, told.header("content-type")),
        (200, OPENMETRICS)
    );
    assert!(told.text.ends_with("# EOF\n"), "{}", told.text);
    for name in [tenant.as_str(), "Lagos", ADMIN, world.agent.as_str()] {
        assert!(!told.text.contains(name), "{name} is told in {}", told.text);
    }
    let own = "{route=\"/api/v1/tenants/{id}\",method=\"GET\",status=\"2xx\"}";
    let own = format!("dotmac_http_requests_total{own}");
    assert_eq!(value(&told.text, &own), "1");
    world.stop().await;
}

#[tokio::test]
async fn who_prefers_the_older_text_gets_it() {
    let (world, _directory) = told().await;
    let old = metrics(&world, "text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!((old.status, old.header("content-type")), (200, kind));
    assert!(
        old.text
            .contains("# TYPE dotmac_waves_sealed_total counter\n")
    );
    assert!(!old.text.contains("# EOF") && !old.text.contains("# UNIT"));
    world.stop().await;
}

#[tokio::test]
async fn exactly_the_documented_metrics_are_told_without_a_leader_too() {
    let (world, _directory) = told().await;
    world.get("/api/v1/nowhere").await;
    let leadership = Leadership {
        term: 7,
        leader: None,
    };
    world.log.leadership.send_replace(leadership);
    let text = metrics(&world, "").await.text;
    assert_eq!(value(&text, "dotmac_raft_term "), "7");
    assert_eq!(value(&text, "dotmac_raft_leader_known "), "0");
    let agents = ["connected", "disconnected", "unknown"].map(|presence| {
        let labels = format!("{{region=\"{REGION}\",presence=\"{presence}\"}}");
        let count = value(&text, &format!("dotmac_agents{labels}"));
        count.parse::<u64>().unwrap()
    });
    assert_eq!(agents.iter().sum::<u64>(), 1);
    assert_eq!(
        value(&text, "dotmac_http_problems_total{code=\"no-such-path\"}"),
        "1"
    );
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    let known = ALL.iter().chain(&READINESS).chain(&SPANS).chain(&PROCESS);
    let known: BTreeSet<&str> = known.map(|metric| metric.name).collect();
    // These appear with what they count: a clock of the cluster, a caller who took too much.
    let mut rare = BTreeSet::from([
        "dotmac_signed_clock_age_seconds",
        "dotmac_http_rate_limited",
    ]);
    rare.retain(|name| !told.contains(name));
    assert_eq!(told.union(&rare).copied().collect::<BTreeSet<_>>(), known);
    world.stop().await;
}

#[tokio::test]
async fn a_caller_who_takes_too_much_is_counted_by_the_limit() {
    let (world, _directory) = told().await;
    let limit = "dotmac_http_rate_limited_total{limit=\"unknown tokens a second\"}";
    while world.ask("a guess", "GET", "/metrics", None).await.status != 429 {}
    let text = metrics(&world, "").await.text;
    assert!(value(&text, limit).parse::<u64>().unwrap() >= 1);
    world.stop().await;
}

#[tokio::test]
async fn whoever_is_not_ready_says_which_check_fails() {
    let (world, _directory) = told().await;
    let failing = async || {
        let answer = World::send(world.request("GET", "/health/ready")).await;
        let body = answer.json();
        let checks = body["checks"].as_array().unwrap().iter();
        let bad = checks.filter(|check| check["ok"] == false);
        let names: Vec<Value> = bad.map(|check| check["name"].clone()).collect();
        (answer.status, names)
    };
    assert_eq!(failing().await, (200, vec![]));
    *world.log.failure.lock().unwrap() = Some(LogError::Storage("the disk is full".into()));
    assert_eq!(failing().await, (503, vec![json!("storage")]));
    *world.log.failure.lock().unwrap() = None;
    *world.log.behind.lock().unwrap() = 10_000;
    assert_eq!(failing().await, (503, vec![json!("applied")]));
    *world.log.behind.lock().unwrap() = 0;
    let known = world.log.connected.send_replace(BTreeSet::new());
    assert_eq!(failing().await, (503, vec![json!("majority")]));
    world.log.connected.send_replace(known);
    assert_eq!(failing().await, (200, vec![]));
    // Without a leader nobody knows of a majority.
    let leadership = *world.log.leadership.borrow();
    world
        .log
        .leadership
        .send_modify(|known| known.leader = None);
    let neither = vec![json!("leader"), json!("majority")];
    assert_eq!(failing().await, (503, neither));
    world.log.leadership.send_replace(leadership);
    assert_eq!(failing().await, (200, vec![]));
    world.stop().await;
}
