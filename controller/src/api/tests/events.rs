//! The stream of events: everything as it is, then changes, for those only who may see them.
//! Longer than 400 lines: the claims about one stream, which all need the same listener.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{Command, access::Role, envelope::Actor};
use dotmac_protocol::ids::NodeId;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::world::{ADMIN, World};
use crate::{
    api::DEPLOYMENTS,
    feed::{BATCHES_MAX, Next},
    log::{Leadership, Log as _},
};

const EVENTS: &str = "/api/v1/events";
/// How long something that has to come may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who watches.
struct Watcher {
    response: Response,
    text: String,
    /// Everything that came.
    seen: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    kind: String,
    id: Option<u64>,
    data: Value,
}

impl Watcher {
    async fn new(world: &World, token: &str, query: &str) -> Self {
        let request = world.request("GET", &format!("{EVENTS}?{query}"));
        let response = request.bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        Self {
            response,
            text: String::new(),
            seen: String::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = read(event);
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("an event comes").unwrap()?;
            let chunk = String::from_utf8(chunk.to_vec()).unwrap();
            self.seen.push_str(&chunk);
            self.text.push_str(&chunk);
        }
    }

    /// Events up to one of this kind, which is the last.
    async fn until(&mut self, kind: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.expect("the stream goes on");
            let is_last = event.kind == kind;
            events.push(event);
            if is_last {
                return events;
            }
        }
    }

    /// The next event that tells of this entity.
    async fn about(&mut self, kind: &str, id: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.kind == kind && event.data["id"] == id {
                return event;
            }
        }
    }
}

fn read(text: &str) -> Option<Event> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    Some(Event {
        kind: field("event")?.to_owned(),
        id: field("id").map(|id| id.parse().unwrap()),
        data: serde_json::from_str(field("data")?).unwrap(),
    })
}

async fn deploy(world: &World, name: &str) -> String {
    let created = world
        .post(DEPLOYMENTS, &json!({ "tenant_name": name }))
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.json()["id"].as_str().unwrap().to_owned()
}

fn of<'e>(events: &'e [Event], kind: &str) -> Vec<&'e Event> {
    events.iter().filter(|event| event.kind == kind).collect()
}

