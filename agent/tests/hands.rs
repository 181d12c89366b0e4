//! The agent's hands with real processes: shims, adoption, restarts, probes, removal. No fixed ports, no network.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod hands {
    mod changes;
    mod downtime;
    mod environment;
    pub(crate) mod fleet;
    mod leftovers;
    mod orders;
}

use std::fs;

use dotmac_protocol::record::{Event, HealthStatus, Outcome};
use dotmac_runtime::process::Signal;
use serde_json::json;

use hands::fleet::{Fleet, SLEEPER, python, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_adopts_what_runs_and_learns_what_happened_while_it_was_away() {
    let mut fleet = Fleet::new();
    let waits = |then: &str| format!("while [ ! -e \"$DATA/go\" ]; do sleep 0.02; done; {then}");
    let write = "i=0; while [ $i -lt 16384 ]; do echo 'a line of sixty-four bytes, so that 16384 of them make one MiB.'; \
                 i=$((i+1)); done; rm \"$DATA/go\"; while :; do sleep 0.05; done";
    fleet.keep(
        1,
        json!({
            "writer": {"run": {"command": ["sh", "-c", waits(write)]}, "volumes": ["data"], "env": {"DATA": "${volume.data}"}},
            "quitter": {"run": {"command": ["sh", "-c", waits("echo the last word; exit 7")]}, "volumes": ["data"], "env": {"DATA": "${volume.data}"}},
        }),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let (writer, quitter) = (fleet.process("writer.0"), fleet.process("quitter.0"));

    fleet.kill_agent().await;
    fs::write(fleet.volume("writer.0", "data").join("go"), "").unwrap();
    fs::write(fleet.volume("quitter.0", "data").join("go"), "").unwrap();
    until("the quitter ends", || !quitter.is_alive()).await;
    until("the writer is done", || {
        !fleet.volume("writer.0", "data").join("go").exists()
    })
    .await;

    fleet.start();
    let exited = fleet.until_audit("instance.exited").await;
    assert!(
        exited.contains("quitter.0 ended with exit code 7, while the agent was away"),
        "{exited}"
    );
    assert!(exited.contains("the last word"), "{exited}");
    let adopted = fleet.until_audit("instance.adopted").await;
    assert!(
        adopted.contains(&format!("writer.0 still runs as process {}", writer.pid)),
        "{adopted}"
    );
    let written: u64 = adopted
        .split("it wrote ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap();
    assert!(written >= 1 << 20, "{adopted}");
    fs::remove_file(fleet.volume("quitter.0", "data").join("go")).unwrap();
    fleet.until_health(HealthStatus::Healthy).await;
    assert_eq!(
        fleet.process("writer.0"),
        writer,
        "the same process, by pid and start time"
    );
    assert!(fleet.kept_output("writer.0") <= 2 * Fleet::OUTPUT_BYTES_MAX + 64 * 1024);

    fleet.kill_agent().await;
    fleet.start();
    fleet.until_audit_count("instance.adopted", 3).await;
    let away = fleet
        .audits("instance.exited")
        .into_iter()
        .filter(|text| text.contains("away"));
    assert_eq!(away.count(), 1, "what happened meanwhile is recorded once");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_is_restarted_after_a_pause_and_shows_it() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let first = fleet.process("web.0");
    fleet.mark();
    first.send_signal(Signal::KILL).unwrap();
    fleet.until_health(HealthStatus::Degraded).await;
    let exited = fleet.until_audit("instance.exited").await;
    assert!(exited.contains("web.0 ended with signal 9"), "{exited}");
    fleet.until_audit("instance.restarted").await;
    let health = fleet.until_health(HealthStatus::Healthy).await;
    let second = fleet.process("web.0");
    assert_ne!(first, second);
    assert_eq!(health.components[0].pids, [second.pid]);
    assert_eq!(health.components[0].restarts, 1);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_crashing_fails_with_its_last_lines_and_no_secret() {
    let mut fleet = Fleet::new();
    let script = "echo connecting to $DATABASE_URL; echo with $KEY; exit 3";
    fleet.keep(
        1,
        json!({"web": {
            "run": {"command": ["sh", "-c", script]},
            "env": {"DATABASE_URL": "${database.url}", "KEY": "${secret.session}"},
        }}),
    );
    fleet.start();
    let health = fleet.until_health(HealthStatus::Failed).await;
    assert!(health.reason.contains("exit code 3"), "{}", health.reason);
    assert!(
        health.reason.contains("connecting to [secret]"),
        "{}",
        health.reason
    );
    assert!(health.components[0].restarts >= 2);
    fleet.until("a receipt that it fails", |events| {
        events.iter().any(|event| {
            matches!(event, Event::Receipt(receipt) if matches!(&receipt.outcome, Outcome::Failing { reason } if reason.contains("exit code 3")))
        })
    })
    .await;
    let all = format!("{:?}", fleet.events());
    assert!(!all.contains("canary-password"), "{all}");
    assert!(!all.contains(&fleet.secret("session")));
    let memory = fs::read_to_string(fleet.unit_dir().join("unit.json")).unwrap();
    assert!(!memory.contains("canary-password"));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_instance_is_found_by_its_probe_and_restarted() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {
            "run": {"command": [python(), "-m", "http.server", "--bind", "127.0.0.1", "${port.http}"]},
            "ports": ["http"],
            "probes": {"live": {"http": {"port": "http", "path": "/"}, "period_ms": 100, "timeout_ms": 300, "failures": 2}},
            "stop": {"signal": "SIGTERM", "patience_ms": 200},
        }}),
    );
    fleet.start();
    let health = fleet.until_health(HealthStatus::Healthy).await;
    let first = fleet.process("web.0");
    fleet.mark();
    first.send_signal(Signal::STOP).unwrap();
    let hung = fleet.until_audit("instance.exited").await;
    assert!(hung.contains("it hung and was stopped"), "{hung}");
    let again = fleet.until_health(HealthStatus::Healthy).await;
    assert!(!first.is_alive());
    assert_eq!(
        health.components[0].address, again.components[0].address,
        "the port stays"
    );
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn references_expand_and_the_agents_own_environment_stays_out() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {
            "run": {"command": ["sh", "-c", "env; echo \"argument $1\"; echo done; while :; do sleep 0.05; done", "web", "${tenant.name} ${port.http} ${release.version}"]},
            "ports": ["http"], "volumes": ["data"],
            "env": {
                "WHERE": "${region}/${environment}", "DATABASE_URL": "${database.url}", "REDIS_URL": "${redis.url}",
                "BOTH": "${deployment.id}:${secret.session}", "DATA": "${volume.data}", "MEMORY": "${limits.memory_bytes}",
            },
        }}),
    );
    fleet.start();
    let health = fleet.until_health(HealthStatus::Healthy).await;
    until("it said all", || fleet.output("web.0").contains("\ndone\n")).await;
    let address = health.components[0].address.clone().unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let output = fleet.output("web.0");
    let data = fleet.volume("web.0", "data");
    for line in [
        "TENANT_ID=demo-isp-0190a1b2".to_owned(),
        "ISP_LICENSE_KEY=license-key-of-the-test".into(),
        "PLATFORM_SERVICE_TOKEN=service-token-of-the-test".into(),
        "PLATFORM_URL=http://127.0.0.1:1".into(),
        "WHERE=byov-lagos/production".into(),
        "DATABASE_URL=postgresql://isp:canary-password@db/isp".into(),
        format!("BOTH=demo-isp-0190a1b2:{}", fleet.secret("session")),
        format!("DATA={}", data.display()),
        format!("MEMORY={}", 512 << 20),
        format!("argument Demo ISP {port} 1.0.0"),
    ] {
        assert!(
            output.lines().any(|found| found == line),
            "{line} is not in\n{output}"
        );
    }
    assert!(
        !output.contains("REDIS_URL="),
        "a credential that was not given is not set"
    );
    assert!(
        !output.contains("CARGO"),
        "the agent's own environment stays out"
    );
    assert!(data.is_dir());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_without_its_licence_key() {
    let mut fleet = Fleet::new();
    fleet.platform.license_key.clear();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet.start();
    let health = fleet.until_health(HealthStatus::Failed).await;
    assert!(
        health.reason.contains("ISP_LICENSE_KEY is missing"),
        "{}",
        health.reason
    );
    assert!(!fleet.unit_dir().join("run/web.0/state.json").exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_changed_programs_and_secrets_in_arguments_are_refused_by_name() {
    let zero = format!("sha256:{}", "0".repeat(64));
    let cases = [
        (
            json!({"image": format!("registry/isp@{zero}")}),
            "this agent's process driver runs programs only",
        ),
        (
            json!({"pinned": {"command": ["sh"], "digest": zero}}),
            "the release pins sha256:00",
        ),
        (
            json!({"command": ["sh", "-c", "true", "${license.key}"]}),
            "an argument of component web refers to the secret license.key",
        ),
        (
            json!({"command": ["no-such-program"]}),
            "program no-such-program of component web is not on this host",
        ),
    ];
    for (run, reason) in cases {
        let mut fleet = Fleet::new();
        fleet.keep(1, json!({"web": {"run": run}}));
        fleet.start();
        let health = fleet.until_health(HealthStatus::Failed).await;
        assert!(health.reason.contains(reason), "{}", health.reason);
        fleet.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_child_along_and_both_are_replaced() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let (child, shim) = (fleet.process("web.0"), fleet.shim("web.0"));
    fleet.mark();
    shim.send_signal(Signal::KILL).unwrap();
    let exited = fleet.until_audit("instance.exited").await;
    assert!(exited.contains("its shim was killed"), "{exited}");
    fleet.until_health(HealthStatus::Healthy).await;
    assert!(!child.is_alive());
    assert!(fleet.process("web.0").is_alive());
    fleet.end().await;
}
