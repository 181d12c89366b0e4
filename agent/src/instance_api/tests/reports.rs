//! Reports: answered as the contract says, durable when answered, counted once.

use dotmac_protocol::{
    record::{
        Event,
        reports::{PAYLOAD_BYTES_MAX, Report},
    },
    time::Timestamp,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{BASE, Site, event, health, metrics};
use crate::{
    chain::ChainLimits,
    fixture::{instance, unit},
};

#[tokio::test]
async fn law_8_every_report_is_kept_whole_and_once_over_restarts_and_answered_alike() {
    let mut site = Site::new(vec![instance("demo")]).await;
    let mut with_money = metrics(1, 810);
    with_money["metrics"]["revenue_today"] = json!("1234.50");
    with_money["metrics"]["outstanding_invoices"] = json!(7.25);
    with_money["metrics"]["something_new"] = json!([1, 2]);
    with_money["metadata"] = json!({"x": 1});
    let mut paid = event("e-1", "payment.received");
    paid["payload"] = json!({"amount": 5, "card_token": "tok_123"});
    let batch = json!({"events": [paid, event("e-2", "nas.online"), event("e-2", "nas.online")]});
    let sent = [
        ("/metrics/report", with_money),
        ("/events/webhook", paid.clone()),
        ("/events/webhook/batch", batch),
        ("/metrics/health", health(5, "healthy")),
    ];
    let mut first = Vec::new();
    for (path, body) in &sent {
        first.push(site.post("demo", path, body.clone()).await);
    }
    let expected = json!({"received": true, "message": "810 of 1000 subscribers: 80 percent of the limit are reached",
        "warnings": [], "errors": [], "enforcement_action": "none"});
    assert_eq!(first[0], (StatusCode::OK, expected));
    let expected = json!({"status": "received", "event_id": "e-1", "message": ""});
    assert_eq!(first[1], (StatusCode::OK, expected));
    let expected = json!({"received": 3, "processed": 3, "failed": 0, "errors": [], "message": ""});
    assert_eq!(first[2], (StatusCode::OK, expected));
    assert_eq!(first[3].0, StatusCode::OK);
    for _ in 0..2 {
        for ((path, body), expected) in sent.iter().zip(&first) {
            assert_eq!(
                site.post("demo", path, body.clone()).await,
                *expected,
                "{path}"
            );
        }
        site.restart().await;
    }
    let reported = site.reported();
    let [
        Report::Usage(usage),
        Report::Event(one),
        Report::Event(two),
        Report::Claim(claim),
        rest @ ..,
    ] = &reported[..]
    else {
        panic!("{reported:?}")
    };
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(usage.reported_at, Timestamp(1_735_689_601_000));
    let counts = [
        usage.active_subscribers,
        usage.total_subscribers,
        usage.new_subscribers_today,
        usage.churned_subscribers_today,
        usage.active_sessions,
        usage.sessions_today,
        usage.data_usage_kb,
        usage.active_nas_devices,
        usage.active_olts,
        usage.active_onts,
    ];
    assert_eq!(counts, [810, 811, 2, 3, 4, 5, 6_500, 7, 8, 9]);
    assert_eq!(usage.revenue_today.as_deref(), Some("1234.50"));
    assert_eq!(usage.outstanding_invoices.as_deref(), Some("7.25"));
    assert_eq!(
        (one.event_id.as_str(), two.event_id.as_str()),
        ("e-1", "e-2")
    );
    assert_eq!(one.payload, r#"{"amount":5,"card_token":"[masked]"}"#);
    assert_eq!(
        (claim.status.as_str(), claim.cpu_usage_basis_points),
        ("healthy", 1_234)
    );
    assert_eq!(claim.memory_usage_basis_points, 4_000);
    let answer = site.validate("demo").await;
    assert_eq!(answer["license_info"]["current_subscribers"], json!(810));
}

#[tokio::test]
async fn a_start_is_followed_by_one_note_that_reports_arrive() {
    let site = Site::new(vec![instance("demo")]).await;
    for start in 0..2 {
        site.validate("demo").await;
        for number in 0..3 {
            site.post("demo", "/metrics/report", metrics(start * 3 + number, 1))
                .await;
            site.post("demo", "/metrics/health", health(number, "healthy"))
                .await;
        }
    }
    let recorded = site.serving.recorded.0.lock().unwrap();
    let is_reported = |event: &Event| matches!(event, Event::Audit { action, .. } if action == "instance.reported");
    let count = recorded
        .iter()
        .filter(|(_, event)| is_reported(event))
        .count();
    assert_eq!((count, &recorded[0].0.unit), (2, &Some(unit("demo"))));
}

#[tokio::test]
async fn unknown_and_incomplete_events_are_named_and_the_others_of_a_batch_count() {
    let site = Site::new(vec![instance("demo")]).await;
    let (status, answer) = site
        .post("demo", "/events/webhook", event("e2", "invoice.lost"))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["code"], json!("invalid-body"));
    assert_eq!(answer["errors"][0]["field"], json!("event_type"));
    assert_eq!(answer["errors"][0]["value"], json!("\"invoice.lost\""));
    assert!(
        answer["errors"][0]["allowed"]
            .as_str()
            .unwrap()
            .contains("invoice.paid")
    );
    let batch = json!({"events": [event("e1", "nas.online"), event("e2", "no.such"), {"event_id": "e3"}, 4]});
    let (status, answer) = site.post("demo", "/events/webhook/batch", batch).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&answer["received"], &answer["processed"], &answer["failed"]),
        (&json!(4), &json!(1), &json!(3))
    );
    assert_eq!(answer["errors"][0]["event_id"], json!("e2"));
    assert_eq!(answer["errors"][1]["index"], json!(2));
    assert_eq!(site.reported().len(), 1);
    let many: Vec<Value> = (0..501)
        .map(|n| event(&n.to_string(), "nas.online"))
        .collect();
    let (status, _) = site
        .post("demo", "/events/webhook/batch", json!({"events": many}))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(site.reported().len(), 1, "nothing of it was taken");
}

