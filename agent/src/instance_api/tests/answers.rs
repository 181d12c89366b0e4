//! Claims about all answers alike: what is restricted says so everywhere, and every error is a problem that the
//! reference lists.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{BASE, DAY_MS, Site, event, health, metrics, validation};
use crate::fixture::{NOW, instance, tenant, unit};

const OLDER: &str = "/api/v1";

/// Every call that is answered well, by its whole path.
fn calls(site: &Site) -> Vec<(Method, String, Option<Value>)> {
    let (key, tenant) = (site.license_key("demo"), tenant("demo"));
    let secrets = site.serving.platform.secrets(&unit("demo")).unwrap();
    let activation = json!({"activation_token": secrets.activation_token()});
    let plugin = json!({"plugin_id": "crm", "metric_name": "api_calls", "usage_count": 1,
        "timestamp": "2025-01-01T00:00:00Z"});
    let get = |base: &str, path: String| (Method::GET, format!("{base}{path}"), None);
    let post = |base: &str, path: String, body| (Method::POST, format!("{base}{path}"), Some(body));
    let validate = |query| {
        get(
            OLDER,
            format!("/plugin-licensing/validate/{tenant}?plugin_id={query}"),
        )
    };
    vec![
        post(BASE, "/license/validate".into(), validation(&key)),
        post(BASE, "/license/validate".into(), validation("DM-0")),
        post(BASE, "/license/validate".into(), json!({})),
        get(BASE, format!("/license/{key}")),
        post(BASE, "/license/heartbeat".into(), activation),
        get(BASE, format!("/config/{tenant}")),
        post(BASE, format!("/config/{tenant}/sync"), json!({})),
        post(BASE, "/metrics/report".into(), metrics(1, 1)),
        post(BASE, "/metrics/health".into(), health(1, "healthy")),
        post(BASE, "/events/webhook".into(), event("e", "nas.online")),
        post(BASE, "/events/webhook/batch".into(), json!({"events": []})),
        validate("advanced_billing"),
        validate("simple_billing"),
        validate("simple_billing&feature=api_access"),
        post(
            OLDER,
            "/plugin-licensing/usage".into(),
            json!({"metrics": [plugin]}),
        ),
        post(OLDER, "/plugin-licensing/health-status".into(), json!({})),
        get(
            OLDER,
            format!("/plugin-licensing/tenant/{tenant}/subscriptions"),
        ),
        get(
            OLDER,
            format!("/plugin-licensing/usage-summary/{tenant}/crm"),
        ),
        post(OLDER, "/config/validate".into(), json!({})),
        post(OLDER, "/config/applied".into(), json!({})),
    ]
}

#[tokio::test]
async fn every_answer_of_a_licence_that_ended_says_so() {
    let mut demo = instance("demo");
    demo.license.expires_at = Some(NOW.plus_millis(DAY_MS));
    let site = Site::new(vec![demo]).await;
    for (after, word) in [(2, "the license ended at"), (20, "is restricted")] {
        site.hand.advance_millis(after * DAY_MS);
        for (method, path, body) in calls(&site) {
            let token = match path.starts_with(OLDER) {
                true => site.license_key("demo"),
                false => site.token("demo"),
            };
            let body = body.map(|body| body.to_string().into_bytes());
            let answer = site.send(method, &path, &token, body).await;
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            let answer: Value = answer.json().await.unwrap();
            let of_config = &answer["license"]["message"];
            let said = [&answer["message"], &answer["reason"], of_config];
            let says = |text: &&Value| text.as_str().is_some_and(|text| text.contains(word));
            assert!(said.iter().any(says), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn paths_and_queries_that_cannot_be_read_are_problems_too() {
    let site = Site::new(vec![instance("demo")]).await;
    let tenant = tenant("demo");
    let query = |query: &str| format!("{OLDER}/plugin-licensing/validate/{tenant}?{query}");
    let summary = format!("{OLDER}/plugin-licensing/usage-summary/{tenant}");
    let subscriptions = format!("{OLDER}/plugin-licensing/tenant/{tenant}/subscriptions");
    let (unreadable, unknown) = (
        (StatusCode::UNPROCESSABLE_ENTITY, "invalid-query"),
        (StatusCode::NOT_FOUND, "not-found"),
    );
    for (path, expected) in [
        (query("plugin_id=a&plugin_id=b"), unreadable),
        (
            format!("{subscriptions}?active_only=1&active_only=0"),
            unreadable,
        ),
        (format!("{summary}/crm?start_date=&start_date="), unreadable),
        (
            format!("{OLDER}/plugin-licensing/validate/%ff?plugin_id=a"),
            unknown,
        ),
        (format!("{summary}/%ff"), unknown),
        (format!("{BASE}/license/%ff"), unknown),
        (format!("{BASE}/config/%ff"), unknown),
        (format!("{BASE}/%ff"), unknown),
    ] {
        let token = match path.starts_with(OLDER) {
            true => site.license_key("demo"),
            false => site.token("demo"),
        };
        let answer = site.send(Method::GET, &path, &token, None).await;
        let status = answer.status();
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(kind, "application/problem+json", "{path}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(
            (status, answer["code"].as_str().unwrap()),
            expected,
            "{path}"
        );
        assert_eq!(answer["status"], json!(status.as_u16()));
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_without_a_body() {
    let site = Site::new(vec![instance("demo")]).await;
    let address = site.serving.url.strip_prefix("http://").unwrap();
    let many: String = (0..101)
        .map(|number| format!("x-{number}: 1\r\n"))
        .collect();
    for (head, expected) in [
        ("what is this\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), "431"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *format!("HTTP/1.1 {expected}").as_bytes());
    }
}
