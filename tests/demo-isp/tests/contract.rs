//! The demo instance against a small platform: what it needs to start, what it calls, and how it misbehaves on order.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::HeaderMap,
    routing::post,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::mpsc,
};

const SECRET: &str = "the secret of one instance, long enough for HS256";

/// What the program called: the path, its headers and the body.
type Call = (String, HeaderMap, Value);

/// A platform that answers validly or not and tells what was called.
async fn platform(valid: bool) -> (String, mpsc::Receiver<Call>) {
    let (calls, called) = mpsc::channel(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |State(calls): State<mpsc::Sender<Call>>,
                       Path(path): Path<String>,
                       headers: HeaderMap,
                       Json(body): Json<Value>| async move {
        let answer = match path.as_str() {
            "license/validate" => json!({"valid": valid, "message": "it was suspended",
                "license_info": {"tenant_name": "Demo & Sons"}}),
            path if path.ends_with("/sync") => {
                json!({"needs_update": true, "config": {"config_version": "v1"}})
            }
            _ => json!({"received": true}),
        };
        calls.send((path, headers, body)).await.unwrap();
        Json(answer)
    };
    let router = Router::new()
        .route("/api/platform/v1/service-api/{*path}", post(answer))
        .with_state(calls);
    tokio::task::spawn(async move { axum::serve(listener, router).await });
    (url, called)
}

struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Demo {
    fn start(platform_url: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_demo-isp"))
            .env_clear()
            .env("PLATFORM_URL", platform_url)
            .env("TENANT_ID", "demo-isp-0190a1b2")
            .env("ISP_LICENSE_KEY", "a key")
            .env("PLATFORM_SERVICE_TOKEN", SECRET)
            .env("PORT", "0")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on until a line that holds `part`.
    async fn line(&mut self, part: &str) -> String {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            if line.contains(part) {
                return line;
            }
        }
        panic!("it ended without a line with {part:?}");
    }

    async fn url(&mut self) -> String {
        let line = self.line("serving ").await;
        format!("http://{}", line.rsplit(' ').next().unwrap())
    }

    async fn end(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(20), self.child.wait())
            .await
            .unwrap()
            .unwrap()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap()
}

async fn get(url: &str, path: &str) -> Result<Value, reqwest::Error> {
    client()
        .get(format!("{url}{path}"))
        .send()
        .await?
        .json()
        .await
}

async fn control(url: &str, order: Value) -> Result<Value, reqwest::Error> {
    let url = format!("{url}/control");
    client()
        .post(url)
        .json(&order)
        .timeout(Duration::from_secs(20))
        .send()
        .await?
        .json()
        .await
}

#[tokio::test]
async fn it_refuses_to_run_without_a_valid_licence_a_platform_or_its_identity() {
    let (url, _called) = platform(false).await;
    let mut demo = Demo::start(&url, &[]);
    demo.line("the licence is not valid: it was suspended")
        .await;
    assert_eq!(demo.end().await.code(), Some(2));

    let mut demo = Demo::start("http://127.0.0.1:1", &[]);
    demo.line("the licence cannot be validated").await;
    assert_eq!(demo.end().await.code(), Some(2));

    let mut demo = Demo::start(&url, &[("TENANT_ID", "")]);
    demo.line("TENANT_ID is not set").await;
    assert_eq!(demo.end().await.code(), Some(2));
}

#[tokio::test]
async fn it_validates_syncs_and_reports_with_a_fresh_token_each() {
    let (url, mut called) = platform(true).await;
    let quick = [
        ("DEMO_METRICS_MS", "50"),
        ("DEMO_HEALTH_MS", "50"),
        ("DEMO_CONFIG_MS", "50"),
    ];
    let mut demo = Demo::start(&url, &quick);
    let own = demo.url().await;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["exp"]);
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let (mut paths, mut tokens) = (vec![], vec![]);
    while ![
        "license/validate",
        "config/demo-isp-0190a1b2/sync",
        "metrics/report",
        "metrics/health",
    ]
    .iter()
    .all(|path| paths.iter().any(|seen| seen == path))
    {
        let (path, headers, body) = called.recv().await.unwrap();
        let token = headers["authorization"]
            .to_str()
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap()
            .to_owned();
        let claims: Value = jsonwebtoken::decode(&token, &key, &validation)
            .unwrap()
            .claims;
        assert_eq!(claims["sub"], "isp-demo-isp-0190a1b2");
        assert_eq!(
            (&claims["type"], &claims["service_type"]),
            (&json!("service"), &json!("isp"))
        );
        assert_eq!(
            claims["exp"].as_u64().unwrap(),
            claims["iat"].as_u64().unwrap() + 3_600
        );
        assert_eq!(headers["x-tenant-id"], "demo-isp-0190a1b2");
        if paths.is_empty() {
            assert_eq!(
                (path.as_str(), &body["license_key"]),
                ("license/validate", &json!("a key"))
            );
        }
        assert!(!tokens.contains(&token), "every token is fresh");
        paths.push(path);
        tokens.push(token);
    }
    demo.line("configuration v1 is in force").await;
    let home = client()
        .get(&own)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        home.contains("Demo &amp; Sons") && home.contains("configuration v1"),
        "{home}"
    );
    assert_eq!(get(&own, "/health").await.unwrap()["service"], "isp");
}

#[tokio::test]
async fn it_misbehaves_on_order_and_ends_on_sigterm() {
    let (platform_url, _called) = platform(true).await;
    let mut demo = Demo::start(&platform_url, &[]);
    let url = demo.url().await;
    assert_eq!(get(&url, "/health/ready").await.unwrap()["healthy"], true);
    control(&url, json!({"mode": "sick"})).await.unwrap();
    let ready = get(&url, "/health/ready").await.unwrap();
    assert_eq!(
        (&ready["status"], &ready["healthy"]),
        (&json!("not ready"), &json!(false))
    );
    assert_eq!(get(&url, "/health/live").await.unwrap()["status"], "alive");
    for mode in ["hang", "slow"] {
        control(&url, json!({"mode": mode})).await.unwrap();
        assert!(
            get(&url, "/health/live").await.unwrap_err().is_timeout(),
            "{mode}"
        );
    }
    control(&url, json!({"mode": "healthy"})).await.unwrap();
    assert_eq!(get(&url, "/health/live").await.unwrap()["status"], "alive");
    let pid = i32::try_from(demo.child.id().unwrap()).unwrap();
    let killed = Command::new("kill")
        .arg(pid.to_string())
        .status()
        .await
        .unwrap();
    assert!(killed.success());
    assert_eq!(demo.end().await.code(), Some(0));
}

#[tokio::test]
async fn it_crashes_with_the_code_and_the_output_it_is_told() {
    let (platform_url, _called) = platform(true).await;
    let mut demo = Demo::start(&platform_url, &[]);
    let url = demo.url().await;
    let order = json!({"mode": "crash", "exit_code": 7, "write_bytes": 1_048_576});
    let crash = tokio::task::spawn(async move { control(&url, order).await });
    let mut written = 0;
    while let Some(line) = demo.lines.next_line().await.unwrap() {
        written += line.len() + 1;
    }
    assert!(crash.await.unwrap().is_err(), "a crash answers nothing");
    assert!(written >= 1_048_576, "{written}");
    assert_eq!(demo.end().await.code(), Some(7));

    let mut demo = Demo::start(
        &platform_url,
        &[("DEMO_MODE", "crash-loop"), ("DEMO_EXIT_CODE", "9")],
    );
    assert_eq!(demo.end().await.code(), Some(9));
}
