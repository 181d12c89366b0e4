//! The calls of older instances, which show their licence key.

use dotmac_protocol::{
    license::LicenseStanding,
    record::reports::{PluginUsage, Report},
    time::Timestamp,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{DAY_MS, Site, wanted};
use crate::fixture::{NOW, instance, tenant};

impl Site {
    async fn older(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let body = body.map(|body| body.to_string().into_bytes());
        let path = format!("/api/v1{path}");
        let response = self.send(method, &path, key, body).await;
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn ask(&self, path: &str) -> (StatusCode, Value) {
        self.older(Method::GET, path, &self.license_key("demo"), None)
            .await
    }

    async fn tell(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.older(Method::POST, path, &self.license_key("demo"), Some(body))
            .await
    }
}

#[tokio::test]
async fn a_plugin_is_valid_when_the_licence_grants_the_feature() {
    let site = Site::new(vec![instance("demo")]).await;
    let path = format!("/plugin-licensing/validate/{}", tenant("demo"));
    for (query, valid) in [
        ("plugin_id=advanced-analytics", true),
        ("plugin_id=billing&feature=api_access", true),
        ("plugin_id=ai_insights", false),
        ("plugin_id=billing&feature=ai_insights", false),
        ("plugin_id=no-such", false),
    ] {
        let (status, answer) = site.ask(&format!("{path}?{query}")).await;
        assert_eq!(
            (status, &answer["is_valid"]),
            (StatusCode::OK, &json!(valid)),
            "{query}"
        );
        assert_eq!(answer["reason"].is_null(), valid);
        for member in [
            "plugin_id",
            "tenant_id",
            "license_status",
            "tier",
            "features",
            "usage_limits",
            "expires_at",
            "trial_ends_at",
        ] {
            assert!(answer.get(member).is_some(), "{member}");
        }
        assert_eq!(
            (&answer["license_status"], &answer["tier"]),
            (&json!("active"), &json!("premium"))
        );
        assert_eq!(answer["usage_limits"]["max_subscribers"], json!(1000));
    }
    let (status, answer) = site.ask(&path).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["errors"][0]["field"], json!("plugin_id"));
    let mut suspended = instance("demo");
    suspended.license.standing = LicenseStanding::Suspended;
    site.order(wanted(suspended));
    let (_, answer) = site.ask(&format!("{path}?plugin_id=billing")).await;
    assert_eq!(answer["is_valid"], json!(false));
    assert_eq!(answer["reason"], json!("the license is suspended"));
}

#[tokio::test]
async fn subscriptions_are_what_the_licence_grants_and_fall_when_it_is_restricted() {
    let mut demo = instance("demo");
    demo.license.expires_at = Some(NOW.plus_millis(DAY_MS));
    let site = Site::new(vec![demo]).await;
    let path = format!("/plugin-licensing/tenant/{}/subscriptions", tenant("demo"));
    let names = |answer: &Value| -> Vec<String> {
        let entries = answer["subscriptions"].as_array().unwrap().iter();
        entries
            .map(|one| one["plugin_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, active) = site.ask(&format!("{path}?active_only=true")).await;
    assert!(names(&active).contains(&"white_labeling".to_owned()));
    assert!(!names(&active).contains(&"ai_insights".to_owned()));
    let (_, all) = site.ask(&format!("{path}?active_only=false")).await;
    assert!(names(&all).contains(&"ai_insights".to_owned()));
    assert_eq!(all["total"], json!(13));
    site.hand.advance_millis(20 * DAY_MS);
    let (_, restricted) = site.ask(&path).await;
    let free = [
        "customer_management",
        "simple_billing",
        "standard_reporting",
    ];
    assert_eq!(names(&restricted), free);
    assert!(
        restricted["message"]
            .as_str()
            .unwrap()
            .contains("restricted")
    );
    let (status, _) = site.ask(&format!("{path}?active_only=maybe")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn law_8_plugin_usage_is_recorded_once_and_summed_over_restarts() {
    let mut site = Site::new(vec![instance("demo")]).await;
    let used = |day: u64, metric: &str, count: Value| {
        json!({"plugin_id": "crm", "metric_name": metric, "usage_count": count,
            "timestamp": format!("2025-03-{day:02}T10:00:00"), "metadata": {"a": 1}})
    };
    let body = json!({"tenant_id": "whoever", "plugin_id": "crm", "metrics": [
        used(1, "api_calls", json!(10)), used(2, "api_calls", json!(5)), used(2, "storage_gb", json!(1.2))]});
    let path = format!("/plugin-licensing/usage-summary/{}/crm", tenant("demo"));
    for _ in 0..2 {
        for _ in 0..2 {
            let (status, answer) = site.tell("/plugin-licensing/usage", body.clone()).await;
            assert_eq!(
                (status, &answer["recorded"]),
                (StatusCode::CREATED, &json!(3))
            );
        }
        let (_, whole) = site.ask(&path).await;
        assert_eq!(whole["metrics"], json!({"api_calls": 15, "storage_gb": 2}));
        site.restart().await;
    }
    let (_, second) = site
        .ask(&format!(
            "{path}?start_date=2025-03-02&end_date=2025-03-02T23:00:00Z"
        ))
        .await;
    assert_eq!(
        (&second["metrics"]["api_calls"], &second["total_usage"]),
        (&json!(5), &json!(7))
    );
    let (status, _) = site.ask(&format!("{path}?start_date=never")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let first = Report::Plugin(PluginUsage {
        plugin_id: "crm".into(),
        metric_name: "api_calls".into(),
        usage_count: 10,
        timestamp: Timestamp(1_740_823_200_000),
    });
    let reported = site.reported();
    assert_eq!((reported.len(), &reported[0]), (3, &first));
    for count in [json!(-1), json!(u64::MAX), json!(1_000_000_000_000.5_f64)] {
        let bad = json!({"plugin_id": "crm", "metrics": [used(3, "api_calls", count)]});
        let (status, answer) = site.tell("/plugin-licensing/usage", bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let error = &answer["errors"][0];
        assert_eq!(error["field"], json!("metrics.0.usage_count"));
        assert_eq!(error["allowed"], json!("a number from 0 to 1000000000000"));
    }
}

#[tokio::test]
async fn configuration_and_health_calls_are_answered_from_what_is_in_force() {
    let site = Site::new(vec![instance("demo")]).await;
    let (_, config) = site
        .get("demo", &format!("/config/{}", tenant("demo")))
        .await;
    let (status, answer) = site.tell("/config/validate", config.clone()).await;
    assert_eq!((status, &answer["valid"]), (StatusCode::OK, &json!(true)));
    assert_eq!(
        (&answer["errors"], &answer["warnings"]),
        (&json!([]), &json!([]))
    );
    let bad = json!({"config": {"tenant_id": tenant("other"), "features": {"a": 1}, "config_version": "old"}});
    let (_, answer) = site.tell("/config/validate", bad).await;
    assert_eq!(answer["valid"], json!(false));
    assert_eq!(
        (
            answer["errors"].as_array().unwrap().len(),
            answer["warnings"].as_array().unwrap().len()
        ),
        (2, 1)
    );
    let version = &config["config_version"];
    for (applied, update) in [(version.clone(), false), (json!("old"), true)] {
        let (status, answer) = site
            .tell("/config/applied", json!({"config_version": applied}))
            .await;
        assert_eq!(
            (status, &answer["config_update_available"]),
            (StatusCode::OK, &json!(update))
        );
        assert_eq!(&answer["latest_config_version"], version);
    }
    let (status, answer) = site
        .tell(
            "/plugin-licensing/health-status",
            json!({"status": "healthy"}),
        )
        .await;
    assert_eq!(
        (status, &answer["license_valid"]),
        (StatusCode::OK, &json!(true))
    );
}

#[tokio::test]
async fn law_7_a_key_opens_its_own_tenant_alone() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    for path in [
        "/plugin-licensing/validate/TENANT?plugin_id=billing",
        "/plugin-licensing/tenant/TENANT/subscriptions",
        "/plugin-licensing/usage-summary/TENANT/crm",
    ] {
        let of = |name: &str| path.replace("TENANT", tenant(name).as_str());
        let foreign = site.ask(&of("other")).await;
        assert_eq!(foreign.0, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(foreign, site.ask(&of("nobody")).await);
        for key in [
            "DM-00000000000000000000000000000000",
            "",
            &site.secret("demo"),
            &site.token("demo"),
        ] {
            let (status, _) = site.older(Method::GET, &of("demo"), key, None).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    let path = format!("/config/{}", tenant("demo"));
    let (status, _) = site
        .call(Method::GET, &path, &site.license_key("demo"), None)
        .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a key is no token");
}
