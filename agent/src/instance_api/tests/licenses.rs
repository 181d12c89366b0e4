//! Licences: confirmed, shown, kept alive, and what time and operators make of them, with no controller anywhere.

use dotmac_protocol::{
    license::{LicenseStanding, Tier},
    unit::Instance,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{DAY_MS, Site, health, metrics, wanted};
use crate::fixture::{NOW, instance, tenant, unit};

/// A licence that ends ten days from now, with fourteen days of grace.
fn ending(name: &str) -> Instance {
    let mut instance = instance(name);
    instance.license.expires_at = Some(NOW.plus_millis(10 * DAY_MS));
    instance
}

#[tokio::test]
async fn a_valid_licence_is_confirmed_shown_and_kept_alive() {
    let site = Site::new(vec![instance("demo")]).await;
    let key = site.license_key("demo");
    let answer = site.validate("demo").await;
    assert_eq!(answer["valid"], json!(true));
    assert_eq!(answer["message"], json!("the license is valid"));
    assert!(answer["config_hash"].is_string() && answer["activation_token"].is_string());
    let info = &answer["license_info"];
    assert_eq!(info["tenant_id"], json!(tenant("demo")));
    assert_eq!(info["tenant_name"], json!("Demo ISP"));
    assert_eq!(info["license_key"], json!(key));
    assert_eq!(
        (&info["is_valid"], &info["expires_at"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(info["max_subscribers"], json!(1000));
    assert_eq!(info["current_subscribers"], Value::Null);
    let features = info["features"].as_object().unwrap();
    assert!(features.values().all(Value::is_boolean));
    assert_eq!(
        (&features["billing"], &features["ai_insights"]),
        (&json!(true), &json!(false))
    );
    let (status, shown) = site.get("demo", &format!("/license/{key}")).await;
    assert_eq!((status, &shown), (StatusCode::OK, info));
    let token = json!({"activation_token": answer["activation_token"]});
    let (status, beat) = site.post("demo", "/license/heartbeat", token).await;
    let expected = json!({"status": "acknowledged", "message": "the license is active"});
    assert_eq!((status, beat), (StatusCode::OK, expected));
    let way = site.serving.stations.peek(&unit("demo"));
    assert_eq!(way[0].station, "instance.licensed");
}

#[tokio::test]
async fn the_log_tells_a_validation_only_when_it_is_news() {
    let site = Site::new(["first", "demo", "other"].map(ending).to_vec()).await;
    // Both lines have to be known before anybody listens: else a thread on which nobody does may make them known.
    site.validate("first").await;
    site.validate("first").await;
    let (mut written, log) = std::io::pipe().unwrap();
    let log = std::sync::Mutex::new(log);
    let subscriber = tracing_subscriber::fmt().with_writer(log).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    for _ in 0..3 {
        site.validate("demo").await;
        site.validate("other").await;
    }
    site.hand.advance_millis(11 * DAY_MS);
    for _ in 0..3 {
        site.validate("demo").await;
    }
    drop((guard, site));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut written, &mut text).unwrap();
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("an instance validated its license"))
        .map(|line| line.rsplit_once("phase=").unwrap().1.trim_matches('"'))
        .collect();
    assert_eq!(told, ["valid", "valid", "grace"], "{text}");
}

#[tokio::test]
async fn law_5_thirty_days_without_a_controller_an_instance_still_starts_licensed() {
    let mut site = Site::new(vec![ending("demo")]).await;
    site.post("demo", "/metrics/report", metrics(1, 400)).await;
    let mut versions = Vec::new();
    for (days, status, most) in [
        (9, "valid", 1000),
        (2, "grace", 1000),
        (19, "restricted", 400),
    ] {
        site.hand.advance_millis(days * DAY_MS);
        site.restart().await;
        let answer = site.validate("demo").await;
        assert_eq!(answer["valid"], json!(true), "{status}");
        let info = &answer["license_info"];
        assert_eq!(
            (&info["status"], &info["is_valid"]),
            (&json!(status), &json!(true))
        );
        assert_eq!(info["max_subscribers"], json!(most), "{status}");
        assert_eq!(info["current_subscribers"], json!(400));
        assert_eq!(
            info["features"]["api_access"],
            json!(status != "restricted")
        );
        assert_eq!(info["features"]["customer_management"], json!(true));
        let path = format!("/config/{}", tenant("demo"));
        let (_, config) = site.get("demo", &path).await;
        assert_eq!(config["features"], info["features"], "{status}");
        assert_eq!(config["license"]["status"], json!(status));
        versions.push(config["config_version"].clone());
        let (_, report) = site
            .post("demo", "/metrics/health", health(days, "healthy"))
            .await;
        assert_eq!(report["license_valid"], json!(true));
        let said = [
            &answer["message"],
            &report["message"],
            &config["license"]["message"],
        ];
        let says = |word: &str| {
            said.iter()
                .all(|text| text.as_str().unwrap().contains(word))
        };
        match status {
            "valid" => assert_eq!((said[1], said[2]), (&json!(""), &json!(""))),
            "grace" => assert!(says("ended at 2023-11-24T22:13:20Z"), "{said:?}"),
            _ => assert!(says("is restricted"), "{said:?}"),
        }
    }
    versions.dedup();
    assert_eq!(
        versions.len(),
        3,
        "a phase is a change of the configuration"
    );
}

#[tokio::test]
async fn restricted_there_is_no_growth_and_every_report_says_so() {
    let mut site = Site::new(vec![ending("demo"), ending("fresh")]).await;
    site.post("demo", "/metrics/report", metrics(1, 400)).await;
    site.hand.advance_millis(30 * DAY_MS);
    for (number, active, action) in [
        (2, 300, "none"),
        (3, 400, "soft_limit"),
        (4, 401, "hard_limit"),
    ] {
        let (status, answer) = site
            .post("demo", "/metrics/report", metrics(number, active))
            .await;
        assert_eq!(
            (status, &answer["received"]),
            (StatusCode::OK, &json!(true))
        );
        assert_eq!(answer["enforcement_action"], json!(action), "{active}");
        assert!(answer["message"].as_str().unwrap().contains("restricted"));
        assert!(
            answer["warnings"][0]
                .as_str()
                .unwrap()
                .contains("restricted")
        );
    }
    site.restart().await;
    let most = site.validate("demo").await["license_info"]["max_subscribers"].clone();
    assert_eq!(most, json!(400), "a report while restricted raises nothing");
    let of = |site: &Site| site.serving.platform.secrets(&unit("fresh")).unwrap();
    assert!(of(&site).license_key().starts_with("DM-"));
    site.post("fresh", "/metrics/report", metrics(5, 250)).await;
    site.post("fresh", "/metrics/report", metrics(6, 260)).await;
    let most = site.validate("fresh").await["license_info"]["max_subscribers"].clone();
    assert_eq!(
        most,
        json!(250),
        "who never reported before is held to the first report"
    );
    let mut renewed = ending("demo");
    renewed.license.expires_at = None;
    site.order(wanted(renewed));
    let info = site.validate("demo").await["license_info"].clone();
    assert_eq!(
        (&info["status"], &info["max_subscribers"]),
        (&json!("valid"), &json!(1000))
    );
}

#[tokio::test]
async fn a_clock_set_back_extends_nothing_and_a_signed_one_heals_a_jump() {
    let mut site = Site::new(vec![ending("demo")]).await;
    let status = async |site: &Site| {
        let answer = site.validate("demo").await;
        answer["license_info"]["status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    site.hand.advance_millis(12 * DAY_MS);
    assert_eq!(status(&site).await, "grace");
    site.hand.set(NOW);
    assert_eq!(status(&site).await, "grace");
    site.restart().await;
    assert_eq!(status(&site).await, "grace", "over a restart, too");
    site.hand.advance_millis(13 * DAY_MS);
    assert_eq!(status(&site).await, "restricted", "what passed counts");
    site.serving.time.hear(NOW.plus_millis(DAY_MS));
    assert_eq!(
        status(&site).await,
        "valid",
        "what controllers sign replaces it"
    );
}

#[tokio::test]
async fn only_an_operators_order_refuses_a_licence_at_once() {
    let standing = |standing| {
        let mut instance = ending("demo");
        instance.license.standing = standing;
        instance
    };
    let site = Site::new(vec![ending("demo")]).await;
    for (order, valid, word) in [
        (LicenseStanding::Suspended, false, "suspended"),
        (LicenseStanding::Valid, true, "valid"),
        (LicenseStanding::Revoked, false, "revoked"),
    ] {
        site.order(wanted(standing(order)));
        let answer = site.validate("demo").await;
        assert_eq!(answer["valid"], json!(valid), "{word}");
        assert!(
            answer["message"].as_str().unwrap().contains(word),
            "{answer}"
        );
        assert_eq!(answer["license_info"].is_null(), !valid);
        assert_eq!(answer["activation_token"].is_null(), !valid);
        let (_, report) = site
            .post("demo", "/metrics/health", health(1, "healthy"))
            .await;
        assert_eq!(report["license_valid"], json!(valid));
        let key = site.license_key("demo");
        let (_, shown) = site.get("demo", &format!("/license/{key}")).await;
        assert_eq!(shown["is_valid"], json!(valid));
    }
}

#[tokio::test]
async fn a_changed_licence_is_served_by_the_next_call() {
    let site = Site::new(vec![instance("demo")]).await;
    let before = site.validate("demo").await;
    let mut changed = instance("demo");
    changed.license.tier = Tier::Enterprise;
    changed.license.max_subscribers = 5;
    site.order(wanted(changed));
    let (_, answer) = site.post("demo", "/metrics/report", metrics(1, 6)).await;
    assert_eq!(answer["enforcement_action"], json!("hard_limit"));
    let after = site.validate("demo").await;
    assert_eq!(
        after["license_info"]["features"]["ai_insights"],
        json!(true)
    );
    assert_ne!(after["config_hash"], before["config_hash"]);
}

#[tokio::test]
async fn a_validation_that_is_incomplete_is_answered_and_names_what_is_wrong() {
    let site = Site::new(vec![instance("demo")]).await;
    let key = site.license_key("demo");
    let long = "x".repeat(1_025);
    for (member, value) in [
        ("license_key", Value::Null),
        ("license_key", json!("")),
        ("license_key", json!(5)),
        ("license_key", json!(long)),
        ("isp_instance_id", json!(long)),
        ("isp_instance_id", Value::Null),
        ("version", json!([])),
        ("version", Value::Null),
        ("device_fingerprint", json!(7)),
    ] {
        let mut body = super::validation(&key);
        body[member] = value.clone();
        let (status, answer) = site.post("demo", "/license/validate", body).await;
        assert_eq!((status, &answer["valid"]), (StatusCode::OK, &json!(false)));
        let message = answer["message"].as_str().unwrap();
        let names = message.contains(member) && message.contains("1024 bytes");
        assert!(
            names && !message.contains(&long),
            "{member} {value}: {message}"
        );
        assert!(answer["license_info"].is_null() && answer["activation_token"].is_null());
    }
    let (status, answer) = site.post("demo", "/license/validate", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let message = answer["message"].as_str().unwrap();
    let all = ["license_key", "isp_instance_id", "version"];
    assert!(
        all.iter().all(|member| message.contains(member)),
        "{message}"
    );
}

#[tokio::test]
async fn an_unknown_key_is_answered_and_an_unknown_activation_is_not_found() {
    let site = Site::new(vec![instance("demo"), instance("other")]).await;
    for key in [site.license_key("other"), "DM-0".to_owned()] {
        let body = super::validation(&key);
        let (status, answer) = site.post("demo", "/license/validate", body).await;
        let expected = json!({"valid": false, "message": "the license key is unknown", "license_info": null,
            "config_hash": null, "activation_token": null});
        assert_eq!((status, answer), (StatusCode::OK, expected));
    }
    let foreign = site.validate("other").await["activation_token"].clone();
    for token in [foreign, json!("act-0")] {
        let body = json!({"activation_token": token});
        let (status, _) = site.post("demo", "/license/heartbeat", body).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}
