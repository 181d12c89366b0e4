//! One agent's hands on a temporary disk, with a recorder that tests can wait on.
//! Longer than 400 lines: it is the one place through which those tests reach an agent.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use dotmac_agent::{
    driver::process::{UnitFiles, stop_all::stop_all},
    reconcile::{
        self, ReconcileConfig, Reconciler, UnitStatus, environment::EnvironmentError, plan::Backoff,
    },
    reports::Tally,
    shim::files::State,
    stations::Stations,
    unit::{About, Desired, Order, Platform, PlatformEnvironment, PlatformError, Recorder, Wanted},
};
use dotmac_protocol::{
    digest::Digest,
    frame::CopyEnvironment,
    ids::{DeploymentId, Generation, Sequence, TenantId, UnitId},
    license::{GRACE_DEFAULT_MS, License, LicenseStanding, Tier},
    record::{Event, Health, HealthStatus, Limits, Outcome},
    release::Manifest,
    time::Timestamp,
    trace::{SpanId, TraceContext, TraceId},
    unit::{Instance, Resources, RunState},
};
use dotmac_runtime::{clock::Clock, entropy::Entropy, process::ProcessIdentity};
use tempfile::TempDir;
use tokio::sync::watch;

/// A program that runs until it is stopped.
pub(crate) const SLEEPER: &str = "echo ready; while :; do sleep 0.05; done";
/// No condition of these tests takes longer, unless it never comes true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports of one agent.
const PORTS: u16 = 200;

/// The first of ports that no other agent of these tests is given, below those that the system gives away.
fn own_ports() -> u16 {
    const FIRST: u16 = 10_000;
    const BLOCKS: u16 = (32_768 - FIRST) / PORTS;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS * PORTS
}

#[derive(Clone)]
struct Records(watch::Sender<Vec<(About, Event)>>);

impl Recorder for Records {
    fn record(&self, about: &About, event: Event) {
        self.0
            .send_modify(|events| events.push((about.clone(), event)));
    }
}

struct TestPlatform(PlatformEnvironment);

impl Platform for TestPlatform {
    fn environment(&self, _wanted: &Wanted) -> Result<PlatformEnvironment, PlatformError> {
        Ok(self.0.clone())
    }
}

pub(crate) struct Fleet {
    data: TempDir,
    pub(crate) platform: PlatformEnvironment,
    orders: watch::Sender<Arc<Desired>>,
    records: Records,
    pub(crate) tally: Tally,
    reconciler: Option<Reconciler>,
    first_port: u16,
    /// Events before this one were there at the last mark.
    seen: usize,
}

impl Fleet {
    pub(crate) const OUTPUT_BYTES_MAX: u64 = 128 * 1024;

