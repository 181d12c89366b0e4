//! A whole agent, from its first start with a token to a start without any controller.

mod licensed;

use std::{collections::BTreeSet, path::Path};

use dotmac_protocol::{
    frame::{ControllerFrame, Delivery, EnrolRequest},
    record::{Event, Outcome, Record},
};
use dotmac_runtime::{
    disk,
    metrics::{PROCESS, READINESS, SPANS},
    quic::write_frame,
};

use super::{AppError, Running, Surroundings, start};
use crate::{
    config::Config,
    fixture::{remove, unit},
    link::tests::{
        admitted, greet_and_read, greeting,
        site::{Cluster, Controller, soon},
    },
    metrics::catalogue::ALL,
};

fn run(directory: &Path, cluster: &Cluster) -> Result<Running, AppError> {
    let text = "region = 'byov-lagos'\ndata_dir = 'data'\njoin_token_file = 'join.token'\n";
    let config = Config::parse(&directory.join("agent.toml"), text).unwrap();
    let surroundings = Surroundings {
        clock: cluster.clock.clone(),
        entropy: cluster.entropy.clone(),
        program: "/bin/false".into(),
    };
    start(config, surroundings)
}

async fn admit(cluster: &Cluster, controller: &Controller) {
    let connection = controller.accept().await;
    let (mut send, asked) = greet_and_read(&connection, &greeting(cluster)).await;
    let Some(EnrolRequest::Join { request, .. }) = asked else {
        panic!("a join is asked for")
    };
    let reply = admitted(cluster, controller, &request);
    soon(write_frame(&mut send, &reply)).await.unwrap();
    soon(connection.closed()).await;
}

fn health(port_file: &Path) -> String {
    let port = std::fs::read_to_string(port_file).unwrap();
    format!(
        "http://127.0.0.1:{}/api/platform/v1/service-api/license/x",
        port.trim()
    )
}

/// What the agent answers of itself, once it answers with this status.
async fn told(data: &Path, path: &str, wanted: u16) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    soon(async {
        loop {
            let port = std::fs::read_to_string(data.join("status.port")).unwrap_or_default();
            let url = format!("http://127.0.0.1:{}{path}", port.trim());
            match client.get(&url).send().await {
                Ok(answer) if answer.status() == wanted => return answer.text().await.unwrap(),
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// The checks that fail, and whether the agent says that it is connected.
fn failing(text: &str) -> (Vec<String>, bool) {
    let body: serde_json::Value = serde_json::from_str(text).unwrap();
    let checks = body["checks"].as_array().unwrap().iter();
    let bad = checks.filter(|check| check["ok"] == false);
    let names = bad.map(|check| check["name"].as_str().unwrap().to_owned());
    (names.collect(), body["connected"] == true)
}

#[tokio::test]
async fn an_agent_enrols_obeys_and_later_starts_without_any_controller() {
    let cluster = Cluster::new();
    let controller = cluster.controller(1);
    let directory = tempfile::tempdir().unwrap();
    let token = cluster.token(vec![controller.address()]).to_text();
    disk::write_atomic(
        &directory.path().join("join.token"),
        token.as_bytes(),
        0o600,
    )
    .unwrap();
    let agent = run(directory.path(), &cluster).unwrap();
    let second = run(directory.path(), &cluster);
    assert!(
        matches!(second, Err(AppError::DataDir(_))),
        "one agent per data directory"
    );
    let data = directory.path().join("data");
    let waiting = told(&data, "/health/ready", 503).await;
    assert_eq!(failing(&waiting), (vec!["enrolled".into()], false));
    admit(&cluster, &controller).await;
    let (mut session, hello) = controller.session(&cluster, vec![]).await;
    let delivery = Delivery {
        intent: remove("demo", 1, 1),
        hops: vec![],
    };
    let mut stream = soon(session.connection.open_uni()).await.unwrap();
    soon(write_frame(&mut stream, &delivery)).await.unwrap();
    stream.finish().unwrap();
    // The start of the agent is the first record; the receipts of the order follow.
    let mut events = Vec::new();
    let is_removed = |event: &Event| matches!(event, Event::Receipt(receipt) if receipt.outcome == Outcome::Removed);
    while !events.iter().any(is_removed) {
        for record in session.report().await.records {
            let record: Record = dotmac_protocol::codec::decode(&record.body).unwrap();
            let incarnation = hello.incarnation.clone();
            events.push(record.event);
            let through = record.sequence;
            session
                .tell(&ControllerFrame::Acknowledged {
                    incarnation,
                    through,
                })
                .await;
        }
    }
    assert!(matches!(&events[0], Event::Audit { action, .. } if action == "agent.started"));
    soon(agent.stop()).await.unwrap();
    drop((session, controller));

    std::fs::remove_file(directory.path().join("join.token")).unwrap();
    let agent = run(directory.path(), &cluster).unwrap();
    // Cut off is not down (law 5).
    let ready = told(&data, "/health/ready", 200).await;
    assert_eq!(failing(&ready), (vec![], false));
    told(&data, "/health/live", 200).await;
    check_metrics(&told(&data, "/metrics", 200).await);
    std::fs::remove_file(data.join("status.probe")).unwrap();
    std::fs::create_dir(data.join("status.probe")).unwrap();
    let unwritable = told(&data, "/health/ready", 503).await;
    let disk = vec!["journal".to_owned(), "chain".to_owned()];
    assert_eq!(failing(&unwritable), (disk, false));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = health(&data.join("instance_api.port"));
    let answer = soon(async {
        loop {
            match client.get(&url).send().await {
                Ok(answer) => return answer.status(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(answer.await, reqwest::StatusCode::UNAUTHORIZED);
    soon(agent.stop()).await.unwrap();
    let file = data.join("journal").join(format!(
        "{}.intent",
        unit("demo").as_str().replace('/', ".")
    ));
    assert!(file.is_file(), "the tombstone stays");
}

/// An agent without units tells of all it has but instances.
fn check_metrics(text: &str) {
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    let known = ALL.iter().chain(&READINESS).chain(&SPANS).chain(&PROCESS);
    let known: BTreeSet<&str> = known.map(|metric| metric.name).collect();
    let missing: Vec<&str> = known.difference(&told).copied().collect();
    let with_instances = [
        "dotmac_agent_orders",
        "dotmac_agent_platform_request_duration_seconds",
        "dotmac_agent_platform_requests",
        "dotmac_agent_signed_clock_age_seconds",
    ];
    assert!(told.is_subset(&known), "{told:?}");
    assert!(
        missing.iter().all(|name| with_instances.contains(name)),
        "{missing:?}"
    );
    assert!(
        text.contains("\ndotmac_agent_connected 0\n") && text.ends_with("# EOF\n"),
        "{text}"
    );
}

#[tokio::test]
async fn an_agent_without_token_or_certificate_says_what_to_do() {
    let (cluster, directory) = (Cluster::new(), tempfile::tempdir().unwrap());
    let text = "region = 'byov-lagos'\ndata_dir = 'data'\n";
    let config = Config::parse(&directory.path().join("agent.toml"), text).unwrap();
    let surroundings = Surroundings {
        clock: cluster.clock.clone(),
        entropy: cluster.entropy.clone(),
        program: "/bin/false".into(),
    };
    let mut agent = start(config, surroundings).unwrap();
    let error = soon(agent.ended()).await.unwrap_err();
    assert!(error.to_string().contains("join_token_file"), "{error}");
}
