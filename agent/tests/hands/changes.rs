//! What changes of an order do to several copies: who is replaced, when, and who is left alone.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use dotmac_protocol::{
    ids::Generation,
    license::{LicenseStanding, Tier},
    record::{Event, Health, HealthStatus},
    unit::RunState,
};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::{Value, json};

use super::fleet::{Fleet, SLEEPER, python, until};

/// A web server that answers every request with one status.
const SERVER: &str = "import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2])); self.send_header('content-length', '0'); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()";

fn server(status: u16) -> Value {
    let probe = json!({"http": {"port": "http", "path": "/"}, "period_ms": 100, "failures": 2, "grace_ms": 1_000});
    json!({
        "run": {"command": [python(), "-c", SERVER, "${port.http}", status.to_string()]},
        "ports": ["http"], "probes": {"ready": probe},
    })
}

/// Asks several copies in turn, on and on, and counts how often none of them answered.
struct Visitor {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    thread: JoinHandle<u32>,
}

impl Visitor {
    fn of(addresses: Vec<String>) -> Self {
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            let mut turned_away = 0;
            while !stopped.load(Ordering::Relaxed) {
                turned_away += u32::from(!addresses.iter().any(|address| answers(address)));
                count.fetch_add(1, Ordering::Relaxed);
            }
            turned_away
        });
        Self {
            stop,
            asked,
            thread,
        }
    }

    /// How often it asked, and how often nobody answered.
    fn leave(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        let turned_away = self.thread.join().unwrap();
        (self.asked.load(Ordering::Relaxed), turned_away)
    }
}

fn answers(address: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 "))
}

fn addresses(fleet: &Fleet, component: &str, copies: u16) -> Vec<String> {
    let port = |copy| fleet.port(&format!("{component}.{copy}"), "http");
    (0..copies)
        .map(|copy| format!("127.0.0.1:{}", port(copy)))
        .collect()
}

fn processes<const N: usize>(fleet: &Fleet, slots: [&str; N]) -> [ProcessIdentity; N] {
    slots.map(|slot| fleet.process(slot))
}

