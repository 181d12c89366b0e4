//! What an agent says of the environment of an instance, against what the kernel says of its processes.

use std::{collections::BTreeMap, fs};

use dotmac_protocol::{frame::CopyEnvironment, record::Event, trace::TraceContext, unit::RunState};
use serde_json::json;

use super::fleet::{Fleet, SLEEPER, trace};

/// The environment of a process as the kernel keeps it.
fn of_process(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let variables = text.split_terminator('\0');
    variables
        .map(|variable| variable.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn untraced(copy: &CopyEnvironment) -> BTreeMap<String, String> {
    let mut variables = copy.variables.clone();
    variables.remove("TRACEPARENT");
    variables
}

/// What an instance does at its start belongs to the trace of the request that led to it, unless the release says otherwise.
fn check_traces(web: &BTreeMap<String, String>, worker: &BTreeMap<String, String>) {
    let start: TraceContext = web["TRACEPARENT"].parse().unwrap();
    assert_eq!(start.trace_id, trace(1).trace_id);
    assert_ne!(start.parent, trace(1).parent);
    assert_eq!(worker["TRACEPARENT"], "the release's own");
}

fn names(copies: &[CopyEnvironment]) -> Vec<(String, bool)> {
    let name = |copy: &CopyEnvironment| format!("{}.{}", copy.component, copy.replica);
    copies
        .iter()
        .map(|copy| (name(copy), copy.running))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_the_processes_have_and_nothing_of_it_is_recorded() {
    let mut fleet = Fleet::new();
    let web = json!({
        "run": {"command": ["sh", "-c", SLEEPER]}, "ports": ["http"], "volumes": ["data"],
        "env": {
            "DATABASE_URL": "${database.url}", "REDIS_URL": "${redis.url}", "SECRET_KEY": "${secret.session}",
            "DATA": "${volume.data}", "PORT": "${port.http}", "GREETING": "line one\nand 'two'",
        },
    });
    let components = json!({"web": web, "worker": {
        "run": {"command": ["sh", "-c", SLEEPER]}, "after": ["web"], "env": {"TRACEPARENT": "the release's own"},
    }});
    fleet.keep_copies(1, 2, components);
    fleet.start();
    fleet.until_healthy(1).await;
    let copies = fleet.environment(None).await.unwrap();
    let all = ["web.0", "web.1", "worker.0", "worker.1"];
    assert_eq!(names(&copies), all.map(|name| (name.to_owned(), true)));
    for (copy, name) in copies.iter().zip(all) {
        assert_eq!(
            copy.variables,
            of_process(fleet.process(name).pid),
            "{name}"
        );
    }
    let web = &copies[0].variables;
    assert_eq!(
        web["DATABASE_URL"],
        "postgresql://isp:canary-password@db/isp"
    );
    assert_eq!(web["SECRET_KEY"], fleet.secret("session"));
    assert!(!web.contains_key("REDIS_URL"));
    assert_ne!(web["PORT"], copies[1].variables["PORT"]);
    let worker = fleet.environment(Some("worker")).await.unwrap();
    check_traces(web, &worker[0].variables);
    assert_eq!(
        names(&worker),
        [("worker.0".to_owned(), true), ("worker.1".to_owned(), true)]
    );

    let told = fleet.audits("instance.environment_told");
    assert_eq!(
        told,
        [
            "a controller was told the environment of all components, sealed to its asker",
            "a controller was told the environment of worker, sealed to its asker",
        ]
    );
    let recorded = format!(
        "{:?}",
        fleet
            .events()
            .iter()
            .filter(|event| matches!(event, Event::Audit { .. }))
            .collect::<Vec<_>>()
    );
    for secret in [
        "canary-password",
        &fleet.secret("session"),
        "license-key-of-the-test",
    ] {
        assert!(!recorded.contains(secret));
    }
    let nginx = fleet.environment(Some("nginx")).await.err().unwrap();
    assert_eq!(
        nginx.to_string(),
        "the release has no component nginx; it has web, worker"
    );

    // Stopped it is what the next process will be started with.
    fleet.change(2, |instance| instance.run = RunState::Suspended);
    fleet.until_applied(2).await;
    let stopped = fleet.environment(Some("web")).await.unwrap();
    assert_eq!(
        names(&stopped),
        [("web.0".to_owned(), false), ("web.1".to_owned(), false)]
    );
    let next: TraceContext = stopped[0].variables["TRACEPARENT"].parse().unwrap();
    assert_eq!(next.trace_id, trace(2).trace_id);
    assert_eq!(untraced(&stopped[0]), untraced(&copies[0]));
    fleet.remove(3);
    fleet
        .until("it is removed", |events| {
            events
                .iter()
                .any(|event| matches!(event, Event::Receipt(receipt) if receipt.generation.0 == 3))
        })
        .await;
    let gone = fleet.environment(None).await.err().unwrap();
    assert_eq!(
        gone.to_string(),
        "this agent has no order for unit instance/demo-isp-0190a1b2"
    );
    fleet.end().await;
}