    pub(crate) fn new() -> Self {
        let credentials = BTreeMap::from([(
            "database.url".to_owned(),
            "postgresql://isp:canary-password@db/isp".to_owned(),
        )]);
        Self {
            data: tempfile::tempdir().unwrap(),
            platform: PlatformEnvironment::new(
                "http://127.0.0.1:1".into(),
                "license-key-of-the-test".into(),
                "service-token-of-the-test".into(),
                credentials,
                [7; 32],
            ),
            orders: watch::Sender::default(),
            records: Records(watch::Sender::default()),
            tally: Tally::default(),
            reconciler: None,
            first_port: own_ports(),
            seen: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        let config = ReconcileConfig {
            data_dir: self.data.path().to_owned(),
            shim_program: env!("CARGO_BIN_EXE_dotmac-agent").into(),
            ports: self.first_port..=self.first_port + (PORTS - 1),
            output_bytes_max: Self::OUTPUT_BYTES_MAX,
            backoff: Backoff {
                first_ms: 100,
                max_ms: 400,
                healthy_ms: 60_000,
                crashes_max: 3,
                damping_ms: 300,
                never_ready_ms: 5_000,
            },
            tally: self.tally.clone(),
        };
        let reconciler = reconcile::start(
            config,
            self.orders.subscribe(),
            Arc::new(self.records.clone()),
            Arc::new(TestPlatform(self.platform.clone())),
            Stations::default(),
            Clock::system(),
            Entropy::system(),
        );
        self.reconciler = Some(reconciler.unwrap());
    }

    /// Ends the agent's part; what it started is not told.
    pub(crate) async fn kill_agent(&mut self) {
        self.reconciler.take().unwrap().stop().await;
        self.mark();
    }

    /// From here on only what comes next is waited for.
    pub(crate) fn mark(&mut self) {
        self.seen = self.records.0.borrow().len();
    }

    pub(crate) async fn end(mut self) {
        if let Some(reconciler) = self.reconciler.take() {
            reconciler.stop().await;
        }
    }

    pub(crate) fn keep(&self, generation: u64, components: serde_json::Value) {
        self.order(wanted(
            "demo-isp-0190a1b2",
            generation,
            instance("demo-isp-0190a1b2", components),
        ));
    }

    pub(crate) fn keep_copies(
        &self,
        generation: u64,
        replicas: u16,
        components: serde_json::Value,
    ) {
        let instance = Instance {
            replicas,
            ..instance("demo-isp-0190a1b2", components)
        };
        self.order(wanted("demo-isp-0190a1b2", generation, instance));
    }

    pub(crate) fn keep_another(&self, generation: u64, components: serde_json::Value) {
        self.order(wanted(
            "other-isp-0190a1b2",
            generation,
            instance("other-isp-0190a1b2", components),
        ));
    }

    pub(crate) fn change(&self, generation: u64, change: impl FnOnce(&mut Instance)) {
        let Order::Keep(instance) = self.orders.borrow()[&unit()].order.clone() else {
            panic!("kept")
        };
        let mut instance = Arc::unwrap_or_clone(instance);
        change(&mut instance);
        self.order(wanted("demo-isp-0190a1b2", generation, instance));
    }

    pub(crate) fn repeat(&self, sequence: Sequence) {
        let again = Wanted {
            sequence,
            ..self.orders.borrow()[&unit()].clone()
        };
        self.order(again);
    }

    pub(crate) fn remove(&self, generation: u64) {
        let before = self.orders.borrow()[&unit()].clone();
        let (generation, sequence) = (Generation(generation), Sequence(generation));
        self.order(Wanted {
            order: Order::Remove,
            generation,
            sequence,
            ..before
        });
    }

    pub(crate) fn forget_orders(&self) {
        self.orders.send_replace(Arc::default());
    }

    fn order(&self, wanted: Wanted) {
        self.orders.send_modify(|orders| {
            Arc::make_mut(orders).insert(wanted.unit.clone(), wanted);
        });
    }

    /// What the agent says the copies of the unit are started with.
    pub(crate) async fn environment(
        &self,
        component: Option<&str>,
    ) -> Result<Vec<CopyEnvironment>, EnvironmentError> {
        let environments = self.reconciler.as_ref().unwrap().environments();
        let component = component.map(|name| name.parse().unwrap());
        let asking = move || environments.of(&unit(), component.as_ref());
        tokio::task::spawn_blocking(asking).await.unwrap()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn unit_dir(&self) -> PathBuf {
        self.data.path().join("units/demo-isp-0190a1b2")
    }

    pub(crate) fn secret(&self, name: &str) -> String {
        self.platform.secret(&name.parse().unwrap())
    }

    pub(crate) fn volume(&self, slot: &str, volume: &str) -> PathBuf {
        UnitFiles::new(self.data.path(), &unit())
            .volume(&slot.parse().unwrap(), &volume.parse().unwrap())
    }

    /// The number that a copy got for one of its ports.
    pub(crate) fn port(&self, slot: &str, port: &str) -> u64 {
        let memory = fs::read(self.unit_dir().join("unit.json")).unwrap();
        let memory: serde_json::Value = serde_json::from_slice(&memory).unwrap();
        memory["slots"][slot]["ports"][port].as_u64().unwrap()
    }

    fn state(&self, slot: &str) -> State {
        UnitFiles::new(self.data.path(), &unit())
            .slot(&slot.parse().unwrap())
            .state()
            .unwrap()
    }

    pub(crate) fn process(&self, slot: &str) -> ProcessIdentity {
        self.state(slot).child
    }

    pub(crate) fn shim(&self, slot: &str) -> ProcessIdentity {
        self.state(slot).shim
    }

    pub(crate) fn output(&self, slot: &str) -> String {
        fs::read_to_string(self.unit_dir().join("run").join(slot).join("out.log")).unwrap()
    }

    pub(crate) fn kept_output(&self, slot: &str) -> u64 {
        let length = |name: &str| {
            fs::metadata(self.unit_dir().join("run").join(slot).join(name))
                .map_or(0, |file| file.len())
        };
        length("out.log") + length("out.log.1")
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.records
            .0
            .borrow()
            .iter()
            .map(|(_, event)| event.clone())
            .collect()
    }

    pub(crate) fn audits(&self, wanted: &str) -> Vec<String> {
        audits(&self.events(), wanted)
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                Event::Receipt(receipt) => Some(receipt.outcome),
                _ => None,
            })
            .collect()
    }

