//! `make fleet AGENTS=1000`: simulated agents ([`crate::swarm`]) beside three controllers. How fast they enrol; how long
//! after the commit of a change its agent's receipt is committed, too, for bursts that change the units of all agents, of
//! each order and of each wave; how soon all of them have a session again after a controller, and after all three, were
//! killed.

mod burst;
mod waves;

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use dotmac_runtime::clock::Clock;
use dotmac_tests::{
    api::DEPLOYMENTS,
    fleet::{CONTROLLERS, Fleet},
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::{
    burst::burst,
    waves::{Sealed, Waves},
};
use crate::{
    ground::{Ground, create},
    memory::resident_mib,
    physics,
    report::{self, Found, put},
    samples::median,
    swarm::{self, Size, Swarm},
    tell,
    wire::Ask,
};

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    size: Size,
    /// Bursts that change the units of all agents
    #[arg(long, default_value_t = 5)]
    bursts: u64,
    /// Connections over which a burst is asked for
    #[arg(long, default_value_t = 64)]
    writers: usize,
    /// Times a controller is killed
    #[arg(long, default_value_t = 3)]
    kills: usize,
}

/// Measures all of it.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    let ground = Arc::new(Ground::start("bench-fleet").await?);
    let (sync_p50, sync_p99) = physics::sync_ms(ground.fleet.home())?;
    put(&mut found, "sync_p50_ms", sync_p50);
    put(&mut found, "sync_p99_ms", sync_p99);
    put(&mut found, "check_ms", physics::signature_ms().1);
    found.insert("agents".into(), json!(settings.size.agents));
    found.insert(
        "agents_in_memory".into(),
        json!(settings.size.agents_home.is_some()),
    );
    note_memory(&ground.fleet, "empty", &mut found)?;
    let (swarm, arrival) = Swarm::start(&ground, &settings.size).await?;
    let agents = settings.size.agents;
    let all = f64::from(u32::try_from(agents)?);
    put(
        &mut found,
        "enrolments_per_second",
        all / arrival.enrolled.as_secs_f64(),
    );
    put(
        &mut found,
        "connected_after_s",
        arrival.connected.as_secs_f64(),
    );
    note_memory(&ground.fleet, "connected", &mut found)?;
    bursts(settings, &ground, &swarm, &mut found).await?;
    note_memory(&ground.fleet, "deployed", &mut found)?;
    reconnections(settings, &ground, &swarm, &mut found).await?;
    report::write("fleet.json", found)
}

/// A deployment for every agent, then bursts that change all of them.
async fn bursts(
    settings: &Settings,
    ground: &Arc<Ground>,
    swarm: &Swarm,
    found: &mut Found,
) -> Result<()> {
    let agents = settings.size.agents;
    let asks: Vec<Ask> = (0..agents as u64)
        .map(|number| {
            let ask = create("Swarm", number);
            let mut body: Value =
                serde_json::from_slice(&ask.body).expect("it was written as JSON");
            body["region"] = swarm::REGION.into();
            Ask {
                body: body.to_string().into(),
                ..ask
            }
        })
        .collect();
    let mut waves = Waves::begin(&Clock::system());
    let made = burst(settings.writers, ground, asks).await?;
    let mut sealed = Sealed::default();
    waves.add(ground, &made, &mut sealed).await?;
    sealed.note("create", found);
    let ids: Vec<String> = made.iter().map(|one| one.id.clone()).collect();
    burst::note("create", &[made], found)?;
    swarm
        .until("every agent has one unit", |seen| seen.accepted >= agents)
        .await?;
    let (mut bursts, mut sealed) = (Vec::new(), Sealed::default());
    for number in 1..=settings.bursts {
        let asks = ids.iter().map(|id| Ask {
            method: Method::PATCH,
            path: format!("{DEPLOYMENTS}/{id}"),
            body: json!({"features": {format!("burst_{number}"): true}})
                .to_string()
                .into(),
            expected: StatusCode::OK,
            bearer: None,
        });
        let changed = burst(settings.writers, ground, asks.collect()).await?;
        waves.add(ground, &changed, &mut sealed).await?;
        bursts.push(changed);
    }
    sealed.note("change", found);
    burst::note("change", &bursts, found)
}

/// Kills one controller after the other, then all three, and waits until all agents have a session again.
async fn reconnections(
    settings: &Settings,
    ground: &Ground,
    swarm: &Swarm,
    found: &mut Found,
) -> Result<()> {
    let mut took = Vec::new();
    for name in CONTROLLERS.iter().cycle().take(settings.kills) {
        took.push(back_after(&ground.fleet, swarm, &[name]).await?);
    }
    if !took.is_empty() {
        put(
            found,
            "reconnected_after_one_s",
            median(took.iter().copied()),
        );
    }
    let all = back_after(&ground.fleet, swarm, &CONTROLLERS).await?;
    put(found, "reconnected_after_all_s", all);
    tell(&format!(
        "all sessions are back {:.1} s after one controller was killed, {all:.1} s after all three were",
        median(took.iter().copied())
    ));
    Ok(())
}

/// Seconds from the kill until every agent has a session; those of the killed controllers a new one.
async fn back_after(fleet: &Fleet, swarm: &Swarm, names: &[&str]) -> Result<f64> {
    let before = swarm
        .until("every agent is connected", |seen| {
            seen.connected() >= swarm.agents
        })
        .await?;
    let nodes = CONTROLLERS
        .iter()
        .zip(1..)
        .filter(|(name, _)| names.contains(name));
    let lost: usize = nodes
        .filter_map(|(_, node)| before.connected.get(&node))
        .sum();
    let started = Instant::now();
    let mut killed = Vec::new();
    for name in names {
        killed.push((*name, fleet.kill(name).await?));
    }
    swarm
        .until("every agent is connected again", |seen| {
            seen.connected() >= swarm.agents && seen.sessions >= before.sessions + lost
        })
        .await?;
    let took = started.elapsed().as_secs_f64();
    for (name, process) in killed {
        fleet.back(name, &process).await?;
    }
    fleet.settled().await?;
    Ok(took)
}

/// Resident memory of each controller, the largest counts.
fn note_memory(fleet: &Fleet, when: &str, found: &mut Found) -> Result<()> {
    let resident: Result<Vec<f64>> = CONTROLLERS
        .iter()
        .map(|name| resident_mib(fleet.process(name)?.pid))
        .collect();
    let most = resident?.into_iter().fold(0.0, f64::max);
    put(found, format!("controller_{when}_mib"), most);
    tell(&format!("a controller, {when}: {most:.0} MiB resident"));
    Ok(())
}
