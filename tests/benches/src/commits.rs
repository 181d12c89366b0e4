//! `make bench-commits`: how many changes a second three nodes commit for 1, 16 and 256 writers, each acknowledgement
//! synced on a majority. Once through the API (a tenant is renamed: token, evidence of a second controller, audit), and
//! once as the log alone: one of the three controllers runs inside the benchmark, is made leader, and is given commands
//! that change nothing. Its disk counts the syncs.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use dotmac_controller::{
    app::{self, Ports, Running},
    config::Config,
    node::Node,
};
use dotmac_domain::{Command, envelope::Actor};
use dotmac_runtime::{
    disk::{Disk, SystemDisk},
    supervise,
};
use dotmac_tests::{
    fleet::{CONTROLLERS, Fleet},
    wait::until,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    drive::{Round, drive_whole},
    ground::{Ground, rename},
    physics,
    report::{self, Found, put},
    samples::{Samples, median},
    tell,
};

/// Writers at once.
pub(crate) const WRITERS: [u64; 3] = [1, 16, 256];
/// The controller that the benchmark runs itself.
pub(crate) const OWN: &str = CONTROLLERS[0];
/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long its controller may need to come up, and to lead.
const PATIENCE: Duration = Duration::from_secs(20);
/// Times the leader is stopped until the benchmark's own controller leads.
const TURNS_MAX: usize = 30;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// The system's disk, which counts what it syncs.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    syncs: AtomicU64,
}

impl Counted {
    /// How often it has synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

impl Disk for Counted {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        SystemDisk.sync_data(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        SystemDisk.sync_dir(path)
    }
}

/// Measures both ways.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("rounds".into(), json!(settings.rounds));
    let ground = Ground::start("bench-commits").await?;
    let (sync_p50, sync_p99) = physics::sync_ms(ground.fleet.home())?;
    put(&mut found, "sync_p50_ms", sync_p50);
    put(&mut found, "sync_p99_ms", sync_p99);
    tell(&format!(
        "the disk: a sync of 4 KiB p50 {sync_p50} ms, p99 {sync_p99} ms"
    ));
    through_the_api(settings, &ground, &mut found).await?;
    let disk = Arc::new(Counted::default());
    ground.fleet.settled().await?;
    // Until the end: the supervisor would start the controller that this program plays.
    let hold = ground.fleet.kill_and_hold(&[OWN]).await?;
    let running = lead(&ground.fleet, &disk).await?;
    let measured = in_process(settings, &running.node, &disk, &mut found).await;
    running.stop().await;
    drop(hold);
    measured?;
    report::write("commits.json", found)
}

/// Renames tenants, each writer one of its own.
async fn through_the_api(settings: &Settings, ground: &Ground, found: &mut Found) -> Result<()> {
    let most = WRITERS.into_iter().max().unwrap_or_default();
    ground.fill("Committed", most).await?;
    let ids: Arc<[String]> = ground.ids(usize::try_from(most)?).await?.into();
    for writers in WRITERS {
        let round = Round {
            connections: writers,
            over: Duration::from_secs(settings.seconds),
            every: None,
        };
        let mut rounds = Vec::new();
        for _ in 0..settings.rounds {
            let ids = Arc::clone(&ids);
            let make = Arc::new(move |number: u64| {
                let place = usize::try_from(number % writers).unwrap_or_default();
                rename(&ids[place % ids.len()], &format!("Committed {number}"))
            });
            rounds.push(drive_whole(&ground.targets, round, make).await?);
        }
        note(found, &format!("api_{writers}"), &rounds);
    }
    Ok(())
}

/// Proposes to the leader's log what changes nothing, and counts its syncs.
async fn in_process(
    settings: &Settings,
    node: &Arc<Node>,
    disk: &Counted,
    found: &mut Found,
) -> Result<()> {
    for writers in WRITERS {
        let (mut rounds, mut syncs_per_ack) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            ensure!(node.is_leader(), "the benchmark's controller leads no more");
            let before = disk.syncs();
            let nothing = Command::SealWave { orders: Vec::new() };
            let over = Duration::from_secs(settings.seconds);
            let samples = propose(node, writers, over, &nothing).await?;
            let syncs = disk.syncs() - before;
            let syncs = f64::from(u32::try_from(syncs)?);
            syncs_per_ack.push(syncs / f64::from(u32::try_from(samples.len().max(1))?));
            rounds.push(samples);
        }
        note(found, &format!("log_{writers}"), &rounds);
        let per_ack = median(syncs_per_ack);
        put(found, format!("log_{writers}_syncs_per_ack"), per_ack);
        tell(&format!(
            "of these, syncs of the leader per acknowledgement: {per_ack:.3}"
        ));
    }
    Ok(())
}

