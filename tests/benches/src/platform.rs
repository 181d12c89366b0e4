//! `make bench-platform`: the platform API of one agent as a foreign program calls it, with a JWT made for every call,
//! against a bare axum handler that reads the same JSON and answers as many bytes. The agent's part between the two is
//! what its instances wait for longer.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use dotmac_runtime::{clock::Clock, entropy::Entropy};
use dotmac_tests::{deployment, fleet::AGENTS};
use hyper::{Method, StatusCode, header::HeaderValue};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    bare::Bare,
    drive::{Make, Round, drive_whole},
    ground::Ground,
    report::{self, put},
    samples::{Samples, median},
    tell,
    wire::{Ask, Target, Wire, caller},
};

/// Where the platform API begins.
const BASE: &str = "/api/platform/v1/service-api";
/// Connections: one alone, and as many as find out what there can be.
const CONNECTIONS: [u64; 2] = [1, 32];
/// Instances that share the connections: an agent answers 16 calls of one at a time.
const INSTANCES: usize = 4;
/// Seconds for which a token counts.
const TOKEN_S: u64 = 3_600;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Seconds of each round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// An instance as its environment tells it.
#[derive(Clone)]
struct Instance {
    target: Target,
    tenant: String,
    license_key: String,
    key: EncodingKey,
    clock: Clock,
    /// When the run began, and how many calls were made in it: reports are told apart by their time.
    began_ms: u64,
    calls: Arc<AtomicU64>,
    /// What tells the tokens of this run from those of any other.
    run: String,
}

/// One call.
#[derive(Debug, Clone, Copy)]
enum Call {
    Validate,
    Sync,
    Metrics,
    Event,
}

impl Call {
    const ALL: [Self; 4] = [Self::Validate, Self::Sync, Self::Metrics, Self::Event];

    fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Sync => "sync",
            Self::Metrics => "metrics",
            Self::Event => "event",
        }
    }
}

/// Measures every call with one connection and with many.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("rounds".into(), json!(settings.rounds));
    let ground = Ground::start("bench-platform").await?;
    lift_allowance(&ground).await?;
    let mut instances = Vec::new();
    for number in 0..INSTANCES {
        let name = format!("Platform {number}");
        let id = ground.fleet.deploy(&name, AGENTS[0]).await?;
        instances.push(Instance::of(&ground.fleet.deployment(&id).await?)?);
    }
    let first = instances.first().context("no instance")?.clone();
    let instances: Arc<[Instance]> = instances.into();
    let bodies = tempfile::tempdir()?;
    for call in Call::ALL {
        let answer = bodies.path().join(call.name());
        let ask = first.ask(call);
        let (status, body) = Wire::open(&first.target, 0).await?.ask(&ask).await?;
        anyhow::ensure!(
            status == ask.expected,
            "{}: {status}: {}",
            call.name(),
            String::from_utf8_lossy(&body)
        );
        fs::write(&answer, &body)?;
        let bare = Bare::start(&answer, &answer).await?;
        let peer = [Target::open(bare.address)];
        for connections in CONNECTIONS {
            let round = Round {
                connections,
                over: Duration::from_secs(settings.seconds),
                every: None,
            };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for number in 0..settings.rounds {
                let (asks, bare_asks) = makes(&instances, call);
                // Whoever comes second must not always be the same.
                for turn in [number % 2, (number + 1) % 2] {
                    if turn == 0 {
                        let target = [first.target.clone()];
                        ours.push(drive_whole(&target, round, Arc::clone(&asks)).await?);
                    } else {
                        theirs.push(drive_whole(&peer, round, Arc::clone(&bare_asks)).await?);
                    }
                }
            }
            let name = format!("{}_{connections}", call.name());
            let of = |rounds: &[Samples], percent| {
                median(rounds.iter().map(|round| round.percentile(percent)))
            };
            let rate = |rounds: &[Samples]| median(rounds.iter().map(Samples::rate));
            let added = of(&ours, 50) - of(&theirs, 50);
            for (key, value) in [
                ("per_second", rate(&ours)),
                ("p50_ms", of(&ours, 50)),
                ("p99_ms", of(&ours, 99)),
                ("axum_per_second", rate(&theirs)),
                ("axum_p50_ms", of(&theirs, 50)),
                ("added_p50_ms", added),
            ] {
                put(&mut found, format!("{name}_{key}"), value);
            }
            tell(&format!(
                "{name}: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms; bare axum {:.0}/s, p50 {:.3} ms",
                rate(&ours),
                of(&ours, 50),
                of(&ours, 99),
                rate(&theirs),
                of(&theirs, 50)
            ));
        }
    }
    report::write("platform.json", found)
}