#[tokio::test]
async fn everything_as_it_is_comes_first_and_then_what_changes() {
    let world = World::new().await;
    let id = deploy(&world, "a").await;
    let mut watcher = Watcher::new(&world, ADMIN, "").await;
    let headers = watcher.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    let events = watcher.until("synced").await;
    assert!(watcher.seen.starts_with("retry: "), "{}", watcher.seen);
    // Every type is there, each with the JSON that GET shows and the log index of the State it is from.
    for kind in [
        "deployment",
        "tenant",
        "region",
        "agent",
        "release",
        "token",
        "cluster",
    ] {
        assert!(!of(&events, kind).is_empty(), "no {kind} in {events:?}");
    }
    let shown = world.get(&format!("{DEPLOYMENTS}/{id}")).await.json();
    assert_eq!(of(&events, "deployment")[0].data, shown);
    let agents = world.get("/api/v1/agents").await.json();
    assert_eq!(of(&events, "agent")[0].data, agents["items"][0]);
    let index = *world.log.applied().borrow();
    assert!(
        events.iter().all(|event| event.id == Some(index)),
        "{events:?}"
    );
    // A change, and what follows from it.
    let next = deploy(&world, "b").await;
    let told = watcher.about("deployment", &next).await;
    assert_eq!(told.id, Some(index + 1));
    assert_eq!(told.data["status"], "provisioning");
    let agent = watcher.about("agent", world.agent.as_str()).await;
    assert_eq!(agent.data["units"], 2);
    // Another one who comes later, with the id of an old event, gets the current state and nothing of the past.
    let request = world.request("GET", EVENTS).header("last-event-id", "1");
    let response = request.bearer_auth(ADMIN).send().await.unwrap();
    let mut late = Watcher {
        response,
        text: String::new(),
        seen: String::new(),
    };
    let events = late.until("synced").await;
    assert_eq!(of(&events, "deployment").len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_more_is_told_as_gone() {
    let world = World::new().await;
    let pending = json!({"tenant_name": "a", "region": super::world::EMPTY_REGION});
    let id = world.post(DEPLOYMENTS, &pending).await.json()["id"].clone();
    let id = id.as_str().unwrap();
    let path = format!("{DEPLOYMENTS}/{id}");
    let mut watcher = Watcher::new(&world, ADMIN, "types=deployment").await;
    watcher.until("synced").await;
    world.ask(ADMIN, "DELETE", &path, None).await;
    let told = watcher.about("deployment", id).await;
    assert_eq!(told.data["status"], "destroying");
    world.clock.advance_millis(31 * 24 * 3_600_000);
    world.remove(id).await;
    let told = watcher.about("deployment", id).await;
    assert_eq!(told.data["status"], "destroyed");
    world.clock.advance_millis(31 * 24 * 3_600_000);
    let deployment = id.parse().unwrap();
    let forget = Command::ForgetDeployment { deployment };
    let asked = world.node.propose(Actor::Planner, forget, PATIENCE).await;
    asked.unwrap().unwrap();
    let told = watcher.until("deployment.gone").await;
    assert_eq!(
        told.last().unwrap().data,
        json!({"id": id, "tenant_id": id})
    );
}

#[tokio::test]
async fn law_7_a_tenants_token_never_sees_another_tenants_event() {
    let world = World::new().await;
    let (own, foreign) = (deploy(&world, "own").await, deploy(&world, "foreign").await);
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let mut watcher = Watcher::new(&world, &token, "").await;
    let events = watcher.until("synced").await;
    assert_eq!(of(&events, "deployment").len(), 1);
    for kind in ["agent", "region", "release", "token", "cluster"] {
        assert!(of(&events, kind).is_empty(), "{kind} in {events:?}");
    }
    for id in [&foreign, &own] {
        let path = format!("{DEPLOYMENTS}/{id}");
        assert_eq!(world.ask(ADMIN, "DELETE", &path, None).await.status, 202);
    }
    let told = watcher.about("deployment", &own).await;
    assert_eq!(told.data["status"], "destroying");
    assert!(!watcher.seen.contains(&foreign), "{}", watcher.seen);
    // A foreign deployment or tenant cannot be told from one that does not exist.
    for name in ["deployment", "tenant_id"] {
        let mut answers = Vec::new();
        for id in [foreign.as_str(), "nobody-00000000"] {
            let path = format!("{EVENTS}?{name}={id}");
            let answer = world.ask(&token, "GET", &path, None).await;
            answers.push((answer.status, answer.text.replace(id, "ID")));
        }
        assert_eq!(answers[0].0, 404);
        assert_eq!(answers[0], answers[1]);
    }
}

#[tokio::test]
async fn a_watcher_gets_what_it_selected_and_may_read() {
    let world = World::new().await;
    let (a, b) = (deploy(&world, "a").await, deploy(&world, "b").await);
    let kinds = |events: &[Event]| {
        let kinds = events.iter().map(|event| event.kind.clone());
        kinds.collect::<std::collections::BTreeSet<_>>()
    };
    let mut one = Watcher::new(&world, ADMIN, &format!("deployment={a}")).await;
    let events = one.until("synced").await;
    assert_eq!(
        kinds(&events),
        ["deployment".into(), "synced".into()].into()
    );
    assert_eq!(events[0].data["id"], a);
    let mut tenant = Watcher::new(&world, ADMIN, &format!("tenant_id={b}")).await;
    let events = tenant.until("synced").await;
    assert_eq!(
        kinds(&events),
        ["deployment", "synced", "tenant"].map(String::from).into()
    );
    let mut some = Watcher::new(&world, ADMIN, "types=release,cluster&consistency=stale").await;
    let events = some.until("synced").await;
    assert_eq!(
        kinds(&events),
        ["cluster", "release", "synced"].map(String::from).into()
    );
    let tenants = world.token(Role::TenantUser, Some(&a)).await;
    let reseller = world.token(Role::Reseller, None).await;
    for (token, query, status) in [
        (ADMIN, "types=deployments", 422),
        (ADMIN, "types=", 422),
        (ADMIN, "unknown=1", 422),
        (&*tenants, "types=token", 403),
        (&*tenants, "types=region", 403),
        (&*tenants, "types=deployment,agent", 403),
        (&*reseller, "types=deployment", 403),
    ] {
        let answer = world
            .ask(token, "GET", &format!("{EVENTS}?{query}"), None)
            .await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
    }
    let nobody = world.request("GET", EVENTS).send().await.unwrap();
    assert_eq!(nobody.status().as_u16(), 401);
}

#[tokio::test]
async fn a_revoked_token_ends_its_stream_within_a_second_and_no_other() {
    let world = World::new().await;
    let id = deploy(&world, "a").await;
    let token = world.token(Role::TenantAdmin, Some(&id)).await;
    let mut watcher = Watcher::new(&world, &token, "").await;
    let mut other = Watcher::new(&world, ADMIN, "types=token").await;
    watcher.until("synced").await;
    other.until("synced").await;
    let (caller, _) = world.node.authenticate(&token).unwrap();
    let token = caller.token.clone();
    let started = tokio::time::Instant::now();
    let path = format!("/api/v1/tokens/{token}");
    assert!(world.ask(ADMIN, "DELETE", &path, None).await.status < 300);
    let last = watcher.until("closing").await.pop().unwrap();
    assert_eq!(watcher.next().await, None);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert!(
        last.data["reason"].as_str().unwrap().contains("revoked"),
        "{last:?}"
    );
    other.about("token", token.as_str()).await;
}

#[tokio::test]
async fn whoever_leads_and_who_is_connected_is_told() {
    let world = World::new().await;
    let mut watcher = Watcher::new(&world, ADMIN, "types=cluster").await;
    let first = watcher.until("synced").await.remove(0).data;
    assert_eq!(
        (&first["leader"], &first["seen_by"]),
        (&json!(1), &json!(1))
    );
    let connected = |data: &Value, place: usize| data["controllers"][place]["connected"].clone();
    assert_eq!(
        (connected(&first, 0), connected(&first, 1)),
        (json!(true), json!(true))
    );
    world.log.connected.send_replace([NodeId(3)].into());
    let next = watcher.next().await.unwrap();
    assert_eq!(
        (next.kind.as_str(), connected(&next.data, 1)),
        ("cluster", json!(false))
    );
    let leadership = Leadership {
        term: 2,
        leader: None,
    };
    world.log.leadership.send_replace(leadership);
    let next = watcher.next().await.unwrap().data;
    assert_eq!((&next["leader"], &next["term"]), (&Value::Null, &json!(2)));
}

#[tokio::test]
async fn who_is_too_far_behind_gets_everything_again_instead_of_a_queue() {
    let world = World::new().await;
    let id = deploy(&world, "a").await;
    let (_, mut subscription) = world.node.feed.subscribe(&world.node).await.unwrap();
    for round in 0..=BATCHES_MAX {
        let verb = if round % 2 == 0 { "DELETE" } else { "POST" };
        let path = match verb {
            "DELETE" => format!("{DEPLOYMENTS}/{id}"),
            _ => format!("{DEPLOYMENTS}/{id}/undelete"),
        };
        assert!(world.ask(ADMIN, verb, &path, None).await.status < 300);
        world.node.feed.catch_up(&world.node, false).await.unwrap();
    }
    assert!(matches!(subscription.next().await, Next::Behind));
    let snapshot = subscription.again().await.unwrap();
    assert_eq!(snapshot.index, *world.log.applied().borrow());
    deploy(&world, "b").await;
    assert!(matches!(subscription.next().await, Next::Batch(_)));
}

#[tokio::test]
async fn a_snapshot_from_elsewhere_tells_everything_again() {
    let world = World::new().await;
    let id = deploy(&world, "a").await;
    let mut watcher = Watcher::new(&world, ADMIN, "types=deployment").await;
    watcher.until("synced").await;
    world.log.replace();
    let events = watcher.until("synced").await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["reset", "deployment", "synced"]);
    assert_eq!(events[1].data["id"], id);
}

#[tokio::test]
async fn nothing_is_told_twice_and_every_watcher_shares_the_same_bytes() {
    let world = World::new().await;
    let (_, mut first) = world.node.feed.subscribe(&world.node).await.unwrap();
    let (_, mut second) = world.node.feed.subscribe(&world.node).await.unwrap();
    assert_eq!(world.node.feed.watchers(), 2);
    deploy(&world, "a").await;
    let (Next::Batch(one), Next::Batch(other)) = (first.next().await, second.next().await) else {
        panic!("both get a batch");
    };
    assert!(Arc::ptr_eq(&one, &other));
    // A presence that is as before changes nothing that anybody is shown.
    let presence = world
        .node
        .state()
        .agents
        .get(&world.agent)
        .unwrap()
        .presence
        .clone();
    world.note_presence(presence).await;
    let next = deploy(&world, "b").await;
    let mut told = Vec::new();
    while !told
        .iter()
        .any(|what| *what == dotmac_domain::Changed::Deployment(next.parse().unwrap()))
    {
        let Next::Batch(batch) = first.next().await else {
            panic!("a batch")
        };
        told.extend(batch.events.iter().map(|event| event.what.clone()));
    }
    // The agent's count follows from the first deployment; its presence is told by nobody.
    let agent = dotmac_domain::Changed::Agent(world.agent.clone());
    assert!(
        told.iter().filter(|what| **what == agent).count() <= 1,
        "{told:?}"
    );
}

#[tokio::test]
async fn a_stopping_controller_ends_every_stream_with_a_word() {
    let world = World::new().await;
    let mut watcher = Watcher::new(&world, ADMIN, "").await;
    watcher.until("synced").await;
    let started = tokio::time::Instant::now();
    let (last, ()) = tokio::join!(
        async {
            let last = watcher.until("closing").await.pop().unwrap();
            assert_eq!(watcher.next().await, None);
            last
        },
        world.stop(),
    );
    assert!(
        last.data["reason"].as_str().unwrap().contains("stops"),
        "{last:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_cluster_says_how_it_is_and_why() {
    let world = World::new().await;
    let id = deploy(&world, "a").await;
    let path = "/api/v1/tenant-orchestration/cluster/health";
    let health = world.get(path).await.json();
    // One of the two controllers of this world is away.
    assert_eq!(health["status"], "unhealthy");
    assert_eq!(
        health["quorum"],
        json!({"controllers": 2, "reachable": 1, "needed": 2})
    );
    assert_eq!(
        health["deployments"],
        json!({"total": 1, "by_status": {"provisioning": 1}})
    );
    assert_eq!(health["agents"]["total"], 1);
    let reasons = health["reasons"].as_array().unwrap();
    let about: Vec<&str> = reasons
        .iter()
        .map(|one| one["about"].as_str().unwrap())
        .collect();
    assert!(
        about.contains(&"quorum") && about.contains(&"agents"),
        "{about:?}"
    );
    // Since when stays the same while it lasts.
    world.clock.advance_millis(60_000);
    let later = world.get(path).await.json();
    assert_eq!(later["reasons"][0]["since"], health["reasons"][0]["since"]);
    assert_ne!(later["checked_at"], health["checked_at"]);
    let tenant = world.token(Role::TenantAdmin, Some(&id)).await;
    assert_eq!(world.ask(&tenant, "GET", path, None).await.status, 403);
}