/// So many writers, each of which proposes the same command again as soon as it was committed.
pub(crate) async fn propose(
    node: &Arc<Node>,
    writers: u64,
    over: Duration,
    command: &Command,
) -> Result<Samples> {
    let start = Instant::now();
    let writers: Vec<_> = (0..writers)
        .map(|_| {
            let (node, command) = (Arc::clone(node), command.clone());
            supervise::spawn("bench writer", async move {
                let mut samples = Samples::default();
                while start.elapsed() < over {
                    let asked = Instant::now();
                    let command = command.clone();
                    let reply = node.propose(Actor::Planner, command, DEADLINE).await?;
                    match reply {
                        Ok(_) => samples.take(asked.elapsed()),
                        Err(rejection) => bail!("refused: {}", rejection.detail),
                    }
                }
                Ok(samples)
            })
        })
        .collect();
    let mut all = Samples::default();
    for writer in writers {
        all.join(writer.await??);
    }
    all.elapsed = start.elapsed();
    Ok(all)
}

/// Takes one controller's place, whose supervisor must be held, and leads all three.
pub(crate) async fn lead(fleet: &Fleet, disk: &Arc<Counted>) -> Result<Running> {
    let config = Config::load(&fleet.home().join(OWN).join("controller.toml"))?;
    let ports = Ports {
        disk: Arc::clone(disk) as _,
        ..Ports::system()
    };
    let running = app::start(config, ports).await?;
    seat(fleet, &running).await?;
    Ok(running)
}

/// Stops the other controllers in turn until the benchmark's own leads all three.
pub(crate) async fn seat(fleet: &Fleet, running: &Running) -> Result<()> {
    let own = usize::try_from(running.node.card.node.0)?;
    let others = CONTROLLERS
        .iter()
        .enumerate()
        .filter(|(place, _)| place + 1 != own);
    let others: Vec<usize> = others.map(|(place, _)| place + 1).collect();
    let api = fleet.api()?.of_nodes(&others);
    for _ in 0..TURNS_MAX {
        let leader = until("a controller leads", PATIENCE, async || {
            let status = api.get("/api/v1/cluster/status").await?;
            Ok(status["leader"].as_u64())
        })
        .await?;
        let leader = usize::try_from(leader)?;
        if leader == own {
            until("all three agree", PATIENCE, async || {
                let all_run = CONTROLLERS
                    .iter()
                    .filter(|name| **name != OWN)
                    .all(|name| fleet.process(name).is_ok());
                let nodes = running.node.log.connected().borrow().len();
                Ok((all_run && nodes == others.len() && running.node.is_leader()).then_some(()))
            })
            .await?;
            return Ok(());
        }
        let name = CONTROLLERS.get(leader - 1).context("an unknown leader")?;
        let before = fleet.process(name)?;
        let hold = fleet.kill_and_hold(&[name]).await?;
        let rest: Vec<usize> = others
            .iter()
            .copied()
            .filter(|one| *one != leader)
            .collect();
        let rest = fleet.api()?.of_nodes(&rest);
        until("another controller leads", PATIENCE, async || {
            let status = rest.get("/api/v1/cluster/status").await?;
            let now = status["leader"]
                .as_u64()
                .and_then(|now| usize::try_from(now).ok());
            Ok(now.filter(|now| *now != leader))
        })
        .await?;
        drop(hold);
        fleet.back(name, &before).await?;
    }
    bail!("the benchmark's controller never led")
}

fn note(found: &mut Found, name: &str, rounds: &[Samples]) {
    let rate = median(rounds.iter().map(Samples::rate));
    let p50 = median(rounds.iter().map(|round| round.percentile(50)));
    let p99 = median(rounds.iter().map(|round| round.percentile(99)));
    put(found, format!("{name}_per_second"), rate);
    put(found, format!("{name}_p50_ms"), p50);
    put(found, format!("{name}_p99_ms"), p99);
    tell(&format!(
        "{name}: {rate:.0} commits/s, p50 {p50:.2} ms, p99 {p99:.2} ms"
    ));
}