/// Restarts the agent with a configuration that lets an instance report as fast as it can: what is measured is the way
/// of a report, not the rate that an agent allows.
async fn lift_allowance(ground: &Ground) -> Result<()> {
    let fleet = &ground.fleet;
    let file = fleet.home().join(AGENTS[0]).join("agent.toml");
    let text = fs::read_to_string(&file)?;
    let section = "[instance_api]\n";
    anyhow::ensure!(
        text.contains(section),
        "{} has no {section}",
        file.display()
    );
    let lifted = format!("{section}reports_per_second = 100000\n");
    fs::write(&file, text.replace(section, &lifted))?;
    let before = fleet.kill(AGENTS[0]).await?;
    fleet.back(AGENTS[0], &before).await?;
    fleet.agents_connected().await
}

impl Instance {
    /// Reads the environment of a deployment's process, which is ours to read.
    fn of(shown: &Value) -> Result<Self> {
        let process = deployment::process(shown)?;
        let bytes = fs::read(format!("/proc/{}/environ", process.pid))?;
        let environment = String::from_utf8_lossy(&bytes).into_owned();
        let value = |name: &str| -> Result<String> {
            let mut pairs = environment
                .split('\0')
                .filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(known, _)| *known == name);
            Ok(found
                .with_context(|| format!("the instance has no {name}"))?
                .1
                .to_owned())
        };
        let clock = Clock::system();
        let address = value("PLATFORM_URL")?;
        let address = address
            .strip_prefix("http://")
            .context("the platform is not plain HTTP")?;
        Ok(Self {
            target: Target::open(address.trim_end_matches('/').parse()?),
            tenant: value("TENANT_ID")?,
            license_key: value("ISP_LICENSE_KEY")?,
            key: EncodingKey::from_secret(value("PLATFORM_SERVICE_TOKEN")?.as_bytes()),
            began_ms: clock.now().0,
            clock,
            calls: Arc::default(),
            run: Entropy::system().hex(8),
        })
    }

    /// A call that no other of this run is like: what was reported before would not be kept again.
    fn ask(&self, call: Call) -> Ask {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (path, body) = match call {
            Call::Validate => (
                "/license/validate".to_owned(),
                json!({
                    "license_key": self.license_key, "isp_instance_id": format!("isp-{}", self.tenant),
                    "version": "1.0.0",
                }),
            ),
            Call::Sync => (
                format!("/config/{}/sync", self.tenant),
                json!({"current_version": null}),
            ),
            Call::Metrics => ("/metrics/report".to_owned(), self.metrics(number)),
            Call::Event => (
                "/events/webhook".to_owned(),
                json!({
                    "event_id": format!("{}-{number}", self.run), "event_type": "session.started",
                    "tenant_id": self.tenant, "occurred_at": time_text(self.clock.now().0),
                    "payload": {"username": "subscriber@example.net", "session_id": number},
                }),
            ),
        };
        Ask {
            method: Method::POST,
            path: format!("{BASE}{path}"),
            body: Bytes::from(body.to_string()),
            expected: StatusCode::OK,
            bearer: Some(self.bearer(call, number)),
        }
    }

    fn metrics(&self, number: u64) -> Value {
        json!({"metrics": {
            "tenant_id": self.tenant, "reported_at": time_text(self.began_ms.saturating_sub(number)),
            "active_subscribers": 10, "total_subscribers": 12, "new_subscribers_today": 1,
            "churned_subscribers_today": 0, "active_sessions": 7, "sessions_today": 20,
            "total_data_usage_mb": 1024.0, "active_nas_devices": 1, "active_olts": 0, "active_onts": 0,
        }})
    }

    fn bearer(&self, call: Call, number: u64) -> HeaderValue {
        let now_s = self.clock.now().0 / 1000;
        let claims = json!({
            "sub": format!("isp-{}", self.tenant), "type": "service", "service_type": "isp",
            "tenant_id": self.tenant,
            "permissions": ["license:validate", "config:read", "metrics:write", "events:write"],
            "iat": now_s, "exp": now_s + TOKEN_S,
            "jti": format!("{}-{}-{number}-{}", self.run, call.name(), Entropy::system().hex(8)),
        });
        let token = jsonwebtoken::encode(&Header::default(), &claims, &self.key)
            .expect("a token of text and numbers");
        caller(&token).expect("a token is a header value")
    }
}

/// The requests of one round, ours and the peer's: the same but for the path, the token's making included.
fn makes(instances: &Arc<[Instance]>, call: Call) -> (Make, Make) {
    let (ours, theirs) = (Arc::clone(instances), Arc::clone(instances));
    let of = move |instances: &[Instance], number: u64| {
        let place = usize::try_from(number).unwrap_or_default() % instances.len();
        instances[place].ask(call)
    };
    let our_make: Make = Arc::new(move |number| of(&ours, number));
    let their_make: Make = Arc::new(move |number| Ask {
        path: "/create".into(),
        expected: StatusCode::CREATED,
        ..of(&theirs, number)
    });
    (our_make, their_make)
}

/// RFC 3339, UTC.
fn time_text(at_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.expect("the clock is between the years 1970 and 9999")
        .to_string()
}