#[tokio::test]
async fn a_payload_that_is_too_large_is_left_out_and_the_event_counts() {
    let site = Site::new(vec![instance("demo")]).await;
    let mut large = event("e1", "olt.alarm");
    large["payload"] = json!({"text": "x".repeat(PAYLOAD_BYTES_MAX)});
    let (status, answer) = site.post("demo", "/events/webhook", large.clone()).await;
    let said = "the payload is left out: it may have at most 4096 bytes";
    assert_eq!((status, &answer["message"]), (StatusCode::OK, &json!(said)));
    let [Report::Event(one)] = &site.reported()[..] else {
        panic!("one event")
    };
    assert_eq!((one.event_id.as_str(), one.payload.as_str()), ("e1", ""));
    let small = event("e2", "olt.alarm");
    let (_, answer) = site.post("demo", "/events/webhook", small.clone()).await;
    assert_eq!(answer["message"], json!(""));
    let batch = json!({"events": [large, small, 4, large]});
    let (_, answer) = site.post("demo", "/events/webhook/batch", batch).await;
    let said = "the payload of the events at 0, 3 is left out: it may have at most 4096 bytes";
    assert_eq!(answer["message"], json!(said));
    assert_eq!(answer["processed"], json!(3));
}

#[tokio::test]
async fn a_count_that_comes_late_is_history_and_one_from_the_future_gives_way() {
    let mut site = Site::new(vec![instance("demo")]).await;
    let now = site.clock.now();
    let of = |reported_at: Timestamp, active: u64| {
        let mut body = metrics(1, active);
        body["metrics"]["reported_at"] =
            json!(crate::instance_api::standing::time_text(reported_at));
        body
    };
    let ago = |millis: u64| Timestamp(now.0 - millis);
    for (reported_at, active, present) in [
        (now.plus_millis(90_000), 7, 7),
        (ago(60_000), 5, 5),
        (ago(120_000), 900, 5),
        (ago(0), 6, 6),
        (ago(59_000), 800, 6),
    ] {
        let (status, _) = site
            .post("demo", "/metrics/report", of(reported_at, active))
            .await;
        assert_eq!(status, StatusCode::OK);
        for _ in 0..2 {
            let info = site.validate("demo").await["license_info"].clone();
            assert_eq!(info["current_subscribers"], json!(present), "{active}");
            site.restart().await;
        }
    }
    assert_eq!(site.reported().len(), 5, "history is kept, too");
}

