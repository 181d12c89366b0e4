//! What orders do to running processes: replacing, suspending, repeating, removing, forgetting.

use std::{fs, time::Duration};

use dotmac_agent::driver::process::stop_all::stop_all;
use dotmac_protocol::{
    ids::{Generation, Sequence},
    record::{Event, HealthStatus, Limits, Outcome},
    unit::RunState,
};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::json;

use super::fleet::{Fleet, SLEEPER, until};

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
async fn a_task_runs_once_for_what_it_is_started_from_before_what_needs_it() {
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
    assert_eq!(fleet.output("migration.0"), "migrated\n");
    fleet.change(3, |instance| instance.restarts += 1);
    fleet.until_healthy(3).await;
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
