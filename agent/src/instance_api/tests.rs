//! The calls of the contract over real HTTP on the loopback.
//! Longer than 400 lines: every call of the contract is asked of the same server, one claim after the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use dotmac_protocol::{
    digest::Digest,
    ids::{Generation, Sequence},
    record::Event,
    unit::{Instance, LicenseStanding, SealedCredential},
};
use dotmac_runtime::{
    clock::Clock,
    entropy::Entropy,
    seal::{SealKey, seal},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::{Sources, bind};
use crate::{
    fixture::{NOW, instance, tenant, unit},
    platform::{CREDENTIAL_CONTEXT, PlatformKeys},
    stations::Stations,
    unit::{About, Desired, Order, Recorder, Wanted},
};

#[derive(Default)]
struct Recorded(Mutex<Vec<(About, Event)>>);

impl Recorder for Recorded {
    fn record(&self, about: &About, event: Event) {
        self.0.lock().unwrap().push((about.clone(), event));
    }
}

struct Site {
    _directory: tempfile::TempDir,
    url: String,
    platform: Arc<PlatformKeys>,
    stations: Stations,
    recorded: Arc<Recorded>,
    desired: watch::Sender<Arc<Desired>>,
    client: reqwest::Client,
    server: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn wanted(instance: Instance) -> Wanted {
    Wanted {
        tenant: instance.tenant.clone(),
        unit: dotmac_protocol::ids::UnitId::instance(&instance.deployment),
        request: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        generation: Generation(1),
        sequence: Sequence(1),
        leaf: Digest::ZERO,
        at: NOW,
        order: Order::Keep(Arc::new(instance)),
    }
}

impl Site {
    async fn new(instances: Vec<Instance>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let bound = bind(listen, &directory.path().join("port")).await.unwrap();
        let url = bound.url();
        let seal_key = SealKey::from_bytes(&[9; 32]);
        let keys = directory.path().join("platform");
        let platform = PlatformKeys::open(&keys, url.clone(), seal_key, Entropy::seeded(1));
        let platform = Arc::new(platform.unwrap());
        let units = instances.into_iter().map(wanted);
        let units: Desired = units.map(|wanted| (wanted.unit.clone(), wanted)).collect();
        let (desired, receiver) = watch::channel(Arc::new(units));
        let (stations, recorded) = (Stations::default(), Arc::new(Recorded::default()));
        let server = bound.serve(Sources {
            desired: receiver,
            platform: Arc::clone(&platform),
            stations: stations.clone(),
            recorder: Arc::clone(&recorded) as Arc<dyn Recorder>,
            clock: Clock::manual(NOW).0,
        });
        Self {
            _directory: directory,
            url,
            platform,
            stations,
            recorded,
            desired,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            server,
        }
    }

    fn secret(&self, name: &str) -> String {
        self.platform
            .secrets(&unit(name))
            .unwrap()
            .service_token()
            .to_owned()
    }

    fn license_key(&self, name: &str) -> String {
        self.platform
            .secrets(&unit(name))
            .unwrap()
            .license_key()
            .to_owned()
    }

    fn token(&self, name: &str) -> String {
        sign(&claims(name), &self.secret(name))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}/api/platform/v1/service-api{path}", self.url);
        let mut request = self.client.request(method, url).bearer_auth(token);
        request = request.header("X-Tenant-ID", "somebody-else-00000000");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn post(&self, name: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, &self.token(name), Some(body))
            .await
    }

    async fn get(&self, name: &str, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, &self.token(name), None).await
    }
}

fn claims(name: &str) -> Value {
    let now = NOW.0 / 1000;
    let tenant = tenant(name);
    json!({"sub": format!("isp-{tenant}"), "type": "service", "service_type": "isp", "tenant_id": tenant,
        "permissions": ["license:validate"], "iat": now, "exp": now + 3600, "jti": "1"})
}