#[tokio::test]
async fn numbers_and_times_out_of_bounds_are_told_the_bounds() {
    let site = Site::new(vec![instance("demo")]).await;
    let times =
        "a time from 1970-01-01T00:00:00Z to 9999-12-30T22:00:00Z, such as 2026-01-31T12:00:00Z";
    let number = "a number from 0 to 1000000000000";
    for (member, good, bad, allowed) in [
        ("total_data_usage_mb", json!(1e12), json!(1e18), number),
        (
            "total_data_usage_mb",
            json!(0),
            json!(1_000_000_000_000.5_f64),
            number,
        ),
        (
            "reported_at",
            json!("9999-12-30T22:00:00Z"),
            json!("9999-12-31T23:59:59Z"),
            times,
        ),
    ] {
        let mut body = metrics(1, 1);
        body["metrics"][member] = good;
        let (status, answer) = site.post("demo", "/metrics/report", body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        body["metrics"][member] = bad;
        let (status, answer) = site.post("demo", "/metrics/report", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer["errors"][0]["allowed"], json!(allowed));
    }
    let mut body = health(1, "healthy");
    body["cpu_usage_percent"] = json!(1_000_000.01);
    let (_, answer) = site.post("demo", "/metrics/health", body).await;
    assert_eq!(
        answer["errors"][0]["allowed"],
        json!("a number from 0 to 1000000")
    );
}

#[tokio::test]
async fn every_missing_or_wrong_field_is_named() {
    let site = Site::new(vec![instance("demo")]).await;
    let (mut bad_metrics, mut bad_health) = (metrics(1, 1), health(1, "healthy"));
    bad_metrics["metrics"]["active_subscribers"] = json!(-1);
    bad_metrics["metrics"]["total_data_usage_mb"] = json!("6");
    bad_metrics["metrics"]
        .as_object_mut()
        .unwrap()
        .remove("active_olts");
    bad_health["cpu_usage_percent"] = json!(null);
    bad_health["reported_at"] = json!("noon");
    let cases = [
        (
            "/metrics/report",
            bad_metrics,
            vec![
                "metrics.active_subscribers",
                "metrics.total_data_usage_mb",
                "metrics.active_olts",
            ],
        ),
        ("/metrics/report", json!({}), vec!["metrics"]),
        (
            "/metrics/health",
            bad_health,
            vec!["reported_at", "cpu_usage_percent"],
        ),
        (
            "/license/heartbeat",
            json!({"activation": 1}),
            vec!["activation_token"],
        ),
    ];
    for (path, body, expected) in cases {
        let (status, answer) = site.post("demo", path, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        let errors = answer["errors"].as_array().unwrap();
        let mut fields: Vec<_> = errors
            .iter()
            .map(|one| one["field"].as_str().unwrap())
            .collect();
        fields.sort_unstable();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(fields, expected, "{path}");
        assert!(
            errors
                .iter()
                .all(|one| one["allowed"].is_string() && one["value"].is_string())
        );
    }
    assert!(site.reported().is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_objects_or_too_large_are_refused() {
    let site = Site::new(vec![instance("demo")]).await;
    let path = format!("{BASE}/license/validate");
    for (body, expected) in [
        (b"".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
        (b"{".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
        (b"[]".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
        (b"\xff\xfe".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
        (b"[".repeat(10_000), StatusCode::UNPROCESSABLE_ENTITY),
        (b" ".repeat(70_000), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let response = site
            .send(Method::POST, &path, &site.token("demo"), Some(body))
            .await;
        assert_eq!(response.status(), expected);
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(kind, "application/problem+json");
    }
    let (status, _) = site.get("demo", "/license/validate").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _) = site.get("demo", "/no/such/call").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_full_outbox_refuses_reports_with_a_time_to_come_again_and_nothing_else() {
    let limits = ChainLimits {
        outbox_bytes_max: 6_000,
        ..ChainLimits::default()
    };
    let site = Site::with(vec![instance("demo")], limits).await;
    let mut taken = 0;
    let refused = loop {
        let body = event(&format!("e-{taken}"), "nas.online").to_string();
        let path = format!("{BASE}/events/webhook");
        let token = site.token("demo");
        let response = site
            .send(Method::POST, &path, &token, Some(body.into_bytes()))
            .await;
        if !response.status().is_success() {
            break response;
        }
        taken += 1;
        assert!(taken < 1_000, "it must be full some time");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(site.reported().len(), taken);
    let (status, _) = site.post("demo", "/metrics/report", metrics(1, 1)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let again = event("e-0", "nas.online");
    let (status, _) = site.post("demo", "/events/webhook", again).await;
    assert_eq!(status, StatusCode::OK, "what was taken stays taken");
    assert_eq!(site.validate("demo").await["valid"], json!(true));
    let last = site.serving.chain.outbox().1;
    site.serving.chain.acknowledge(last).unwrap();
    let (status, _) = site.post("demo", "/metrics/report", metrics(1, 1)).await;
    assert_eq!(status, StatusCode::OK);
}
