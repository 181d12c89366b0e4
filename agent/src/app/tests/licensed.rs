//! A whole agent that no controller reaches for weeks: what it runs stays licensed by its own copy.

use std::path::Path;

use dotmac_protocol::{frame::Delivery, time::Timestamp, unit::Payload, wave::Verb};
use dotmac_runtime::{disk, quic::write_frame};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::{admit, run};
use crate::{
    fixture::{NOW, instance, leaf, sign_intent, tenant},
    link::tests::site::{Cluster, soon},
};

const DAY_MS: u64 = 24 * 3_600_000;

/// What a starting instance asks, by hand: with the secrets that its agent keeps for it.
async fn validate(data: &Path, now: Timestamp, jti: u64) -> Option<Value> {
    let port = std::fs::read_to_string(data.join("instance_api.port")).ok()?;
    let base = format!(
        "http://127.0.0.1:{}/api/platform/v1/service-api",
        port.trim()
    );
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let issued = now.0 / 1_000;
    let claims = json!({"sub": format!("isp-{}", tenant("demo")), "type": "service", "service_type": "isp",
        "tenant_id": tenant("demo"), "iat": issued, "exp": issued + 3_600, "jti": jti.to_string()});
    let file = data.join(format!("platform/instance.{}.json", tenant("demo")));
    let secrets = std::fs::read(file).unwrap_or_else(|_| b"{}".to_vec());
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let secret = secrets["service_token"].as_str().unwrap_or_default();
    let key = EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    let body = json!({"license_key": secrets["license_key"].as_str().unwrap_or("none"),
        "isp_instance_id": "i-1", "version": "1.0"});
    let asked = client
        .post(format!("{base}/license/validate"))
        .bearer_auth(token);
    let answer = asked.json(&body).send().await.ok()?;
    let is_known = answer.status() == reqwest::StatusCode::OK;
    let answer = answer.json().await.ok()?;
    is_known.then_some(answer)
}

#[tokio::test]
async fn law_5_an_agent_cut_off_for_thirty_days_and_restarted_licenses_what_it_runs() {
    let cluster = Cluster::new();
    let controller = cluster.controller(1);
    let directory = tempfile::tempdir().unwrap();
    let token = cluster.token(vec![controller.address()]).to_text();
    let token_file = directory.path().join("join.token");
    disk::write_atomic(&token_file, token.as_bytes(), 0o600).unwrap();
    let agent = run(directory.path(), &cluster).unwrap();
    admit(&cluster, &controller).await;
    let (session, _) = controller.session(&cluster, vec![]).await;
    let mut ordered = instance("demo");
    ordered.license.expires_at = Some(NOW.plus_millis(10 * DAY_MS));
    let payload = Payload::Instance(Box::new(ordered));
    let intent = sign_intent(leaf("demo", Verb::Apply, 1, 1), &payload, &[1, 2]);
    let delivery = Delivery {
        intent,
        hops: vec![],
    };
    let mut stream = soon(session.connection.open_uni()).await.unwrap();
    soon(write_frame(&mut stream, &delivery)).await.unwrap();
    stream.finish().unwrap();
    let data = directory.path().join("data");
    let mut calls = 0;
    let mut asked = async || {
        soon(async {
            loop {
                calls += 1;
                match validate(&data, cluster.clock.now(), calls).await {
                    Some(answer) => return answer,
                    None => tokio::task::yield_now().await,
                }
            }
        })
        .await
    };
    assert_eq!(asked().await["license_info"]["status"], json!("valid"));
    soon(agent.stop()).await.unwrap();
    drop((session, controller));
    let mut statuses = Vec::new();
    for days in [9, 2, 19] {
        cluster.hand.advance_millis(days * DAY_MS);
        let agent = run(directory.path(), &cluster).unwrap();
        let answer = asked().await;
        assert_eq!(answer["valid"], json!(true), "after {days} more days");
        statuses.push(
            answer["license_info"]["status"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
        soon(agent.stop()).await.unwrap();
    }
    assert_eq!(statuses, ["valid", "grace", "restricted"]);
}