/// The health records of one generation, oldest first.
fn healths(fleet: &Fleet, generation: u64) -> Vec<Health> {
    let events = fleet.events().into_iter();
    let healths = events.filter_map(|event| match event {
        Event::Health(health) if health.generation == Generation(generation) => Some(health),
        _ => None,
    });
    healths.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_restart_replaces_one_copy_at_a_time_and_somebody_always_answers() {
    let mut fleet = Fleet::new();
    fleet.keep_copies(1, 2, json!({"web": server(200)}));
    fleet.start();
    fleet.until_healthy(1).await;
    let before = processes(&fleet, ["web.0", "web.1"]);
    let visitor = Visitor::of(addresses(&fleet, "web", 2));
    fleet.change(2, |instance| instance.restarts += 1);
    let healthy = fleet.until_healthy(2).await;
    let (asked, turned_away) = visitor.leave();
    assert_eq!(turned_away, 0, "of {asked} times somebody answered");
    assert!(asked > 10, "it was asked all the time: {asked}");
    let after = processes(&fleet, ["web.0", "web.1"]);
    assert!(before.iter().all(|process| !process.is_alive()));
    assert!(after.iter().all(ProcessIdentity::is_alive));
    assert_eq!(healthy.components[0].pids, after.clone().map(|one| one.pid));

    // Nothing was called healthy before the last copy was a new one.
    let stations = healths(&fleet, 2);
    let (last, earlier) = stations.split_last().unwrap();
    assert_eq!(last.status, HealthStatus::Healthy);
    assert!(!earlier.is_empty());
    for health in earlier {
        assert_eq!(health.status, HealthStatus::Starting, "{health:?}");
        assert!(health.components[0].ready >= 1, "{health:?}");
    }
    assert_eq!(fleet.audits("instance.exited"), Vec::<String>::new());

    // The same order again, or a new agent, restarts nothing.
    fleet.kill_agent().await;
    fleet.start();
    fleet.until_audit("instance.adopted").await;
    fleet.change(3, |instance| {
        instance.features.insert("voice".into(), true);
    });
    fleet.until_healthy(3).await;
    assert_eq!(processes(&fleet, ["web.0", "web.1"]), after);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_does_not_become_ready_stops_there_and_a_rollback_brings_the_old_back() {
    let mut fleet = Fleet::new();
    let worker = json!({"run": {"command": ["sh", "-c", SLEEPER]}});
    fleet.keep_copies(1, 2, json!({"web": server(200), "worker": worker}));
    fleet.start();
    fleet.until_healthy(1).await;
    let before = processes(&fleet, ["web.0", "web.1", "worker.0", "worker.1"]);
    let visitor = Visitor::of(addresses(&fleet, "web", 2));
    // The new release answers errors, and has no worker any more.
    fleet.keep_copies(2, 2, json!({"web": server(503)}));
    let stuck = fleet.until_health(HealthStatus::Degraded).await;
    let reason = "the change stopped, 1 not yet replaced: web.0 is not ready: /: it answers 503";
    assert_eq!(
        (stuck.generation, stuck.reason.as_str()),
        (Generation(2), reason)
    );
    let failed = fleet.until_health(HealthStatus::Failed).await;
    let reason =
        "the change stopped, 1 not yet replaced: web.0 never became ready: /: it answers 503";
    assert_eq!(failed.reason, reason);
    let during = processes(&fleet, ["web.1", "worker.0", "worker.1"]);
    assert_eq!(during, before.clone()[1..]);
    assert!(during.iter().all(ProcessIdentity::is_alive), "untouched");

    fleet.keep_copies(3, 2, json!({"web": server(200), "worker": worker}));
    fleet.until_healthy(3).await;
    assert_eq!(visitor.leave().1, 0, "web.1 answered all the time");
    let after = processes(&fleet, ["web.0", "web.1", "worker.0", "worker.1"]);
    assert_eq!(
        after[1..],
        before[1..],
        "only what was changed is changed back"
    );
    assert_ne!(after[0], before[0]);
    assert!(
        healths(&fleet, 2)
            .iter()
            .all(|health| health.status != HealthStatus::Healthy)
    );
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_copy_alone_is_stopped_before_the_new_one_starts() {
    let mut fleet = Fleet::new();
    let script = "echo \"begin $1\" >> \"$DATA/file\"; trap 'sleep 0.3; echo \"end $1\" >> \"$DATA/file\"; exit' TERM; \
                  while :; do sleep 0.05; done";
    let web = |version: &str| json!({"web": {"run": {"command": ["sh", "-c", script, "web", version]}, "volumes": ["data"], "env": {"DATA": "${volume.data}"}}});
    fleet.keep(1, web("one"));
    fleet.start();
    fleet.until_healthy(1).await;
    let file = fleet.volume("web.0", "data").join("file");
    let holds = |text: &'static str| {
        let file = file.clone();
        move || fs::read_to_string(&file).is_ok_and(|found| found == text)
    };
    until("it began", holds("begin one\n")).await;
    fleet.keep(2, web("two"));
    fleet.until_healthy(2).await;
    until(
        "the old one ended in its own time",
        holds("begin one\nend one\nbegin two\n"),
    )
    .await;
    fleet.change(3, |instance| instance.resources.memory_limit_bytes *= 2);
    fleet.until_healthy(3).await;
    until(
        "another tier is another start",
        holds("begin one\nend one\nbegin two\nend two\nbegin two\n"),
    )
    .await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_touches_only_the_copies_that_come_or_go() {
    let mut fleet = Fleet::new();
    let migration = json!({"kind": "task", "run": {"command": ["sh", "-c", "echo migrated"]}});
    let web = json!({"run": {"command": ["sh", "-c", SLEEPER]}, "after": ["migration"]});
    fleet.keep(1, json!({"web": web, "migration": migration}));
    fleet.start();
    fleet.until_healthy(1).await;
    let first = fleet.process("web.0");
    fleet.change(2, |instance| instance.replicas = 3);
    let more = fleet.until_healthy(2).await;
    let [zero, one, two] = processes(&fleet, ["web.0", "web.1", "web.2"]);
    assert_eq!(zero, first);
    assert_eq!(
        (more.components[1].ready, more.components[1].desired),
        (3, 3)
    );

    fleet.change(3, |instance| instance.replicas = 2);
    let fewer = fleet.until_healthy(3).await;
    assert_eq!(fewer.components[1].pids, [zero.pid, one.pid]);
    assert!(!two.is_alive());
    assert_eq!(processes(&fleet, ["web.0", "web.1"]), [zero, one]);
    until("the slot is forgotten", || {
        !fleet.unit_dir().join("run/web.2").exists()
    })
    .await;
    assert_eq!(fleet.output("migration.0"), "migrated\n", "not once more");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_licence_and_configuration_restart_and_run_nothing() {
    let mut fleet = Fleet::new();
    let migration = json!({"kind": "task", "run": {"command": ["sh", "-c", "echo migrated"]}});
    let web = json!({"run": {"command": ["sh", "-c", SLEEPER]}, "after": ["migration"]});
    fleet.keep(1, json!({"web": web, "migration": migration}));
    fleet.start();
    fleet.until_healthy(1).await;
    let first = fleet.process("web.0");
    fleet.change(2, |instance| {
        instance.license.tier = Tier::Enterprise;
        instance.license.max_subscribers = 9;
        instance.license.standing = LicenseStanding::Suspended;
        instance.features.insert("billing".into(), true);
        instance.custom_config = r#"{"color":"blue"}"#.into();
        instance.domain_name = Some("other.example".into());
    });
    fleet.until_healthy(2).await;
    fleet.until_applied(2).await;
    assert_eq!(fleet.process("web.0"), first);
    assert_eq!(fleet.output("migration.0"), "migrated\n");
    assert_eq!(fleet.audits("instance.started").len(), 2);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_unit_stays_down_through_a_new_agent_and_forgets_its_crashes() {
    let mut fleet = Fleet::new();
    let script = "[ -e \"$DATA/well\" ] || exit 3; trap 'echo stopped in order >> \"$DATA/well\"; exit 0' TERM; \
                  while :; do sleep 0.05; done";
    fleet.keep(
        1,
        json!({"web": {"run": {"command": ["sh", "-c", script]}, "volumes": ["data"], "env": {"DATA": "${volume.data}"}}}),
    );
    fleet.start();
    fleet.until_health(HealthStatus::Failed).await;
    fleet.change(2, |instance| instance.run = RunState::Suspended);
    let stopped = fleet.until_health(HealthStatus::Stopped).await;
    assert_eq!(stopped.generation, Generation(2));
    assert_eq!(
        (stopped.components[0].desired, stopped.components[0].ready),
        (0, 0)
    );
    fleet.until_applied(2).await;
    let well = fleet.volume("web.0", "data").join("well");
    fs::write(&well, "").unwrap();

    // Resumed, it starts at once and as if it had never crashed.
    fleet.mark();
    fleet.change(3, |instance| instance.run = RunState::Running);
    let healthy = fleet.until_healthy(3).await;
    assert_eq!(healthy.components[0].restarts, 0);
    assert_eq!(
        healths(&fleet, 3)
            .iter()
            .find(|health| health.status == HealthStatus::Degraded),
        None
    );
    let running = fleet.process("web.0");

    fleet.change(4, |instance| instance.run = RunState::Suspended);
    fleet.until_health(HealthStatus::Stopped).await;
    assert!(!running.is_alive());
    assert_eq!(
        fs::read_to_string(&well).unwrap(),
        "stopped in order\n",
        "and its data is kept"
    );
    let starts = fleet.audits("instance.started").len();
    fleet.kill_agent().await;
    fleet.start();
    fleet
        .until_status(|status| {
            status.health == HealthStatus::Stopped && status.generation == Generation(4)
        })
        .await;
    assert_eq!(fleet.process("web.0"), running, "nothing was started since");
    assert_eq!(fleet.audits("instance.started").len(), starts);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_helps_a_unit_whose_copies_all_fail() {
    let mut fleet = Fleet::new();
    let web = json!({"web": {
        "run": {"command": ["sh", "-c", "[ -e \"$DATA/well\" ] || exit 3; while :; do sleep 0.05; done"]},
        "volumes": ["data"], "env": {"DATA": "${volume.data}"},
    }});
    fleet.keep_copies(1, 2, web);
    fleet.start();
    fleet.until_health(HealthStatus::Failed).await;
    for slot in ["web.0", "web.1"] {
        fs::write(fleet.volume(slot, "data").join("well"), "").unwrap();
    }
    fleet.change(2, |instance| instance.restarts += 1);
    let healthy = fleet.until_healthy(2).await;
    assert_eq!(healthy.components[0].restarts, 0, "counted anew");
    // A copy that dies later is a crash again, and is shown as one.
    fleet.process("web.0").send_signal(Signal::KILL).unwrap();
    let degraded = fleet.until_health(HealthStatus::Degraded).await;
    assert!(degraded.reason.contains("signal 9"), "{}", degraded.reason);
    fleet.end().await;
}