    /// The stations of the first healthy report.
    pub(crate) fn first_hops(&self) -> Vec<String> {
        let events = self.events().into_iter();
        let hops = events
            .filter_map(|event| match event {
                Event::Health(health) if health.status == HealthStatus::Healthy => {
                    Some(health.hops)
                }
                _ => None,
            })
            .next()
            .unwrap();
        hops.into_iter().map(|hop| hop.station).collect()
    }

    /// Waits for a condition on everything that was ever recorded.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Event]) -> bool) {
        let mut events = self.records.0.subscribe();
        let holds = |events: &Vec<(About, Event)>| {
            condition(
                &events
                    .iter()
                    .map(|(_, event)| event.clone())
                    .collect::<Vec<_>>(),
            )
        };
        let came = tokio::time::timeout(PATIENCE, events.wait_for(holds))
            .await
            .is_ok();
        assert!(came, "never came: {what}; there is {:#?}", self.events());
    }

    pub(crate) async fn until_audit(&self, action: &str) -> String {
        let seen = self.seen;
        self.until(action, |events| !audits(&events[seen..], action).is_empty())
            .await;
        audits(&self.events()[seen..], action).remove(0)
    }

    pub(crate) async fn until_audit_count(&self, action: &str, count: usize) {
        self.until(action, |events| audits(events, action).len() >= count)
            .await;
    }

    pub(crate) async fn until_outcome(&self, outcome: &Outcome) {
        let is_it =
            |event: &Event| matches!(event, Event::Receipt(receipt) if receipt.outcome == *outcome);
        self.until("an outcome", |events| events.iter().any(is_it))
            .await;
    }

    pub(crate) async fn until_applied(&self, generation: u64) -> Limits {
        let applied = |events: &[Event]| {
            events.iter().find_map(|event| match event {
                Event::Receipt(receipt) if receipt.generation == Generation(generation) => {
                    match &receipt.outcome {
                        Outcome::Applied { limits } => Some(limits.clone()),
                        _ => None,
                    }
                }
                _ => None,
            })
        };
        self.until("an applied generation", |events| applied(events).is_some())
            .await;
        applied(&self.events()).unwrap()
    }

    /// The newest health since the mark has this status.
    pub(crate) async fn until_health(&self, status: HealthStatus) -> Health {
        self.until_health_that(&format!("{status:?}"), |health| health.status == status)
            .await
    }

    pub(crate) async fn until_healthy(&self, generation: u64) -> Health {
        self.until_health_that("a healthy generation", |health| {
            health.status == HealthStatus::Healthy && health.generation == Generation(generation)
        })
        .await
    }

    async fn until_health_that(&self, what: &str, is_it: impl Fn(&Health) -> bool) -> Health {
        let seen = self.seen;
        let newest = |events: &[Event]| {
            let newest = events[seen..].iter().rev().find_map(|event| match event {
                Event::Health(health) => Some(health.clone()),
                _ => None,
            });
            newest.filter(&is_it)
        };
        let found = std::cell::RefCell::new(None);
        self.until(what, |events| {
            *found.borrow_mut() = newest(events);
            found.borrow().is_some()
        })
        .await;
        found.into_inner().unwrap()
    }

    pub(crate) async fn until_health_of(&self, name: &str, status: HealthStatus) {
        let unit = format!("instance/{name}").parse().unwrap();
        let mut statuses = self.reconciler.as_ref().unwrap().status();
        let holds = |statuses: &Arc<reconcile::Statuses>| {
            statuses
                .get(&unit)
                .is_some_and(|found| found.health == status)
        };
        tokio::time::timeout(PATIENCE, statuses.wait_for(holds))
            .await
            .unwrap()
            .unwrap();
    }

    pub(crate) async fn until_status(&self, condition: impl Fn(&UnitStatus) -> bool) {
        let mut statuses = self.reconciler.as_ref().unwrap().status();
        let holds =
            |statuses: &Arc<reconcile::Statuses>| statuses.get(&unit()).is_some_and(&condition);
        tokio::time::timeout(PATIENCE, statuses.wait_for(holds))
            .await
            .unwrap()
            .unwrap();
    }
}

