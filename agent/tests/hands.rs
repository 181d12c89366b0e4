//! The agent's hands with real processes: shims, adoption, restarts, probes, removal. No fixed ports, no network.

mod hands {
    pub(crate) mod fleet;
}

use std::{fs, time::Duration};

use dotmac_agent::driver::process::stop_all::stop_all;
use dotmac_protocol::{
    ids::{Generation, Sequence},
    record::{Event, HealthStatus, Limits, Outcome},
    unit::RunState,
};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::json;

use hands::fleet::{Fleet, python, until};

const SLEEPER: &str = "echo ready; while :; do sleep 0.05; done";

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
async fn a_removal_stops_grandchildren_deletes_everything_and_is_told_once() {
    let mut fleet = Fleet::new();
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > \"$DATA/grandchild\"; while :; do sleep 0.05; done' & \
                  trap '' TERM; while :; do sleep 0.05; done";
    fleet.keep(
        1,
        json!({"web": {
            "run": {"command": ["sh", "-c", script]}, "volumes": ["data"],
            "env": {"DATA": "${volume.data}"}, "stop": {"signal": "SIGTERM", "patience_ms": 200},
        }}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let child = fleet.process("web.0");
    let pid_file = fleet.volume("web.0", "data").join("grandchild");
    until("the grandchild runs", || {
        fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    let pid = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let grandchild = ProcessIdentity::of(pid).unwrap();

    fleet.remove(2);
    fleet.until_outcome(&Outcome::Removed).await;
    assert!(!child.is_alive() && !grandchild.is_alive());
    assert!(!fleet.unit_dir().exists());

    fleet.kill_agent().await;
    fleet.start();
    fleet
        .until_status(|status| status.reason == "removed")
        .await;
    let removed = fleet
        .outcomes()
        .into_iter()
        .filter(|outcome| *outcome == Outcome::Removed);
    assert_eq!(removed.count(), 1);
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
    shim.send_signal(Signal::KILL).unwrap();
    let exited = fleet.until_audit("instance.exited").await;
    assert!(exited.contains("its shim was killed"), "{exited}");
    fleet.until_health(HealthStatus::Healthy).await;
    assert!(!child.is_alive());
    assert!(fleet.process("web.0").is_alive());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_release_replaces_and_new_features_restart_nothing() {
    let mut fleet = Fleet::new();
    let web = |version: &str| json!({"web": {"run": {"command": ["sh", "-c", SLEEPER, version]}, "ports": ["http"]}});
    fleet.keep(1, web("one"));
    fleet.start();
    let health = fleet.until_health(HealthStatus::Healthy).await;
    assert!(matches!(
        fleet.until_applied(1).await,
        Limits::Enforced { .. } | Limits::NotEnforced { .. }
    ));
    assert_eq!(fleet.first_hops(), ["agent.started", "instance.healthy"]);
    let first = fleet.process("web.0");

    fleet.change(2, |instance| {
        instance.features.insert("billing".into(), true);
    });
    fleet.until_applied(2).await;
    fleet.until_healthy(2).await;
    assert_eq!(fleet.process("web.0"), first);

    fleet.keep(3, web("two"));
    fleet.until_applied(3).await;
    let replaced = fleet.until_healthy(3).await;
    assert!(!first.is_alive());
    assert_ne!(fleet.process("web.0"), first);
    assert_eq!(replaced.components[0].address, health.components[0].address);
    assert_eq!(fleet.audits("instance.exited"), Vec::<String>::new());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_unit_stops_and_is_kept_and_a_resumed_one_runs_again() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", "echo kept >> \"$DATA/file\"; while :; do sleep 0.05; done"]},
            "volumes": ["data"], "env": {"DATA": "${volume.data}"}}}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let first = fleet.process("web.0");
    fleet.change(2, |instance| instance.run = RunState::Suspended);
    fleet.until_health(HealthStatus::Stopped).await;
    assert!(!first.is_alive());
    fleet.until_applied(2).await;
    fleet.change(3, |instance| instance.run = RunState::Running);
    fleet.until_healthy(3).await;
    let file = fleet.volume("web.0", "data").join("file");
    until("it wrote again", || {
        fs::read_to_string(&file).is_ok_and(|text| text == "kept\nkept\n")
    })
    .await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn law_2_a_unit_that_is_in_no_order_is_left_alone() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let process = fleet.process("web.0");
    fleet.forget_orders();
    // The old order stays in force: what ends is started again.
    process.send_signal(Signal::KILL).unwrap();
    fleet.until_audit("instance.restarted").await;
    let process = fleet.process("web.0");

    fleet.kill_agent().await;
    fleet.start();
    fleet.keep_another(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet
        .until_health_of("other-isp-0190a1b2", HealthStatus::Healthy)
        .await;
    assert!(
        process.is_alive(),
        "on disk, running and in no order: untouched"
    );
    assert!(fleet.unit_dir().join("unit.json").exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_product_stops_instances_and_counts_as_no_crash() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    let first = fleet.process("web.0");
    fleet.kill_agent().await;
    let stopped = stop_all(fleet.data_dir(), Duration::from_secs(10));
    assert_eq!(stopped.len(), 1);
    assert_eq!(
        (stopped[0].slot.as_str(), stopped[0].pid, stopped[0].killed),
        ("web.0", first.pid, false)
    );
    assert!(!first.is_alive());
    fleet.start();
    fleet.until_audit("instance.stopped").await;
    let health = fleet.until_health(HealthStatus::Healthy).await;
    assert_eq!(health.components[0].restarts, 0);
    assert_eq!(fleet.audits("instance.exited"), Vec::<String>::new());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_once_per_generation_before_what_needs_it() {
    let mut fleet = Fleet::new();
    let components = json!({
        "migration": {"kind": "task", "run": {"command": ["sh", "-c", "echo migrated"]}},
        "web": {"run": {"command": ["sh", "-c", SLEEPER]}, "after": ["migration"]},
    });
    fleet.keep(1, components);
    fleet.start();
    fleet.until_health(HealthStatus::Healthy).await;
    fleet.kill_agent().await;
    fleet.start();
    fleet.until_audit("instance.adopted").await;
    fleet.change(2, |instance| instance.replicas = 2);
    let health = fleet.until_healthy(2).await;
    let web = &health.components[1];
    assert_eq!((web.desired, web.ready, web.pids.len()), (2, 2, 2));
    assert_eq!(fleet.output("migration.0"), "migrated\nmigrated\n");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_order_is_confirmed_again_and_restarts_nothing() {
    let mut fleet = Fleet::new();
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", SLEEPER]}}}),
    );
    fleet.start();
    fleet.until_applied(1).await;
    fleet.until_health(HealthStatus::Healthy).await;
    let first = fleet.process("web.0");
    fleet.repeat(Sequence(9));
    fleet
        .until("the repeated order is applied", |events| {
            events.iter().any(|event| {
                matches!(event, Event::Receipt(receipt)
                if (receipt.generation, receipt.sequence) == (Generation(1), Sequence(9))
                    && matches!(receipt.outcome, Outcome::Applied { .. }))
            })
        })
        .await;
    assert_eq!(fleet.process("web.0"), first);
    fleet.end().await;
}
