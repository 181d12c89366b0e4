//! Each kind of thing in sentences.

use serde_json::json;

use super::{agent, deployment, region, release, request, tenant, token};

#[test]
fn a_deployment_says_what_it_waits_for_since_when_and_who_can_change_it() {
    let one = json!({"id": "x-0190a1b2", "tenant_id": "x-0190a1b2", "environment": "production", "region": "do-fra1",
        "release": {"name": "demo-isp", "version": "1.0.0"}, "resource_tier": "small", "agent": null,
        "status": "provisioning", "health_status": "unknown", "ready_pods": 0, "pod_count": 2, "delete_after": null,
        "waiting": {"reason": "no agent is connected in do-fra1", "since": 1_000, "who": "whoever operates do-fra1"}});
    let told = deployment(&one, 61_000);
    assert_eq!(
        told.says,
        [
            "x-0190a1b2 is the production deployment of the tenant x-0190a1b2 in do-fra1: release demo-isp 1.0.0, tier small.",
            "It is provisioning, and its health is unknown; 0 of 2 copies are ready.",
            "It waits for 60 s now, because no agent is connected in do-fra1; who can change that: whoever operates do-fra1.",
        ]
    );
    assert_eq!(told.next, ["dotmac deployments watch x-0190a1b2"]);
    let mut broken = one.clone();
    broken["health_status"] = "unhealthy".into();
    broken["health_reason"] = "web.0 ended; its last lines:\nlicensed\nserving\n".into();
    broken["waiting"]["reason"] = "web.0 keeps ending:\nlicensed".into();
    let told = deployment(&broken, 61_000);
    assert_eq!(
        told.says[1..],
        [
            "It is provisioning; 0 of 2 copies are ready, and its health is unhealthy: web.0 ended; its last lines:\n  \
             licensed\n  serving",
            "It waits for 60 s now; who can change that: whoever operates do-fra1, because web.0 keeps ending:\n  licensed",
        ]
    );
    let mut going = one;
    going["status"] = "destroying".into();
    going["delete_after"] = 121_000.into();
    let told = deployment(&going, 61_000);
    assert!(
        told.says
            .iter()
            .any(|line| line.contains("removed with its data in 60 s")),
        "{told:?}"
    );
    assert_eq!(told.next, ["dotmac deployments undelete x-0190a1b2"]);
}

#[test]
fn a_tenant_names_its_deployments() {
    let one = json!({"id": "x", "tenant_name": "X Net", "status": "active", "reseller_id": "r", "created_at": 0,
        "deployments": ["x-1", "x-2"]});
    let told = tenant(&one, 5_000);
    let expected = [
        "x is the tenant X Net; it is active.",
        "It belongs to the reseller r.",
        "It was made 5000 ms ago.",
        "Its deployments: x-1, x-2.",
    ];
    assert_eq!(told.says, expected);
    let mut licensed = one;
    licensed["license"] = json!({"status": "suspended", "expires_at": null});
    assert_eq!(
        tenant(&licensed, 5_000).next,
        ["dotmac tenants show x", "dotmac explain x-1"],
        "whose license it is, nobody said"
    );
    licensed["deployments"] = json!(["x-1"]);
    assert!(
        tenant(&licensed, 5_000)
            .says
            .contains(&"Its license: suspended.".to_owned())
    );
    assert_eq!(
        tenant(&json!({"id": "x"}), 0).next,
        ["dotmac audit --tenant x"]
    );
}

#[test]
fn an_agent_that_is_away_says_that_its_instances_run_on() {
    let mut one = json!({"id": "a-1", "region": "do-fra1", "status": "connected", "since": 0, "node": 2, "units": 3,
        "software": "0.1.0"});
    assert_eq!(
        agent(&one, 20_000).says[1],
        "It is connected to controller 2, for 20 s now."
    );
    one["status"] = "disconnected".into();
    let told = agent(&one, 20_000);
    assert!(told.says[2].starts_with("Its instances run on"), "{told:?}");
}

#[test]
fn a_region_without_agents_says_how_to_start_one() {
    let one = json!({"id": "mars", "description": "far away", "default": true, "accepts_deployments": false,
        "agents": {"connected": 0, "total": 0}, "deployments": 0});
    let told = region(&one, 0);
    assert_eq!(told.says.len(), 6);
    assert_eq!(told.next, ["dotmac agents token --region mars"]);
}

#[test]
fn a_token_says_whether_it_counts_and_nothing_of_its_secret() {
    let mut one = json!({"id": "0123456789abcdef", "name": "ops", "role": "support", "expires_at": null,
        "revoked_at": null, "last_used_at": 0});
    let told = token(&one, 60_000);
    let expected = [
        "0123456789abcdef is the access token ops: support.",
        "It counts and does not expire.",
        "It was used last about 60 s ago.",
    ];
    assert_eq!(told.says, expected);
    one["expires_at"] = 50_000.into();
    assert!(token(&one, 60_000).says[1].starts_with("It expired at"));
    one["revoked_at"] = 40_000.into();
    assert!(token(&one, 60_000).says[1].starts_with("It was revoked at"));
}

#[test]
fn a_release_and_a_request_name_the_next_command() {
    let one = json!({"name": "demo", "version": "1.0", "channel": "stable", "retired": true, "digest": "sha256:1"});
    assert_eq!(release(&one, 0).next, ["dotmac releases show demo 1.0"]);
    let event = json!({"actor": "person:1", "at": 0, "tenant": "x"});
    let told = request("ab", vec![event]);
    assert!(
        told.says[0].starts_with("ab is a request of person:1, made 1"),
        "{told:?}"
    );
    assert_eq!(told.next, ["dotmac audit --tenant x"]);
}

#[test]
fn what_is_not_known_is_left_out() {
    let told = region(
        &json!({"id": "mars", "default": false, "accepts_deployments": true}),
        0,
    );
    assert_eq!(told.says, ["mars is a region."]);
    assert_eq!(told.next, ["dotmac regions list"]);
    let one =
        json!({"id": "a-1", "region": "mars", "status": "disconnected", "since": 0, "units": 1});
    assert_eq!(
        agent(&one, 5_000).says[0],
        "a-1 is an agent in mars with 1 deployments."
    );
}

#[test]
fn a_failed_deployment_says_the_way_out() {
    let mut one = json!({"id": "x-1", "status": "failed", "rollback_to": null});
    let said = deployment(&one, 0).says.join(" ");
    for command in ["restart x-1", "delete x-1"] {
        assert!(said.contains(command), "{said}");
    }
    one["rollback_to"] = json!({"release": {"name": "demo-isp", "version": "1.0.0"}});
    let said = deployment(&one, 0).says.join(" ");
    assert!(
        said.contains("rollback x-1` brings back demo-isp 1.0.0"),
        "{said}"
    );
}
