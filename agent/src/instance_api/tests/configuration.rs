//! Configuration: merged from the order, versioned by its content.

use dotmac_protocol::unit::SealedCredential;
use dotmac_runtime::{
    entropy::Entropy,
    seal::{SealKey, seal},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Site, wanted};
use crate::{
    fixture::{instance, tenant},
    platform::CREDENTIAL_CONTEXT,
};

#[tokio::test]
async fn configuration_is_versioned_by_its_content_and_merged_from_the_order() {
    let mut demo = instance("demo");
    demo.custom_config =
        r#"{"billing":{"currency":"NGN"},"theme":"dark","tenant_id":"x","features":{"a":1},"license":{"status":"x"}}"#
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
    assert_eq!(config["tenant_name"], json!("Demo ISP"));
    let features = config["features"].as_object().unwrap();
    assert!(features.values().all(Value::is_boolean) && features["billing"] == json!(true));
    assert_eq!(config["license"]["status"], json!("valid"));
    let radius = json!({"nas_identifier": tenant("demo"), "default_session_timeout": 86400,
        "default_idle_timeout": 1800, "coa_port": 3799, "accounting_interim_interval": 300});
    assert_eq!(config["radius"], radius);
    let billing = json!({"currency": "NGN", "tax_rate": 0, "invoice_due_days": 14,
        "dunning_enabled": false, "payment_methods": []});
    assert_eq!(config["billing"], billing);
    for member in [
        "company_name",
        "primary_color",
        "logo_url",
        "support_email",
        "support_phone",
        "timezone",
    ] {
        assert!(config["branding"].get(member).is_some(), "{member}");
    }
    assert!(config["updated_at"].is_string());
    assert_eq!(
        (&config["theme"], &config["smtp_password"]),
        (&json!("dark"), &json!("hidden"))
    );
    let version = config["config_version"].clone();
    let sync = format!("{path}/sync");
    for current in [json!({"current_version": null}), json!({})] {
        let (_, whole) = site.post("demo", &sync, current).await;
        let expected = json!({"needs_update": true, "config": config, "message": ""});
        assert_eq!(whole, expected);
    }
    let (_, none) = site
        .post("demo", &sync, json!({"current_version": version}))
        .await;
    let expected = json!({"needs_update": false, "config": null, "message": ""});
    assert_eq!(none, expected);
    demo.features.insert("crm".into(), true);
    site.order(wanted(demo));
    let (_, update) = site
        .post("demo", &sync, json!({"current_version": version}))
        .await;
    assert_eq!(update["needs_update"], json!(true));
    assert!(update["config"]["config_version"] != version);
}
