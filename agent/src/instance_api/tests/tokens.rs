//! Who a token is: the unit whose secret signed it, once, and nobody else whatever it says.

use std::{collections::BTreeMap, sync::Arc};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Site, event, metrics, sign, wanted};
use crate::{
    fixture::{NOW, instance, tenant, unit},
    unit::Order,
};

const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;

fn with_header(header: &str, claims: &Value, signature: &str) -> String {
    let claims = claims.to_string();
    format!(
        "{}.{}.{signature}",
        base64(header.as_bytes()),
        base64(claims.as_bytes())
    )
}

/// base64url without padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for place in 0..=chunk.len() {
            let index = usize::try_from(word >> (18 - 6 * place) & 63).unwrap();
            text.push(char::from(ALPHABET[index]));
        }
    }
    text
}

/// The claims of a call with some changed; null takes one away.
fn changed(site: &Site, changes: &Value) -> Value {
    let mut claims = site.claims("demo");
    for (member, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(member)),
            value => claims[member] = value.clone(),
        }
    }
    claims
}

#[tokio::test]
async fn claims_that_are_not_in_order_are_refused_as_the_contract_says() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let (secret, now) = (site.secret("demo"), NOW.0 / 1000);
    let (ok, forbidden) = (StatusCode::OK, StatusCode::FORBIDDEN);
    let cases = [
        (json!({}), ok),
        (json!({"iat": NOW.0 as f64 / 1000.0}), ok),
        (json!({"iat": now + 60}), ok),
        (json!({"nbf": now}), ok),
        (json!({"tenant_id": null}), ok),
        (json!({"tenant_id": 7, "permissions": "all"}), ok),
        (json!({"exp": now + 3660}), ok),
        (json!({"exp": now}), UNAUTHORIZED),
        (json!({"exp": now - 1}), UNAUTHORIZED),
        (json!({"iat": now + 61}), UNAUTHORIZED),
        (json!({"nbf": now + 1}), UNAUTHORIZED),
        (json!({"nbf": "later"}), UNAUTHORIZED),
        (json!({"exp": now + 3661}), UNAUTHORIZED),
        (json!({"exp": u64::MAX}), UNAUTHORIZED),
        (json!({"exp": 1e300}), UNAUTHORIZED),
        (json!({"exp": "soon"}), UNAUTHORIZED),
        (json!({"iat": -1}), UNAUTHORIZED),
        (json!({"sub": null}), UNAUTHORIZED),
        (json!({"iat": null}), UNAUTHORIZED),
        (json!({"exp": null}), UNAUTHORIZED),
        (json!({"jti": null}), UNAUTHORIZED),
        (json!({"jti": ""}), UNAUTHORIZED),
        (json!({"jti": 7}), UNAUTHORIZED),
        (json!({"type": "user"}), UNAUTHORIZED),
        (json!({"type": null}), UNAUTHORIZED),
        (json!({"type": 7}), UNAUTHORIZED),
        (
            json!({"type": ["service"], "service_type": 7}),
            UNAUTHORIZED,
        ),
        (json!({"type": "user", "service_type": "crm"}), UNAUTHORIZED),
        (json!({"service_type": "crm"}), forbidden),
        (json!({"service_type": null}), forbidden),
        (json!({"service_type": 7}), forbidden),
        (json!({"service_type": {"isp": true}}), forbidden),
    ];
    let path = format!("/config/{}", tenant("demo"));
    for (changes, expected) in cases {
        let token = sign(&changed(&site, &changes), &secret);
        let (status, answer) = site.call(Method::GET, &path, &token, None).await;
        assert_eq!(status, expected, "{changes}: {answer}");
    }
}

