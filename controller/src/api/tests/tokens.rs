//! Access tokens over HTTP: made by their holder, used, ended, and whom that is told.

use serde_json::{Value, json};

use super::{
    platform::{ask_seen, items},
    world::{ADMIN, World},
};
use crate::{access_token::AccessToken, node};

const TOKENS: &str = "/api/v1/tokens";

/// A token that the API has admitted, and how it is shown.
async fn admit(world: &World, more: Value) -> (AccessToken, Value) {
    let token = AccessToken::generate(&world.node.entropy);
    let mut body = json!({"id": token.id(), "secret_digest": token.digest().to_string(), "name": "ci",
        "role": "platform_admin"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let made = world.post(TOKENS, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    (token, made.json())
}

#[tokio::test]
async fn a_token_counts_until_it_ends_and_only_its_holder_is_told_why() {
    let world = World::new().await;
    let hour = json!({"ttl_ms": 3_600_000});
    let (passing, shown) = admit(&world, hour).await;
    let expected = json!({"id": passing.id(), "name": "ci", "role": "platform_admin", "tenant_id": null,
        "status": "active", "created_at": "2023-11-14T22:13:20.000Z", "created_by": "00000000000000ad",
        "expires_at": "2023-11-14T23:13:20.000Z", "revoked_at": null, "last_used_at": null});
    assert_eq!(shown, expected);
    let (revoked, _) = admit(&world, json!({})).await;
    for token in [&passing, &revoked] {
        let seen = world
            .ask(token.reveal(), "GET", "/api/v1/whoami", None)
            .await;
        assert_eq!(
            (seen.status, &seen.json()["token"]),
            (200, &json!(token.id()))
        );
    }
    let path = format!("{TOKENS}/{}", revoked.id());
    let shown = world.get(&path).await;
    assert_eq!(shown.header("etag"), "\"r1\"");
    let late = ask_seen(&world, "DELETE", &path, "\"r7\"", None).await;
    assert_eq!(late.problem().1, "precondition-failed");
    let gone = ask_seen(&world, "DELETE", &path, "\"r1\"", None).await;
    assert_eq!(
        (gone.status, &gone.json()["status"]),
        (200, &json!("revoked"))
    );
    assert_eq!(gone.header("etag"), "\"r2\"");
    world.clock.advance_millis(3_600_000);
    for (token, reason) in [
        (&passing, "the token expired at 2023-11-14T23:13:20.000Z"),
        (
            &revoked,
            "the token was revoked at 2023-11-14T22:13:20.000Z",
        ),
    ] {
        for method in ["GET", "POST"] {
            let refused = world.ask(token.reveal(), method, TOKENS, None).await;
            assert_eq!(refused.problem().1, "token-ended");
            assert_eq!(refused.status, 401);
            assert_eq!(refused.json()["detail"], reason);
        }
        // A guess that is nearly right is told nothing.
        let text = token.reveal();
        let guess = format!("{}!", &text[..text.len() - 1]);
        let refused = world.ask(&guess, "GET", TOKENS, None).await;
        assert_eq!(refused.problem().1, "unauthenticated");
    }
    // What everybody who may see tokens sees of them, and what nobody does.
    let listed = world.get(TOKENS).await;
    let active = items(&listed).filter(|one| one["status"] == "active");
    assert_eq!(active.count(), 1);
    let expired = world.get(&format!("{TOKENS}?status=expired")).await;
    let ids: Vec<Value> = items(&expired).map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [json!(passing.id())]);
    assert!(
        !world.remembers(&passing.reveal()[28..]),
        "the secret is kept somewhere"
    );
    assert!(!listed.text.contains("sha256:"), "{}", listed.text);
    world.stop().await;
}

#[tokio::test]
async fn a_token_makes_no_other_than_its_own_rights_allow() {
    let world = World::new().await;
    let (passing, _) = admit(&world, json!({"ttl_ms": 60_000})).await;
    let child = AccessToken::generate(&world.node.entropy);
    let body = |ttl_ms: Option<u64>| {
        json!({"id": child.id(), "secret_digest": child.digest().to_string(), "name": "child",
            "role": "support", "ttl_ms": ttl_ms})
    };
    for wrong in [None, Some(60_001)] {
        let refused = world
            .ask(passing.reveal(), "POST", TOKENS, Some(&body(wrong)))
            .await;
        assert_eq!(
            refused.problem(),
            (422, "invalid".into(), vec!["ttl_ms".into()])
        );
    }
    let made = world
        .ask(passing.reveal(), "POST", TOKENS, Some(&body(Some(60_000))))
        .await;
    assert_eq!(
        (made.status, &made.json()["created_by"]),
        (201, &json!(passing.id()))
    );
    // What is not to be said is refused by name: nobody makes himself a founder, or his token used or older.
    for (name, value) in [
        ("revoked_at", json!(null)),
        ("last_used_at", json!("2023-11-14T23:13:20.000Z")),
        ("status", json!("active")),
        ("created_by", json!("00000000000000ad")),
        ("expires_at", json!("2099-01-01T00:00:00Z")),
        ("permissions", json!(["token:write"])),
        ("revision", json!(9)),
        ("warrant", json!({})),
    ] {
        let mut more = body(Some(60_000));
        more[name] = value;
        let refused = world.post(TOKENS, &more).await;
        assert_eq!(refused.status, 422, "{name} {}", refused.text);
    }
    // Whoever holds a token may end it, whatever its role, and ends no other with it.
    let path = format!("{TOKENS}/{}", child.id());
    let other = format!("{TOKENS}/{}", passing.id());
    let secret = child.reveal();
    assert_eq!(
        world.ask(secret, "DELETE", &other, None).await.problem().1,
        "forbidden"
    );
    assert_eq!(world.ask(secret, "DELETE", &path, None).await.status, 200);
    assert_eq!(
        world
            .ask(secret, "GET", "/api/v1/whoami", None)
            .await
            .status,
        401
    );
    let last = format!("{TOKENS}/00000000000000ad");
    let refused = world.ask(ADMIN, "DELETE", &last, None).await;
    assert_eq!(refused.problem().1, "wrong-state");
    assert!(
        refused.text.contains("last platform_admin token"),
        "{}",
        refused.text
    );
    world.stop().await;
}

#[tokio::test]
async fn an_open_stream_ends_with_the_token_that_opened_it() {
    let world = World::new().await;
    let (token, _) = admit(&world, json!({})).await;
    let (caller, _) = world.node.authenticate(token.reveal()).unwrap();
    let path = "/api/v1/events?types=region";
    let mut stream = world
        .request("GET", path)
        .bearer_auth(token.reveal())
        .send()
        .await
        .unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    let started = tokio::time::Instant::now();
    let path = format!("{TOKENS}/{}", caller.token);
    assert_eq!(world.ask(ADMIN, "DELETE", &path, None).await.status, 200);
    let mut rest = String::new();
    while let Some(piece) = stream.chunk().await.unwrap() {
        rest.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(rest.contains("the token was revoked"), "{rest}");
    assert!(
        started.elapsed() < std::time::Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    world.stop().await;
}

#[tokio::test]
async fn the_use_of_a_token_is_shown_to_the_minute() {
    let world = World::new().await;
    let (token, _) = admit(&world, json!({})).await;
    let path = format!("{TOKENS}/{}", token.id());
    world.clock.advance_millis(65_000);
    assert_eq!(
        world
            .ask(token.reveal(), "GET", "/api/v1/whoami", None)
            .await
            .status,
        200
    );
    assert_eq!(world.get(&path).await.json()["last_used_at"], Value::Null);
    let mut applied = crate::log::Log::applied(&*world.log);
    applied.mark_unchanged();
    let noting = node::run_token_uses(std::sync::Arc::clone(&world.node));
    let noting = dotmac_runtime::supervise::spawn("token uses", noting);
    applied.changed().await.unwrap();
    let shown = world.get(&path).await;
    assert_eq!(shown.json()["last_used_at"], "2023-11-14T22:14:00.000Z");
    // It is no change of the token.
    assert_eq!(shown.header("etag"), "\"r1\"");
    noting.abort();
    world.stop().await;
}
