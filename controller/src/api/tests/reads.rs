//! Reads: lists, the audit, the cluster, health, and where an instance's output is to be had.

use dotmac_domain::{
    access::Role,
    audit::{AUDIT_DOMAIN, AuditRecord},
    fleet::Presence,
};
use dotmac_protocol::{codec, digest::Digest, ids::NodeId, time::Timestamp};
use serde_json::{Value, json};

use super::world::{REGION, World};
use crate::{
    api::{DEPLOYMENTS, RELEASES},
    log::Leadership,
};

async fn deploy(world: &World, name: &str) -> String {
    let created = world
        .post(DEPLOYMENTS, &json!({ "tenant_name": name }))
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.json()["id"].as_str().unwrap().to_owned()
}

fn strings(page: &Value, member: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item[member].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn lists_come_in_pages_and_show_the_destroyed_only_when_asked() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(deploy(&world, name).await);
    }
    let first = world.get(&format!("{DEPLOYMENTS}?limit=2")).await.json();
    assert_eq!(strings(&first, "id"), ids[..2]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = world
        .get(&format!("{DEPLOYMENTS}?limit=2&cursor={cursor}"))
        .await
        .json();
    assert_eq!(
        (strings(&second, "id"), &second["next_cursor"]),
        (vec![ids[2].clone()], &Value::Null)
    );
    let one = world
        .get(&format!("{DEPLOYMENTS}?tenant_id={}", ids[1]))
        .await
        .json();
    assert_eq!(strings(&one, "id"), [ids[1].clone()]);
    // A deployment that no agent ever had is destroyed as soon as its grace time is over.
    let pending = json!({"tenant_name": "gone", "region": "byov-lagos"});
    let gone = world.post(DEPLOYMENTS, &pending).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world
        .ask(
            super::world::ADMIN,
            "DELETE",
            &format!("{DEPLOYMENTS}/{gone}"),
            None,
        )
        .await;
    world.clock.advance_millis(1_000);
    world.remove(&gone).await;
    assert_eq!(
        world.get(&format!("{DEPLOYMENTS}/{gone}")).await.json()["status"],
        "destroyed"
    );
    assert_eq!(strings(&world.get(DEPLOYMENTS).await.json(), "id"), ids);
    for query in ["status_filter=destroyed", "include=destroyed&limit=1000"] {
        let shown = world.get(&format!("{DEPLOYMENTS}?{query}")).await.json();
        assert!(strings(&shown, "id").contains(&gone), "{query}");
    }
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "status_filter=gone",
        "include=all",
        "colour=1",
        "cursor=%00",
    ] {
        let (status, _, fields) = world.get(&format!("{DEPLOYMENTS}?{wrong}")).await.problem();
        assert_eq!(
            (status, fields.join(",").as_str()),
            (422, wrong.split('=').next().unwrap())
        );
    }
}