#[tokio::test]
async fn only_hs256_with_the_units_own_secret_is_a_signature() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let secret = site.secret("demo");
    let encoded = |header: &Header| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(header, &site.claims("demo"), &key).unwrap()
    };
    let with_signature = |header: &str| {
        let signed = sign(&site.claims("demo"), &secret);
        with_header(
            header,
            &site.claims("demo"),
            signed.rsplit('.').next().unwrap(),
        )
    };
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["x".to_owned()]);
    let unsigned = with_header(r#"{"alg":"none","typ":"JWT"}"#, &site.claims("demo"), "");
    let cases = [
        ("garbage", "garbage".to_owned()),
        ("empty parts", "..".to_owned()),
        ("another secret", sign(&site.claims("demo"), "wrong")),
        ("no secret", sign(&site.claims("demo"), "")),
        (
            "the licence key",
            sign(&site.claims("demo"), &site.license_key("demo")),
        ),
        ("HS384", encoded(&Header::new(Algorithm::HS384))),
        ("HS512", encoded(&Header::new(Algorithm::HS512))),
        ("critical extension", encoded(&critical)),
        ("unsigned", unsigned),
        ("alg none", with_signature(r#"{"alg":"none","typ":"JWT"}"#)),
        ("alg None", with_signature(r#"{"alg":"None"}"#)),
        ("alg RS256", with_signature(r#"{"alg":"RS256"}"#)),
        ("alg ES256", with_signature(r#"{"alg":"ES256"}"#)),
        ("no alg", with_signature(r#"{"typ":"JWT"}"#)),
        (
            "other claims",
            with_signature(r#"{"typ":"JWT","alg":"HS256"}"#),
        ),
    ];
    let path = format!("/config/{}", tenant("demo"));
    for (name, token) in cases {
        let (status, answer) = site.call(Method::GET, &path, &token, None).await;
        assert_eq!(status, UNAUTHORIZED, "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_token_is_used_once_and_not_again_after_a_restart() {
    let mut site = Site::new(vec![instance("demo")]).await;
    let path = format!("/config/{}", tenant("demo"));
    let token = site.token("demo");
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(site.call(Method::GET, &path, &token, None).await.0);
    }
    assert_eq!(statuses, [StatusCode::OK, UNAUTHORIZED]);
    let unused = site.token("demo");
    site.hand.advance_millis(1_000);
    site.restart().await;
    for before in [token, unused] {
        let (status, _) = site.call(Method::GET, &path, &before, None).await;
        assert_eq!(status, UNAUTHORIZED, "issued before this agent started");
    }
    assert_eq!(site.get("demo", &path).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_used_token_from_ahead_of_the_clock_is_not_taken_again_after_a_restart() {
    let mut site = Site::new(vec![instance("demo"), instance("other")]).await;
    let path = format!("/config/{}", tenant("demo"));
    let now = NOW.0 / 1000;
    let ahead = |site: &Site, seconds: u64| {
        let changes = json!({"iat": now + seconds, "exp": now + seconds + 3600});
        sign(&changed(site, &changes), &site.secret("demo"))
    };
    let used = [55, 20].map(|seconds| ahead(&site, seconds));
    for token in &used {
        let (status, _) = site.call(Method::GET, &path, token, None).await;
        assert_eq!(status, StatusCode::OK);
    }
    for after_ms in [0, 1_000, 50_000, 6_000] {
        site.hand.advance_millis(after_ms);
        site.restart().await;
        for token in &used {
            let (status, _) = site.call(Method::GET, &path, token, None).await;
            assert_eq!(status, UNAUTHORIZED, "{after_ms}");
        }
        let own = format!("/config/{}", tenant("other"));
        assert_eq!(site.get("other", &own).await.0, StatusCode::OK);
    }
    let (status, _) = site.call(Method::GET, &path, &ahead(&site, 57), None).await;
    assert_eq!(status, StatusCode::OK, "it has caught up");
    assert_eq!(site.get("demo", &path).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_is_too_long_is_told_so() {
    let site = Site::new(vec![instance("demo")]).await;
    let changes = json!({"permissions": "x".repeat(4_000)});
    let long = sign(&changed(&site, &changes), &site.secret("demo"));
    let path = format!("/config/{}", tenant("demo"));
    let (status, answer) = site.call(Method::GET, &path, &long, None).await;
    assert_eq!(status, UNAUTHORIZED);
    let detail = "the token is too long: it may have at most 4096 bytes";
    assert_eq!(answer["detail"], json!(detail));
}

#[tokio::test]
async fn law_4_a_tenant_is_who_its_secret_belongs_to_whatever_it_claims() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let claiming = || {
        let mut claims = site.claims("other");
        claims["sub"] = json!(format!("isp-{}", tenant("demo")));
        claims["tenant_id"] = json!(tenant("demo"));
        sign(&claims, &site.secret("other"))
    };
    let of = |name: &str| format!("/config/{}", tenant(name));
    let own = site
        .call(Method::GET, &of("other"), &claiming(), None)
        .await;
    assert_eq!(
        (own.0, &own.1["tenant_id"]),
        (StatusCode::OK, &json!(tenant("other")))
    );
    let foreign = site.call(Method::GET, &of("demo"), &claiming(), None).await;
    let unknown = site
        .call(Method::GET, &of("nobody"), &claiming(), None)
        .await;
    assert_eq!(foreign.0, StatusCode::NOT_FOUND);
    assert_eq!(foreign, unknown);
    let key = format!("/license/{}", site.license_key("demo"));
    let foreign = site.call(Method::GET, &key, &claiming(), None).await;
    let none = "/license/DM-00000000000000000000000000000000";
    assert_eq!(
        foreign,
        site.call(Method::GET, none, &claiming(), None).await
    );
    let sync = format!("{}/sync", of("demo"));
    let body = json!({"current_version": null});
    let (status, _) = site
        .call(Method::POST, &sync, &claiming(), Some(body))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for (path, body) in [
        ("/metrics/report", metrics(1, 990)),
        ("/events/webhook", event("e", "nas.online")),
    ] {
        let (status, _) = site.call(Method::POST, path, &claiming(), Some(body)).await;
        assert_eq!(status, StatusCode::OK);
    }
    let info = |answer: Value| answer["license_info"]["current_subscribers"].clone();
    assert_eq!(info(site.validate("other").await), json!(990));
    assert_eq!(info(site.validate("demo").await), Value::Null);
    let (_, answer) = site
        .call(
            Method::POST,
            "/metrics/report",
            &claiming(),
            Some(metrics(2, 1)),
        )
        .await;
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .contains("tenant_id")
    );
}

#[tokio::test]
async fn a_removed_unit_is_nobody() {
    let site = Site::new(vec![instance("demo")]).await;
    let token = site.token("demo");
    let mut removed = wanted(instance("demo"));
    removed.order = Order::Remove;
    site.desired
        .send_replace(Arc::new(BTreeMap::from([(unit("demo"), removed)])));
    let path = format!("/config/{}", tenant("demo"));
    let (status, _) = site.call(Method::GET, &path, &token, None).await;
    assert_eq!(status, UNAUTHORIZED);
}
