//! `make load`: 2,000 tenants, 200 watchers and 100 clients; then the same with one caller who floods, the two phases in
//! turn. Clients are open loops: each sends at set times, and a late answer counts from its set time. Almost all tenants
//! are in a region without an agent, so that they need no processes; a few are real ones.

use std::{io::Read as _, net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use dotmac_tests::{api::DEPLOYMENTS, fleet::AGENTS};
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    drive::{Make, Round, drive},
    ground::{Ground, list, rename},
    memory::Curve,
    report::{self, write},
    samples::{Samples, median, rounded},
    tell, watch,
    wire::{Ask, Target},
};

/// Connections of the caller who floods.
const FLOOD_CONNECTIONS: u64 = 32;
/// What clients do: show one deployment, list a hundred, rename a tenant.
const KINDS: [&str; 3] = ["show", "list100", "write"];

/// How much load there is.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Tenants, each with a deployment
    #[arg(long, default_value_t = 2000)]
    tenants: u64,
    /// Event streams: three of four follow one tenant, the others all deployments
    #[arg(long, default_value_t = 200)]
    watchers: u64,
    /// Clients
    #[arg(long, default_value_t = 100)]
    clients: u64,
    /// Milliseconds between two requests of a client
    #[arg(long, default_value_t = 250)]
    every_ms: u64,
    /// Of a hundred clients, those that write; four ninths of the others ask for lists
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=100))]
    writers_percent: u64,
    /// Seconds of each phase
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Phases without and with the flood, in turn
    #[arg(long, default_value_t = 4)]
    pairs: u64,
    /// Megabytes a minute of all controllers together that count as level, in the second half of the run
    #[arg(long, default_value_t = 8)]
    level_mib_a_minute: u32,
}

/// One kind of clients.
struct Group {
    name: &'static str,
    targets: Vec<Target>,
    clients: u64,
    make: Make,
}

/// Drives all of it.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    let ground = Ground::start("load").await?;
    let curve = Curve::begin(&ground.fleet)?;
    for region in AGENTS {
        ground
            .fleet
            .deploy(&format!("Real {region}"), region)
            .await?;
    }
    ground.fill("Tenant", settings.tenants).await?;
    let deployments = ground.ids(1000).await?;
    let mut streams = Vec::new();
    let tenant = deployments.first().context("there is no deployment")?;
    for (path, count) in [
        (
            format!("/api/v1/events?tenant_id={tenant}"),
            settings.watchers * 3 / 4,
        ),
        (
            "/api/v1/events?types=deployment".to_owned(),
            settings.watchers / 4,
        ),
    ] {
        streams.extend(watch::idle(&ground.targets, count, &path).await?);
    }
    tell(&format!(
        "{} tenants, {} watchers",
        settings.tenants,
        streams.len()
    ));
    let groups = groups(settings, &ground, &deployments).await?;
    let flooder = ground.callers(1).await?;
    let flooder = flooder.first().context("no token")?;
    let (mut calm, mut flooded, mut floods) = (Vec::new(), Vec::new(), Vec::new());
    phase(settings, &groups).await?;
    for _ in 0..settings.pairs {
        calm.push(phase(settings, &groups).await?);
        let flooding = flood(settings.seconds, &ground, flooder);
        let (phase, flood) = futures::future::try_join(phase(settings, &groups), flooding).await?;
        flooded.push(phase);
        floods.push(flood);
    }
    ensure!(
        streams.iter().all(|stream| !stream.is_finished()),
        "a watcher ended"
    );
    let memory = curve.end().await?;
    for (key, value) in [
        ("tenants", settings.tenants + AGENTS.len() as u64),
        ("real_tenants", AGENTS.len() as u64),
        ("watchers", settings.watchers),
        ("clients", settings.clients),
        ("client_every_ms", settings.every_ms),
    ] {
        found.insert(key.into(), json!(value));
    }
    for (number, name) in KINDS.iter().enumerate() {
        tell_group(&mut found, name, number, &calm, &flooded);
    }
    let answered = median(floods.iter().map(|(answered, _)| *answered));
    let refused = median(floods.iter().map(|(_, refused)| *refused));
    found.insert("flood_answered_rps".into(), json!(rounded(answered)));
    found.insert("flood_refused_rps".into(), json!(rounded(refused)));
    let growth = memory.growth(0.5, 1.0);
    found.insert("resident_mib".into(), json!(memory.last()));
    found.insert("resident_growth_mib_a_minute".into(), json!(growth));
    found.insert(
        "resident_is_level".into(),
        json!(growth <= f64::from(settings.level_mib_a_minute)),
    );
    found.insert("resident_curve".into(), memory.points());
    write("load.json", found)
}

