//! `make bench-deploy`: from the request for a deployment to the moment at which a watcher hears that it is active, a
//! hundred times one after the other and a hundred times ten at a time; with the stations of its journey. Instances are
//! real processes of the demo release.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use dotmac_runtime::supervise;
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{ACTIVE_WITHIN, AGENTS},
    watch::Watch,
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use crate::{
    ground::{Ground, post},
    report::{self, Found, put_ms},
    samples::{median, percentile},
    tell,
    wire::Wire,
};

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Deployments of each phase
    #[arg(long, default_value_t = 100)]
    deployments: usize,
    /// Deployments under way at once in the second phase
    #[arg(long, default_value_t = 10)]
    at_once: usize,
}

/// When which deployment was heard to be active.
type Active = BTreeMap<String, Instant>;

/// One deployment.
pub(crate) struct Made {
    /// When it was asked for.
    pub(crate) asked: Instant,
    /// When the watcher heard that it is active.
    pub(crate) active: Instant,
    /// Milliseconds between the two.
    pub(crate) took_ms: f64,
    /// What it is called.
    pub(crate) id: String,
}

/// Measures both phases.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("deployments".into(), json!(settings.deployments));
    let ground = Arc::new(Ground::start("bench-deploy").await?);
    // The first one of each agent finds nothing in any cache.
    for region in AGENTS {
        ground
            .fleet
            .deploy(&format!("First {region}"), region)
            .await?;
    }
    for (name, at_once) in [("one", 1), ("many", settings.at_once)] {
        let made = phase(&ground, name, settings.deployments, at_once).await?;
        let took: Vec<f64> = made.iter().map(|one| one.took_ms).collect();
        put_ms(&mut found, &format!("{name}_active"), &took);
        journeys(&ground, name, &made, &mut found).await?;
        tell(&format!(
            "{} deployments, {at_once} at a time: request to active p50 {:.0} ms, p99 {:.0} ms",
            made.len(),
            median(took.iter().copied()),
            percentile(took.iter().copied(), 99)
        ));
    }
    report::write("deploy.json", found)
}

/// Deploys so many on the agents in turn, so many of them at once, and waits until all are active.
///
/// # Errors
/// When one is not accepted, or not active in time.
pub(crate) async fn phase(
    ground: &Arc<Ground>,
    name: &str,
    count: usize,
    at_once: usize,
) -> Result<Vec<Made>> {
    let watched = Watch::open(&ground.fleet.api()?, "types=deployment").await?;
    let (heard, active) = watch::channel(Active::new());
    let listener = supervise::spawn("bench watcher", listen(watched, heard));
    let slots = Arc::new(Semaphore::new(at_once));
    let mut tasks = Vec::new();
    for (number, region) in (0..count).zip(AGENTS.iter().cycle()) {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (ground, active) = (Arc::clone(ground), active.clone());
        let body = json!({
            "tenant_name": format!("{name} {number}"), "region": region, "resource_tier": "micro",
        });
        tasks.push(supervise::spawn("bench deployment", async move {
            let made = deploy(&ground, number, &body, active).await;
            drop(slot);
            made
        }));
    }
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await??);
    }
    listener.abort();
    Ok(made)
}

async fn deploy(
    ground: &Ground,
    number: usize,
    body: &Value,
    mut active: watch::Receiver<Active>,
) -> Result<Made> {
    let target = &ground.targets[number % ground.targets.len()];
    let mut wire = Wire::open(target, u64::try_from(number)?).await?;
    let asked = Instant::now();
    let (status, answer) = wire.ask(&post(DEPLOYMENTS, body)).await?;
    let text = String::from_utf8_lossy(&answer);
    ensure!(status.is_success(), "create: {status}: {text}");
    let id = deployment::id(&serde_json::from_str(&text)?)?;
    let heard = timeout(
        ACTIVE_WITHIN,
        active.wait_for(|active| active.contains_key(&id)),
    );
    let heard = heard
        .await
        .with_context(|| format!("{id} is not active in time"))??;
    let active = heard[&id];
    drop(heard);
    Ok(Made {
        asked,
        active,
        took_ms: active.duration_since(asked).as_secs_f64() * 1000.0,
        id,
    })
}

/// Notes when it first hears that a deployment is active, until it is aborted.
async fn listen(mut watched: Watch, heard: watch::Sender<Active>) -> Result<()> {
    while let Some(event) = watched.next().await? {
        let id = deployment::text(&event.data, "id");
        if event.kind == "deployment" && event.data["status"] == "active" {
            let at = Instant::now();
            heard.send_if_modified(|active| {
                let is_new = !active.contains_key(id);
                active.entry(id.to_owned()).or_insert(at);
                is_new
            });
        }
    }
    Ok(())
}

/// The milliseconds between each station and the one before it.
async fn journeys(ground: &Ground, name: &str, made: &[Made], found: &mut Found) -> Result<()> {
    let mut stations: Vec<(String, Vec<f64>)> = Vec::new();
    for one in made {
        let shown = ground.fleet.deployment(&one.id).await?;
        let journey = shown["journey"].as_array().context("no journey")?;
        for pair in journey.windows(2) {
            let at = |hop: &Value| hop["at_ms"].as_f64().unwrap_or_default();
            let (station, took) = (
                deployment::text(&pair[1], "station"),
                at(&pair[1]) - at(&pair[0]),
            );
            match stations.iter_mut().find(|(known, _)| known == station) {
                Some((_, all)) => all.push(took),
                None => stations.push((station.to_owned(), vec![took])),
            }
        }
    }
    let told = stations.iter().map(|(station, took)| {
        json!({
            "station": station,
            "p50_ms": median(took.iter().copied()),
            "p99_ms": percentile(took.iter().copied(), 99),
        })
    });
    found.insert(format!("{name}_stations"), told.collect());
    Ok(())
}