fn sign(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn validate_body(key: &str) -> Value {
    json!({"license_key": key, "isp_instance_id": "i-1", "version": "1.0"})
}

#[tokio::test]
async fn a_valid_licence_is_confirmed_shown_and_kept_alive() {
    let site = Site::new(vec![instance("demo")]).await;
    let key = site.license_key("demo");
    let (status, answer) = site
        .post("demo", "/license/validate", validate_body(&key))
        .await;
    assert_eq!((status, &answer["valid"]), (StatusCode::OK, &json!(true)));
    let info = &answer["license_info"];
    assert_eq!(info["tenant_id"], json!(tenant("demo")));
    assert_eq!(info["license_key"], json!(key));
    assert_eq!(
        (&info["is_valid"], &info["expires_at"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(info["max_subscribers"], json!(1000));
    assert_eq!(info["features"], json!({"billing": true}));
    let (status, shown) = site.get("demo", &format!("/license/{key}")).await;
    assert_eq!((status, &shown), (StatusCode::OK, info));
    let token = json!({"activation_token": answer["activation_token"]});
    let (status, beat) = site.post("demo", "/license/heartbeat", token).await;
    assert_eq!(
        (status, &beat["status"]),
        (StatusCode::OK, &json!("acknowledged"))
    );
    let way = site.stations.peek(&unit("demo"));
    assert_eq!(way[0].station, "instance.licensed");
}

#[tokio::test]
async fn tokens_that_are_not_the_units_own_are_refused() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let secret = site.secret("demo");
    let change = |member: &str, value: Value| {
        let mut claims = claims("demo");
        claims[member] = value;
        sign(&claims, &secret)
    };
    let (unauthorized, forbidden) = (StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN);
    let unsigned = {
        // {"alg":"none","typ":"JWT"}
        let signed = sign(&claims("demo"), &secret);
        let mut parts = signed.split('.');
        let body = parts.nth(1).unwrap();
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")
    };
    let other_algorithm = {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims("demo"), &key).unwrap()
    };
    let cases = [
        ("good", sign(&claims("demo"), &secret), StatusCode::OK),
        ("garbage", "garbage".to_owned(), unauthorized),
        ("other secret", sign(&claims("demo"), "wrong"), unauthorized),
        (
            "the other unit's secret",
            sign(&claims("demo"), &site.secret("other")),
            unauthorized,
        ),
        (
            "claims the other tenant",
            change("tenant_id", json!(tenant("other"))),
            unauthorized,
        ),
        ("expired", change("exp", json!(NOW.0 / 1000)), unauthorized),
        ("without an end", change("exp", Value::Null), unauthorized),
        (
            "of another type",
            change("type", json!("user")),
            unauthorized,
        ),
        (
            "of another service",
            change("service_type", json!("crm")),
            forbidden,
        ),
        ("alg none", unsigned, unauthorized),
        ("HS512", other_algorithm, unauthorized),
    ];
    let path = format!("/config/{}", tenant("demo"));
    for (name, token, expected) in cases {
        let (status, _) = site.call(Method::GET, &path, &token, None).await;
        assert_eq!(status, expected, "{name}");
    }
}

#[tokio::test]
async fn foreign_equals_unknown() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    let foreign_key = site.license_key("other");
    let pairs = [
        (
            format!("/license/{foreign_key}"),
            "/license/DM-00000000000000000000000000000000".into(),
        ),
        (
            format!("/config/{}", tenant("other")),
            format!("/config/{}", tenant("unknown")),
        ),
    ];
    for (foreign, unknown) in pairs {
        let foreign = site.get("demo", &foreign).await;
        assert_eq!(foreign.0, StatusCode::NOT_FOUND);
        assert_eq!(foreign, site.get("demo", &unknown).await);
    }
    let (status, answer) = site
        .post("demo", "/license/validate", validate_body(&foreign_key))
        .await;
    assert_eq!((status, &answer["valid"]), (StatusCode::OK, &json!(false)));
    assert_eq!(answer["license_info"], Value::Null);
}

#[tokio::test]
async fn only_an_operators_order_refuses_a_licence() {
    let standing = |name: &str, standing| {
        let mut instance = instance(name);
        instance.license.standing = standing;
        instance
    };
    let mut over = instance("over");
    over.license.expires_at = Some(dotmac_protocol::time::Timestamp(NOW.0 - 1));
    let site = Site::new(vec![
        standing("suspended", LicenseStanding::Suspended),
        standing("revoked", LicenseStanding::Revoked),
        over,
    ])
    .await;
    for (name, valid) in [("suspended", false), ("revoked", false), ("over", true)] {
        let body = validate_body(&site.license_key(name));
        let (status, answer) = site.post(name, "/license/validate", body).await;
        assert_eq!(
            (status, &answer["valid"]),
            (StatusCode::OK, &json!(valid)),
            "{name}"
        );
    }
    assert!(site.stations.peek(&unit("suspended")).is_empty());
}

#[tokio::test]
async fn configuration_is_versioned_by_its_content_and_merged_from_the_order() {
    let mut demo = instance("demo");
    demo.custom_config =
        r#"{"billing":{"currency":"NGN"},"theme":"dark","tenant_id":"x","features":{"a":1}}"#
            .into();
    let to = SealKey::from_bytes(&[9; 32]).public();
    let sealed = seal(&to, CREDENTIAL_CONTEXT, b"hidden", &Entropy::seeded(5)).unwrap();
    let name = "config.smtp_password".to_owned();
    demo.credentials.push(SealedCredential { name, sealed });
    let site = Site::new(vec![demo.clone()]).await;
    let path = format!("/config/{}", tenant("demo"));
    let (status, config) = site.get("demo", &path).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(config["tenant_id"], json!(tenant("demo")));
    assert_eq!(config["features"], json!({"billing": true}));
    assert_eq!(config["billing"]["currency"], json!("NGN"));
    assert_eq!(config["billing"]["invoice_due_days"], json!(14));
    assert_eq!(config["radius"]["coa_port"], json!(3799));
    assert_eq!(
        (&config["theme"], &config["smtp_password"]),
        (&json!("dark"), &json!("hidden"))
    );
    let version = config["config_version"].clone();
    let sync = format!("{path}/sync");
    let (_, whole) = site
        .post("demo", &sync, json!({"current_version": null}))
        .await;
    assert_eq!(whole, json!({"needs_update": true, "config": config}));
    let (_, none) = site
        .post("demo", &sync, json!({"current_version": version}))
        .await;
    assert_eq!(none, json!({"needs_update": false, "config": null}));
    demo.features.insert("crm".into(), true);
    let edited = BTreeMap::from([(unit("demo"), wanted(demo))]);
    site.desired.send_replace(Arc::new(edited));
    let (_, update) = site
        .post("demo", &sync, json!({"current_version": version}))
        .await;
    assert_eq!(update["needs_update"], json!(true));
    assert!(update["config"]["config_version"] != version);
}

#[tokio::test]
async fn reports_are_answered_as_the_contract_says_and_recorded_once_per_start() {
    let site = Site::new(vec![instance("demo")]).await;
    let key = site.license_key("demo");
    let metrics = |active: u64| {
        json!({"metrics": {"tenant_id": tenant("demo"), "reported_at": "2025-01-01T00:00:00Z",
            "active_subscribers": active, "total_subscribers": active}})
    };
    let health = json!({"tenant_id": tenant("demo"), "reported_at": "2025-01-01T00:00:00Z", "status": "healthy",
        "config_version": "old"});
    for _ in 0..2 {
        site.post("demo", "/license/validate", validate_body(&key))
            .await;
        for _ in 0..3 {
            let (status, answer) = site.post("demo", "/metrics/report", metrics(960)).await;
            assert_eq!(
                (status, &answer["enforcement_action"]),
                (StatusCode::OK, &json!("soft_limit"))
            );
            let (status, answer) = site.post("demo", "/metrics/health", health.clone()).await;
            assert_eq!(
                (status, &answer["config_update_available"]),
                (StatusCode::OK, &json!(true))
            );
            assert_eq!(answer["license_valid"], json!(true));
        }
    }
    let (_, shown) = site.get("demo", &format!("/license/{key}")).await;
    assert_eq!(shown["current_subscribers"], json!(960));
    let recorded = site.recorded.0.lock().unwrap();
    let is_reported = |event: &Event| matches!(event, Event::Audit { action, .. } if action == "instance.reported");
    assert_eq!(
        recorded
            .iter()
            .filter(|(_, event)| is_reported(event))
            .count(),
        2
    );
    assert_eq!(recorded[0].0.unit, Some(unit("demo")));
}

#[tokio::test]
async fn events_of_known_types_are_received_and_others_refused() {
    let site = Site::new(vec![instance("demo")]).await;
    let event = |id: &str, kind: &str| {
        json!({"event_id": id, "event_type": kind, "tenant_id": tenant("demo"),
            "occurred_at": "2025-01-01T00:00:00Z", "payload": {}})
    };
    let (status, answer) = site
        .post("demo", "/events/webhook", event("e1", "invoice.paid"))
        .await;
    assert_eq!(
        (status, &answer["event_id"]),
        (StatusCode::OK, &json!("e1"))
    );
    let (status, answer) = site
        .post("demo", "/events/webhook", event("e2", "invoice.lost"))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["code"], json!("invalid-body"));
    let batch =
        json!({"events": [event("e1", "nas.online"), event("e2", "no.such"), {"event_id": "e3"}]});
    let (status, answer) = site.post("demo", "/events/webhook/batch", batch).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&answer["received"], &answer["processed"], &answer["failed"]),
        (&json!(3), &json!(1), &json!(2))
    );
    assert_eq!(answer["errors"][0]["event_id"], json!("e2"));
}

#[tokio::test]
async fn bodies_that_are_wrong_or_too_large_are_refused() {
    let site = Site::new(vec![instance("demo")]).await;
    let (status, _) = site
        .post("demo", "/license/heartbeat", json!({"activation": 1}))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = site
        .post(
            "demo",
            "/license/heartbeat",
            json!({"activation_token": "x"}),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let large = json!({"license_key": "x".repeat(70_000), "isp_instance_id": "", "version": ""});
    let (status, _) = site.post("demo", "/license/validate", large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = site.get("demo", "/license/validate").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
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
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_chosen_port_is_kept_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("port");
    let listen = "127.0.0.1:0".parse().unwrap();
    let first = bind(listen, &file).await.unwrap();
    let url = first.url();
    let taken = bind(listen, &file).await.unwrap();
    assert_ne!(taken.url(), url);
    drop((first, taken));
    let again = bind(listen, &file).await.unwrap();
    assert_ne!(
        again.url(),
        url,
        "the port chosen last is the one that is kept"
    );
    let url = again.url();
    drop(again);
    assert_eq!(bind(listen, &file).await.unwrap().url(), url);
}