async fn groups(
    settings: &Settings,
    ground: &Ground,
    deployments: &[String],
) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let writers = settings.clients * settings.writers_percent / 100;
    let listers = (settings.clients - writers) * 4 / 9;
    let shares = [settings.clients - writers - listers, listers, writers];
    for (name, clients) in KINDS.into_iter().zip(shares) {
        // Each client is a caller of its own.
        let callers = ground.callers(usize::try_from(clients)?).await?;
        let targets = ground
            .targets
            .iter()
            .map(|target| target.with(&callers))
            .collect();
        let ids: Arc<[String]> = deployments.into();
        let of = move |number: u64| ids[usize::try_from(number).unwrap_or(0) % ids.len()].clone();
        let make: Make = match name {
            "show" => Arc::new(move |number| Ask::get(format!("{DEPLOYMENTS}/{}", of(number)))),
            "list100" => Arc::new(|_| list(100)),
            _ => Arc::new(move |number| rename(&of(number), &format!("Renamed {number}"))),
        };
        groups.push(Group {
            name,
            targets,
            clients,
            make,
        });
    }
    Ok(groups)
}

/// One phase: every group at the same time.
async fn phase(settings: &Settings, groups: &[Group]) -> Result<Vec<Samples>> {
    let driven = groups.iter().map(|group| {
        let round = Round {
            connections: group.clients,
            over: Duration::from_secs(settings.seconds),
            every: Some(Duration::from_millis(settings.every_ms)),
        };
        drive(&group.targets, round, Arc::clone(&group.make))
    });
    let found: Vec<Samples> = futures::future::try_join_all(driven).await?;
    for (group, samples) in groups.iter().zip(&found) {
        let lost = samples.refused + samples.failed;
        ensure!(
            lost * 100 <= samples.len() as u64,
            "{}: {} refused, {} not answered, {} good",
            group.name,
            samples.refused,
            samples.failed,
            samples.len()
        );
    }
    Ok(found)
}

/// One caller asks for the longest lists as fast as it is answered, over many connections, to the first controller. It is
/// a process of its own, of the lowest priority: what it costs the machine to be a client is no harm that a server could
/// prevent. It gives answered and refused requests a second.
async fn flood(seconds: u64, ground: &Ground, token: &HeaderValue) -> Result<(f64, f64)> {
    let target = ground.targets.first().context("there is no controller")?;
    let mut child = Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe()?)
        .args([
            "flood",
            "--seconds",
            &seconds.to_string(),
            "--address",
            &target.address.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    // A token is no argument: others could read it there.
    input.write_all(token.as_bytes()).await?;
    drop(input);
    let ran = child.wait_with_output().await?;
    ensure!(ran.status.success(), "the flood ended with {}", ran.status);
    Ok(serde_json::from_slice(&ran.stdout)?)
}

/// The process of [`flood`].
pub(crate) async fn flood_from_input(seconds: u64, address: SocketAddr) -> Result<()> {
    let mut token = String::new();
    std::io::stdin().read_to_string(&mut token)?;
    let targets = [Target::open(address).with(&[HeaderValue::try_from(token)?])];
    let round = Round {
        connections: FLOOD_CONNECTIONS,
        over: Duration::from_secs(seconds),
        every: None,
    };
    let samples = drive(&targets, round, Arc::new(|_| list(1000))).await?;
    let rates = (samples.rate(), per_second(&samples, samples.refused));
    println!("{}", json!(rates));
    Ok(())
}

fn tell_group(
    found: &mut Map<String, Value>,
    name: &str,
    number: usize,
    calm: &[Vec<Samples>],
    flooded: &[Vec<Samples>],
) {
    let over = |phases: &[Vec<Samples>], percent| {
        median(
            phases
                .iter()
                .filter_map(|phase| phase.get(number))
                .map(|one| one.percentile(percent)),
        )
    };
    let rate = median(
        calm.iter()
            .filter_map(|phase| phase.get(number))
            .map(Samples::rate),
    );
    let (p99, flooded_p99) = (over(calm, 99), over(flooded, 99));
    let ratio = flooded_p99 / p99.max(f64::EPSILON);
    for (key, value) in [
        ("rps", rate),
        ("p50_ms", over(calm, 50)),
        ("p99_ms", p99),
        ("flooded_p50_ms", over(flooded, 50)),
        ("flooded_p99_ms", flooded_p99),
        ("flooded_p99_ratio", ratio),
    ] {
        found.insert(format!("{name}_{key}"), json!(rounded(value)));
    }
    tell(&format!(
        "{name}: {rate:.0}/s, p50 {:.1} ms, p99 {p99:.1} ms; under the flood p99 {flooded_p99:.1} ms ({ratio:.2})",
        over(calm, 50)
    ));
}

fn per_second(samples: &Samples, count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
        / samples.elapsed.as_secs_f64().max(f64::EPSILON)
}
