//! `make fleet AGENTS=1000`: simulated agents ([`crate::swarm`]) beside three controllers. How fast they enrol; how long
//! after the commit of a change its agent's receipt is committed, too, for a burst that changes the units of all agents;
//! how soon all of them have a session again after a controller, and after all three, were killed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use dotmac_runtime::supervise;
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{CONTROLLERS, Fleet},
    watch::Watch,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    ground::{Ground, create},
    memory::resident_mib,
    physics,
    report::{self, Found, put, put_ms},
    samples::{median, percentile},
    swarm::{self, Size, Swarm},
    tell,
    wire::{Ask, Wire},
};

/// How long all receipts of one burst may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the State says of an order that its agent has on disk.
const HELD: &str = "its agent has the order";

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

/// What a watcher heard: the generation whose order its agent has on disk, and when.
type Held = BTreeMap<String, (u64, Instant)>;

/// One change of one unit.
struct Changed {
    asked: Instant,
    committed: Instant,
    id: String,
    generation: u64,
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
    waves(settings, &ground, &swarm, &mut found).await?;
    note_memory(&ground.fleet, "deployed", &mut found)?;
    reconnections(settings, &ground, &swarm, &mut found).await?;
    report::write("fleet.json", found)
}

/// A deployment for every agent, then bursts that change all of them.
async fn waves(
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
    let (made, held) = burst(settings, ground, asks).await?;
    note_burst(
        "create",
        &[made.iter().map(|one| one.ms(&held)).collect()],
        found,
    )?;
    swarm
        .until("every agent has one unit", |seen| seen.accepted >= agents)
        .await?;
    let ids: Vec<String> = made.into_iter().map(|one| one.id).collect();
    let mut bursts = Vec::new();
    for number in 1..=settings.bursts {
        let asks = ids.iter().map(|id| Ask {
            method: Method::PATCH,
            path: format!("{DEPLOYMENTS}/{id}"),
            body: json!({"features": {format!("wave_{number}"): true}})
                .to_string()
                .into(),
            expected: StatusCode::OK,
            bearer: None,
        });
        let (changed, held) = burst(settings, ground, asks.collect()).await?;
        bursts.push(changed.iter().map(|one| one.ms(&held)).collect());
    }
    note_burst("wave", &bursts, found)
}

/// Milliseconds of one change: when it was asked for, committed, and held by its agent, all from the burst's beginning.
struct Times {
    asked: Instant,
    committed: Instant,
    held: Instant,
}

impl Changed {
    fn ms(&self, held: &Held) -> Times {
        Times {
            asked: self.asked,
            committed: self.committed,
            // The watcher may hear both before the writer has its answer.
            held: held[&self.id].1.max(self.committed),
        }
    }
}

fn note_burst(name: &str, bursts: &[Vec<Times>], found: &mut Found) -> Result<()> {
    let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1000.0;
    let each: Vec<f64> = bursts
        .iter()
        .flatten()
        .map(|one| ms(one.committed, one.held))
        .collect();
    let (mut committing, mut last, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for burst in bursts {
        let first_asked = burst
            .iter()
            .map(|one| one.asked)
            .min()
            .context("an empty burst")?;
        let last_committed = burst
            .iter()
            .map(|one| one.committed)
            .max()
            .context("an empty burst")?;
        let last_held = burst
            .iter()
            .map(|one| one.held)
            .max()
            .context("an empty burst")?;
        committing.push(ms(first_asked, last_committed));
        last.push(ms(last_committed, last_held));
        whole.push(ms(first_asked, last_held));
    }
    put_ms(found, &format!("{name}_commit_to_acknowledged"), &each);
    put_ms(found, &format!("{name}_committing"), &committing);
    put_ms(
        found,
        &format!("{name}_last_commit_to_last_acknowledged"),
        &last,
    );
    put_ms(found, &format!("{name}_whole"), &whole);
    tell(&format!(
        "{name}: commit to acknowledgement of each p50 {:.0} ms, p99 {:.0} ms; last commit to last acknowledgement {:.0} ms, {:.0} ms from the first request",
        median(each.iter().copied()),
        percentile(each.iter().copied(), 99),
        median(last.iter().copied()),
        median(whole.iter().copied()),
    ));
    Ok(())
}

/// Asks for all of them at once over many connections, and waits until the agent of each has its order on disk.
async fn burst(
    settings: &Settings,
    ground: &Arc<Ground>,
    asks: Vec<Ask>,
) -> Result<(Vec<Changed>, Held)> {
    let mut watched = Watch::open(&ground.fleet.api()?, "types=deployment").await?;
    watched.until(|event| event.kind == "synced").await?;
    let (heard, held) = watch::channel(Held::new());
    let listener = supervise::spawn("bench watcher", listen(watched, heard));
    let share = asks.len().div_ceil(settings.writers.max(1)).max(1);
    let mut wires = Vec::new();
    for (number, asks) in asks.chunks(share).enumerate() {
        let target = &ground.targets[number % ground.targets.len()];
        wires.push((
            Wire::open(target, u64::try_from(number)?).await?,
            asks.to_vec(),
        ));
    }
    let writers = wires.into_iter().map(|(mut wire, asks)| {
        supervise::spawn("bench writer", async move {
            let mut changed = Vec::new();
            for ask in asks {
                let asked = Instant::now();
                let (status, body) = wire.ask(&ask).await?;
                let committed = Instant::now();
                let text = String::from_utf8_lossy(&body);
                ensure!(
                    status == ask.expected,
                    "{} {}: {status}: {text}",
                    ask.method,
                    ask.path
                );
                let shown: Value = serde_json::from_str(&text)?;
                let id = deployment::id(&shown)?;
                let generation = shown["generation"].as_u64().context("no generation")?;
                changed.push(Changed {
                    asked,
                    committed,
                    id,
                    generation,
                });
            }
            Ok(changed)
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await??);
    }
    let is_held = |held: &Held, one: &Changed| {
        held.get(&one.id)
            .is_some_and(|(generation, _)| *generation >= one.generation)
    };
    let mut changes = held.clone();
    let whole = changes
        .wait_for(|held| held.len() >= all.len() && all.iter().all(|one| is_held(held, one)));
    let seen = match timeout(PATIENCE, whole).await {
        Ok(seen) => seen.context("the watcher ended")?.clone(),
        Err(_) => {
            let missing = all
                .iter()
                .filter(|one| !is_held(&held.borrow(), one))
                .count();
            anyhow::bail!(
                "{missing} of {} orders are not acknowledged in time",
                all.len()
            )
        }
    };
    listener.abort();
    Ok((all, seen))
}

/// Notes when it first hears of a generation that the agent has its order on disk, until it is aborted.
async fn listen(mut watched: Watch, heard: watch::Sender<Held>) -> Result<()> {
    while let Some(event) = watched.next().await? {
        let at = Instant::now();
        let waiting = deployment::waiting(&event.data);
        let generation = event.data["generation"].as_u64();
        let is_observed = event.data["observed_generation"].as_u64() == generation;
        let (Some(generation), true) = (generation, is_observed || waiting.starts_with(HELD))
        else {
            continue;
        };
        let id = deployment::text(&event.data, "id");
        heard.send_if_modified(|held| {
            let is_new = held.get(id).is_none_or(|(known, _)| *known < generation);
            if is_new {
                held.insert(id.to_owned(), (generation, at));
            }
            is_new
        });
    }
    Ok(())
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