#[tokio::test]
async fn releases_are_added_once_shown_and_retired() {
    let world = World::new().await;
    let manifest = json!({"name": "web", "version": "1.0.0", "channel": "edge",
        "components": {"web": {"run": {"command": ["/bin/true"]}}}});
    let added = world.post(RELEASES, &manifest).await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert_eq!(added.header("location"), format!("{RELEASES}/web/1.0.0"));
    let shown = world.get(&format!("{RELEASES}/web/1.0.0")).await.json();
    assert_eq!(
        (&shown["default"], &shown["retired"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        shown["manifest"]["components"]["web"]["run"],
        json!({"command": ["/bin/true"]})
    );
    let mut changed = manifest.clone();
    changed["description"] = "another".into();
    assert_eq!(
        world.post(RELEASES, &changed).await.problem().1,
        "already-exists"
    );
    changed["components"]["web"]["run"] = json!({"image": "x:latest"});
    let wrong = world.post(RELEASES, &changed).await.problem();
    assert_eq!(
        wrong,
        (
            422,
            "invalid".into(),
            vec!["components.web.run.image".into()]
        )
    );
    let retired = world
        .ask(
            super::world::ADMIN,
            "POST",
            &format!("{RELEASES}/web/1.0.0/retire"),
            None,
        )
        .await;
    assert_eq!(
        (retired.status, &retired.json()["retired"]),
        (200, &json!(true))
    );
    let first = world.get(&format!("{RELEASES}?limit=1")).await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = world
        .get(&format!("{RELEASES}?limit=1&cursor={cursor}"))
        .await
        .json();
    assert_eq!(
        (strings(&first, "name"), strings(&second, "name")),
        (vec!["demo-isp".into()], vec!["web".into()])
    );
    assert_eq!(
        world
            .get(&format!("{RELEASES}/web/2.0.0"))
            .await
            .problem()
            .1,
        "not-found"
    );
}

#[tokio::test]
async fn agents_show_what_is_known_of_them() {
    let world = World::new().await;
    deploy(&world, "a").await;
    let connected = Presence::Connected {
        node: NodeId(2),
        software: "1.2".into(),
        since: Timestamp(5),
    };
    world.note_presence(connected).await;
    let list = world.get("/api/v1/agents").await.json();
    assert_eq!(
        list,
        json!({"next_cursor": null, "items": [{
            "id": world.agent, "region": REGION, "status": "connected", "since": "1970-01-01T00:00:00.005Z", "node": 2,
            "software": "1.2", "incarnation": "0".repeat(32), "units": 1,
            "certificate_not_after": "2023-11-15T22:13:20.000Z", "enrolled_at": "2023-11-14T22:13:20.000Z",
            "revoked_at": null, "awaited": false, "quarantined": [],
        }]})
    );
}

#[tokio::test]
async fn the_cluster_shows_who_cannot_be_reached() {
    let world = World::new().await;
    let status = world.get("/api/v1/cluster/status").await.json();
    assert_eq!((&status["leader"], &status["term"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&status["epoch"], &status["trust_version"]),
        (&json!(1), &json!(1))
    );
    let nodes = status["nodes"].as_array().unwrap();
    let (own, other) = (&nodes[0], &nodes[1]);
    assert_eq!(
        (&own["state"], &own["pid"]),
        (&json!("leader"), &json!(std::process::id()))
    );
    assert_eq!(
        (&own["signing"], &own["address"]),
        (&json!(true), &json!("127.0.0.1:8001"))
    );
    assert_eq!(
        (&other["state"], &other["pid"], &other["signing"]),
        (&json!("unreachable"), &Value::Null, &json!(false))
    );
}

#[tokio::test]
async fn the_cluster_tells_the_digest_of_a_state_at_its_index_to_whoever_asks() {
    let world = World::new().await;
    let own = async |query: &str| {
        let path = format!("/api/v1/cluster/status{query}");
        world.get(&path).await.json()["nodes"][0].clone()
    };
    assert_eq!(own("").await["state_digest"], Value::Null);
    let (applied, state) = world.node.log.changes().newest();
    let shown = own("?digests=true").await;
    assert_eq!(
        (&shown["applied"], &shown["state_digest"]),
        (&json!(applied), &json!(state.digest().to_string()))
    );
    deploy(&world, "other").await;
    let changed = own("?digests=true").await;
    assert_ne!(changed["state_digest"], shown["state_digest"]);
    assert!(changed["applied"].as_u64() > Some(applied));
    let refused = world.get("/api/v1/cluster/status?digests=perhaps").await;
    assert_eq!(refused.status, 422);
}

#[tokio::test]
async fn the_audit_tells_a_tenants_story_to_those_who_may_read_it() {
    let world = World::new().await;
    let (own, foreign) = (deploy(&world, "own").await, deploy(&world, "foreign").await);
    let token = world.token(Role::TenantAdmin, Some(&own)).await;
    let story = world.ask(&token, "GET", "/api/v1/audit", None).await.json();
    assert_eq!(
        strings(&story, "action"),
        ["deployment.created", "token.created"]
    );
    assert_eq!(strings(&story, "tenant"), [own.clone(), own.clone()]);
    assert_eq!(story["items"][0]["actor"], "person:00000000000000ad");
    let named = format!("/api/v1/audit?tenant={own}&limit=1");
    let page = world.ask(&token, "GET", &named, None).await.json();
    let after = page["next_cursor"].as_str().unwrap();
    let rest = world
        .ask(&token, "GET", &format!("{named}&after={after}"), None)
        .await
        .json();
    assert_eq!(
        (strings(&rest, "action"), &rest["next_cursor"]),
        (vec!["token.created".into()], &Value::Null)
    );
    let mut refusals = Vec::new();
    for tenant in [&*foreign, "none-00000000"] {
        let answer = world
            .ask(
                &token,
                "GET",
                &format!("/api/v1/audit?tenant={tenant}"),
                None,
            )
            .await;
        let mut body = answer.json();
        body["detail"] = "".into();
        refusals.push((answer.status, body));
    }
    assert_eq!((refusals[0].0, &refusals[0]), (404, &refusals[1]));
    for stream in [
        "platform",
        &format!("tenant/{foreign}"),
        &format!("agent/{}/{}", world.agent, "0".repeat(32)),
    ] {
        let path = format!("/api/v1/audit/records?stream={stream}");
        assert!(
            world.ask(&token, "GET", &path, None).await.status >= 403,
            "{stream}"
        );
    }
    let streams = world
        .ask(&token, "GET", "/api/v1/audit/streams", None)
        .await
        .json();
    assert_eq!(strings(&streams, "stream"), [format!("tenant/{own}")]);
    let platform = world.get("/api/v1/audit").await.json();
    assert!(strings(&platform, "action").contains(&"release.added".to_owned()));
}

#[tokio::test]
async fn served_links_prove_themselves() {
    let world = World::new().await;
    deploy(&world, "a").await;
    let streams = world.get("/api/v1/audit/streams").await.json();
    assert_eq!(streams["items"].as_array().unwrap().len(), 2);
    for stream in streams["items"].as_array().unwrap() {
        let name = stream["stream"].as_str().unwrap();
        let page = world
            .get(&format!("/api/v1/audit/records?stream={name}&limit=1000"))
            .await
            .json();
        let mut previous = Digest::ZERO.to_string();
        for (place, link) in page["items"].as_array().unwrap().iter().enumerate() {
            let body = hex::decode(link["body"].as_str().unwrap()).unwrap();
            let record: AuditRecord = codec::decode(&body).unwrap();
            assert_eq!(record.sequence, place as u64 + 1);
            assert_eq!(
                (link["previous"].as_str(), record.previous.to_string()),
                (Some(&*previous), previous.clone())
            );
            previous = Digest::tagged(AUDIT_DOMAIN, &body).to_string();
            assert_eq!(link["digest"], previous);
        }
        assert_eq!(stream["digest"], previous);
    }
    let missing = world.get("/api/v1/audit/records").await.problem();
    assert_eq!(missing, (422, "invalid".into(), vec!["stream".into()]));
}

#[tokio::test]
async fn output_is_asked_where_the_agent_is_and_every_look_is_audited() {
    let world = World::new().await;
    let id = deploy(&world, "a").await;
    let path = format!(
        "{DEPLOYMENTS}/{id}/logs?lines=5&seal_to={}",
        "ab".repeat(32)
    );
    let away = world.get(&path).await;
    assert_eq!(away.problem(), (503, "agent-disconnected".into(), vec![]));
    let connected = Presence::Connected {
        node: NodeId(2),
        software: "1".into(),
        since: Timestamp(5),
    };
    world.note_presence(connected).await;
    let elsewhere = world.get(&path).await;
    assert_eq!(
        (elsewhere.status, elsewhere.header("location")),
        (307, &*format!("http://127.0.0.1:8002{path}"))
    );
    let story = world
        .get(&format!("/api/v1/audit?tenant={id}"))
        .await
        .json();
    let looks: Vec<&Value> = story["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["action"] == "deployment.logs-read")
        .collect();
    assert_eq!(looks.len(), 1, "{story}");
    assert_eq!(looks[0]["detail"], format!("{id}: the last 5 lines"));
    assert_eq!(looks[0]["request"], away.header("x-request-id"));
    let wrong = world
        .get(&format!("{DEPLOYMENTS}/{id}/logs?lines=10001"))
        .await
        .problem();
    assert_eq!(
        wrong,
        (
            422,
            "invalid".into(),
            vec!["lines".into(), "seal_to".into()]
        )
    );
    let user = world.token(Role::TenantUser, Some(&id)).await;
    assert_eq!(
        world.ask(&user, "GET", &path, None).await.problem().1,
        "forbidden"
    );
}

#[tokio::test]
async fn health_needs_no_token_and_ready_needs_a_leader() {
    let world = World::new().await;
    let open = async |path: &str| World::send(world.request("GET", path)).await;
    assert_eq!(open("/health/live").await.json()["status"], "alive");
    assert_eq!(open("/health/ready").await.json()["status"], "ready");
    world.log.leadership.send_replace(Leadership {
        term: 2,
        leader: None,
    });
    let waiting = open("/health/ready").await;
    assert_eq!(
        (waiting.status, &waiting.json()["reason"]),
        (503, &json!("no leader is known"))
    );
    assert_eq!(open("/health/live").await.status, 200);
    let links = open("/").await.json();
    assert_eq!(links["links"]["deployments"], DEPLOYMENTS);
    let nowhere = open("/nowhere").await;
    assert_eq!(nowhere.problem(), (404, "no-such-path".into(), vec![]));
    assert_eq!(nowhere.header("x-request-id").len(), 32);
    let method = world.ask(super::world::ADMIN, "PUT", RELEASES, None).await;
    assert_eq!(method.problem(), (405, "method-not-allowed".into(), vec![]));
    assert_eq!(method.header("allow"), "GET,HEAD,POST");
}
