//! Whatever is sent, the agent answers as the contract says, and nobody gets in with what was not signed for him.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::Index,
    test_runner::{Config, TestRunner},
};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{BASE, Site, event, health, metrics, validation};
use crate::fixture::{instance, tenant};

/// Members of the contract, so that arbitrary values land in places that matter.
const NAMES: [&str; 14] = [
    "metrics",
    "events",
    "license_key",
    "isp_instance_id",
    "version",
    "activation_token",
    "current_version",
    "reported_at",
    "active_subscribers",
    "event_id",
    "event_type",
    "occurred_at",
    "payload",
    "config",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,200}".prop_map(Value::from),
        Just(Value::from("2025-01-01T00:00:00Z")),
        Just(Value::from("nas.online")),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let name = prop_oneof![
            proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
            ".{0,20}"
        ];
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            vec((name, inner), 0..8)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// A well-formed request with one member replaced, however deep.
fn nearly_right() -> impl Strategy<Value = Value> {
    let right = proptest::sample::select(vec![
        metrics(1, 5),
        health(1, "healthy"),
        event("e", "nas.online"),
        serde_json::json!({"events": [event("e", "nas.online")]}),
        validation("DM-1"),
    ]);
    (right, any::<Index>(), value()).prop_map(|(mut right, index, value)| {
        let target = match right.get("metrics").is_some() {
            true => &mut right["metrics"],
            false => &mut right,
        };
        let members = target.as_object_mut().unwrap();
        let name = members
            .keys()
            .nth(index.index(members.len()))
            .unwrap()
            .clone();
        members.insert(name, value);
        right
    })
}

#[test]
fn no_body_makes_the_agent_fail() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = runtime.block_on(Site::new(vec![instance("demo")]));
    let sync = format!("{BASE}/config/{}/sync", tenant("demo"));
    let paths = [
        "/license/validate",
        "/license/heartbeat",
        "/metrics/report",
        "/metrics/health",
        "/events/webhook",
        "/events/webhook/batch",
    ];
    let mut paths: Vec<String> = paths.iter().map(|path| format!("{BASE}{path}")).collect();
    paths.push(sync);
    let older = [
        "/api/v1/plugin-licensing/usage",
        "/api/v1/plugin-licensing/health-status",
        "/api/v1/config/validate",
        "/api/v1/config/applied",
    ];
    let bodies = prop_oneof![
        value().prop_map(|value| value.to_string().into_bytes()),
        nearly_right().prop_map(|value| value.to_string().into_bytes()),
        vec(any::<u8>(), 0..300),
    ];
    let mut runner = TestRunner::new(Config::with_cases(96));
    let ran = runner.run(&bodies, |body| {
        runtime.block_on(async {
            let new = paths.iter().map(|path| (path.as_str(), site.token("demo")));
            let old = older.iter().map(|path| (*path, site.license_key("demo")));
            for (path, bearer) in new.chain(old) {
                let answer = site
                    .send(Method::POST, path, &bearer, Some(body.clone()))
                    .await;
                let status = answer.status();
                let is_expected = status.is_success()
                    || status == StatusCode::UNPROCESSABLE_ENTITY
                    || (status == StatusCode::NOT_FOUND && path.ends_with("heartbeat"));
                assert!(is_expected, "{path} answers {status}");
                let answer: Value = answer.json().await.unwrap();
                assert!(answer.is_object(), "{path}");
            }
        });
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn no_token_counts_but_one_that_the_unit_signed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = runtime.block_on(Site::new(vec![instance("demo")]));
    let path = format!("/config/{}", tenant("demo"));
    let part = "[A-Za-z0-9_=-]{0,60}";
    let header = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9";
    let tokens = prop_oneof![
        "[ -~]{0,200}".prop_map(|text| (text, None)),
        (part, part, part).prop_map(|(a, b, c)| (format!("{a}.{b}.{c}"), None)),
        (part, part).prop_map(move |(b, c)| (format!("{header}.{b}.{c}"), None)),
        (any::<Index>(), proptest::char::range('!', '~'))
            .prop_map(|(index, other)| (String::new(), Some((index, other)))),
    ];
    let mut runner = TestRunner::new(Config::with_cases(400));
    let ran = runner.run(&tokens, |(token, change)| {
        let token = match change {
            None => token.trim().to_owned(),
            Some((index, other)) => {
                let mut changed = site.token("demo").into_bytes();
                let index = index.index(changed.len());
                if changed[index] == other as u8 {
                    return Ok(());
                }
                changed[index] = other as u8;
                String::from_utf8(changed).unwrap()
            }
        };
        let answer = runtime.block_on(site.call(Method::GET, &path, &token, None));
        assert_eq!(answer.0, StatusCode::UNAUTHORIZED, "{token}");
        Ok(())
    });
    ran.unwrap();
    let good = runtime.block_on(site.get("demo", &path));
    assert_eq!(good.0, StatusCode::OK, "the site works");
}