/// A failed test leaves no process behind either.
impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.reconciler.take());
        while !stop_all(self.data.path(), Duration::from_secs(5)).is_empty() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Waits for a condition in the world outside.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, holds).await.is_ok(),
        "never came: {what}"
    );
}

/// The real interpreter: a wrapper on the search path may want variables that instances do not get.
pub(crate) fn python() -> String {
    let said = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("python3 is installed");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn audits(events: &[Event], wanted: &str) -> Vec<String> {
    let found = events.iter().filter_map(|event| match event {
        Event::Audit { action, detail } if action == wanted => Some(detail.clone()),
        _ => None,
    });
    found.collect()
}

pub(crate) fn unit() -> UnitId {
    "instance/demo-isp-0190a1b2".parse().unwrap()
}

pub(crate) fn trace(generation: u64) -> TraceContext {
    let mut bytes = [1; 16];
    bytes[8..].copy_from_slice(&generation.to_be_bytes());
    TraceContext {
        trace_id: TraceId::of(bytes),
        parent: SpanId::of(generation.to_be_bytes()),
        is_sampled: true,
    }
}

fn wanted(name: &str, generation: u64, instance: Instance) -> Wanted {
    let deployment: DeploymentId = name.parse().unwrap();
    Wanted {
        tenant: instance.tenant.clone(),
        unit: UnitId::instance(&deployment),
        request: "0".repeat(32).parse().unwrap(),
        // Every generation comes of another request, in a trace of its own: nothing may be replaced for that.
        trace: Some(trace(generation)),
        generation: Generation(generation),
        sequence: Sequence(generation),
        leaf: Digest::of(&generation.to_be_bytes()),
        at: Timestamp(1),
        order: Order::Keep(Arc::new(instance)),
    }
}

fn instance(name: &str, components: serde_json::Value) -> Instance {
    let manifest =
        serde_json::json!({"name": "demo", "version": "1.0.0", "components": components});
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let tenant: TenantId = name.parse().unwrap();
    Instance {
        deployment: DeploymentId::first_of(&tenant),
        tenant,
        tenant_name: "Demo ISP".into(),
        environment: "production".into(),
        region: "byov-lagos".parse().unwrap(),
        domain_name: None,
        release: manifest.digest(),
        manifest: manifest.canonical(),
        resources: Resources {
            cpu_request_millis: 250,
            memory_request_bytes: 128 << 20,
            cpu_limit_millis: 1_000,
            memory_limit_bytes: 512 << 20,
            storage_bytes: 1 << 30,
        },
        replicas: 1,
        restarts: 0,
        run: RunState::Running,
        license: License {
            tier: Tier::Premium,
            max_subscribers: 1_000,
            max_services: 500,
            api_rate_limit: 1_000,
            expires_at: None,
            grace_ms: GRACE_DEFAULT_MS,
            standing: LicenseStanding::Valid,
        },
        features: BTreeMap::new(),
        custom_config: "{}".into(),
        credentials: Vec::new(),
    }
}
