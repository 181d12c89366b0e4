//! The controllers and the trust roots over the API.

use serde_json::json;

use super::world::{ADMIN, World, card, next_trust_root, signed};
use crate::trust_root;

const TRUST_ROOTS: &str = "/api/v1/cluster/trust-roots";
const CONTROLLERS: &str = "/api/v1/cluster/controllers";

#[tokio::test]
async fn law_3_the_next_trust_root_is_taken_once_and_shows_in_the_chain_and_the_audit() {
    let world = World::new().await;
    let document = next_trust_root(&world);
    let body = json!({"document": document});
    for _ in 0..2 {
        let answer = world.post(TRUST_ROOTS, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let root = answer.json();
        assert_eq!((&root["id"], &root["epoch"]), (&json!(2), &json!(2)));
        assert_eq!(
            (&root["in_force"], &root["document"]),
            (&json!(true), &json!(document))
        );
    }
    let chain = world.ask(ADMIN, "GET", TRUST_ROOTS, None).await.json();
    let versions: Vec<_> = chain["items"].as_array().unwrap().iter().collect();
    assert_eq!(versions.len(), 2);
    assert_eq!(
        (&versions[0]["id"], &versions[0]["in_force"]),
        (&json!(1), &json!(false))
    );
    let status = world
        .ask(ADMIN, "GET", "/api/v1/cluster/status", None)
        .await
        .json();
    assert_eq!(
        (&status["trust_version"], &status["epoch"]),
        (&json!(2), &json!(2))
    );
    let audit = world
        .ask(ADMIN, "GET", "/api/v1/audit?limit=1000", None)
        .await
        .text;
    assert!(audit.contains("trust-root.followed"), "{audit}");
}

#[tokio::test]
async fn a_trust_root_whose_signers_are_away_or_that_does_not_follow_is_refused() {
    let world = World::new().await;
    let state = world.node.state();
    let trust = state.trust.as_ref().unwrap();
    let away = state.controllers.values().next_back().unwrap().card.clone();
    let both = trust_root::with(trust, &away);
    let refused = world
        .post(TRUST_ROOTS, &json!({"document": signed(&both)}))
        .await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(
        refused.text.contains("no answer from controller 2"),
        "{}",
        refused.text
    );
    let skipped = trust_root::next(&both, trust.controllers.clone(), trust.epoch);
    for document in [signed(&skipped), "abc".into(), "00".into()] {
        let refused = world
            .post(TRUST_ROOTS, &json!({"document": document}))
            .await;
        let (status, code, fields) = refused.problem();
        assert_eq!(
            (status, code.as_str()),
            (422, "invalid"),
            "{}",
            refused.text
        );
        assert_eq!(fields, ["document"]);
    }
    assert_eq!(world.node.state().trust.as_ref(), Some(trust));
}

#[tokio::test]
async fn a_controller_is_admitted_once_the_last_change_is_finished() {
    let world = World::new().await;
    let refused = world.post(CONTROLLERS, &card(9)).await;
    assert_eq!(refused.status, 409);
    assert!(
        refused.text.contains("controller 2 is not finished"),
        "{}",
        refused.text
    );
    let removed = world
        .post(&format!("{CONTROLLERS}/2/remove"), &json!({}))
        .await;
    assert_eq!(removed.json()["standing"], "leaving", "{}", removed.text);
    let listed = world.ask(ADMIN, "GET", CONTROLLERS, None).await.json();
    assert_eq!(listed["items"][1]["waits_for"], "it is about to leave");
    let mut used = card(2);
    used["incarnation"] = format!("{:032x}", 77).into();
    let (status, _, fields) = world.post(CONTROLLERS, &used).await.problem();
    assert_eq!((status, fields), (422, vec!["node".to_owned()]));
    let mut wrong = card(9);
    wrong["issuer"] = "xy".into();
    wrong["node"] = 0.into();
    let (_, _, fields) = world.post(CONTROLLERS, &wrong).await.problem();
    assert_eq!(fields, ["node", "issuer"]);
}

#[tokio::test]
async fn what_a_controller_joins_with_holds_the_genesis_the_trust_roots_and_the_cards() {
    let world = World::new().await;
    let body = json!({"document": next_trust_root(&world)});
    assert_eq!(world.post(TRUST_ROOTS, &body).await.status, 200);
    let path = format!("{CONTROLLERS}/join");
    let file = world.ask(ADMIN, "GET", &path, None).await.json();
    assert_eq!(file["trust_roots"].as_array().unwrap().len(), 2);
    assert_eq!(file["trust_roots"][1], body["document"]);
    assert_eq!(file["cards"].as_array().unwrap().len(), 2);
    assert_eq!(file["cluster"], "test");
}

#[tokio::test]
async fn a_controller_that_there_is_not_is_answered_with_those_that_there_are() {
    let world = World::new().await;
    for (verb, id) in [("remove", "0"), ("remove", "9"), ("promote", "9")] {
        let answer = world
            .post(&format!("{CONTROLLERS}/{id}/{verb}"), &json!({}))
            .await;
        assert_eq!(answer.problem(), (404, "not-found".into(), vec![]));
        let next = answer.json()["next"].clone();
        let there_are =
            "name one of the controllers that there are: 1, 2 (`dotmac cluster status`)";
        assert_eq!(next, there_are);
    }
}
