//! `make bench-memory`: resident memory of an idle agent, without and with an instance, and of a controller with a
//! thousand connected agents; and what it consists of: pages of the program that are mapped, and memory of its own.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use dotmac_tests::fleet::{AGENTS, CONTROLLERS, Fleet};
use serde_json::json;

use crate::{
    ground::Ground,
    report::{self, Found, put},
    samples::median,
    swarm::{Size, Swarm},
    tell,
};

/// Megabytes (10^6 bytes) of a kibibyte.
const MB_OF_KIB: f64 = 1024.0 / 1_000_000.0;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    size: Size,
    /// Seconds for which everything is left alone before it is measured
    #[arg(long, default_value_t = 20)]
    idle: u64,
}

/// What a process has in memory, in kibibytes.
#[derive(Debug, Clone, Default)]
struct Resident {
    /// All of it.
    all: f64,
    /// What no file holds: heap, stacks, relocated and written data.
    own: f64,
    /// Pages of the program and its libraries: shared by all who run them, and given up when memory is short.
    mapped: f64,
    threads: f64,
}

/// Measures agents, then controllers.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("agents".into(), json!(settings.size.agents));
    let ground = Ground::start("bench-memory").await?;
    let idle = Duration::from_secs(settings.idle);
    tokio::time::sleep(idle).await;
    note(&ground.fleet, "agent_idle", &AGENTS, &mut found)?;
    note(&ground.fleet, "controller_idle", &CONTROLLERS, &mut found)?;
    for region in AGENTS {
        ground
            .fleet
            .deploy(&format!("One {region}"), region)
            .await?;
    }
    tokio::time::sleep(idle).await;
    note(&ground.fleet, "agent_one_instance", &AGENTS, &mut found)?;
    let parts = parts(ground.fleet.process(AGENTS[0])?.pid)?;
    found.insert("agent_one_instance_kib_by_mapping".into(), json!(parts));
    let (swarm, _) = Swarm::start(&ground, &settings.size).await?;
    tokio::time::sleep(idle).await;
    swarm
        .until("every agent is connected", |seen| {
            seen.connected() >= swarm.agents
        })
        .await?;
    note(
        &ground.fleet,
        "controller_connected",
        &CONTROLLERS,
        &mut found,
    )?;
    let simulated: Result<Vec<Resident>> = swarm.pids().into_iter().map(resident).collect();
    let simulated: f64 = simulated?.iter().map(|one| one.own).sum();
    let each = simulated / f64::from(u32::try_from(swarm.agents)?);
    put(&mut found, "simulated_agent_own_kib", each);
    report::write("memory.json", found)
}

/// Notes the median of these processes.
fn note(fleet: &Fleet, name: &str, processes: &[&str], found: &mut Found) -> Result<()> {
    let seen: Result<Vec<Resident>> = processes
        .iter()
        .map(|process| resident(fleet.process(process)?.pid))
        .collect();
    let seen = seen?;
    let of = |part: fn(&Resident) -> f64| median(seen.iter().map(part));
    let (all, own, mapped) = (of(|one| one.all), of(|one| one.own), of(|one| one.mapped));
    put(found, format!("{name}_mib"), all / 1024.0);
    put(found, format!("{name}_mb"), all * MB_OF_KIB);
    put(found, format!("{name}_own_mib"), own / 1024.0);
    put(found, format!("{name}_mapped_mib"), mapped / 1024.0);
    put(found, format!("{name}_threads"), of(|one| one.threads));
    tell(&format!(
        "{name}: {:.1} MB ({:.1} MiB) resident, {:.1} MiB of its own and {:.1} of mapped files",
        all * MB_OF_KIB,
        all / 1024.0,
        own / 1024.0,
        mapped / 1024.0
    ));
    Ok(())
}

fn resident(pid: u32) -> Result<Resident> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        Ok(word.with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok(Resident {
        all: value("VmRSS:")?,
        own: value("RssAnon:")?,
        mapped: value("RssFile:")?,
        threads: value("Threads:")?,
    })
}

/// Resident kibibytes by what is mapped: a file with its permissions, heap, stack, or nothing.
fn parts(pid: u32) -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut parts, mut name) = (BTreeMap::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [range, permissions, _, _, _, file @ ..] if range.contains('-') => {
                let file = file.first().and_then(|file| file.rsplit('/').next());
                name = format!("{} {permissions}", file.unwrap_or("anonymous"));
            }
            ["Rss:", kibibytes, _] => {
                *parts.entry(name.clone()).or_default() += kibibytes.parse::<u64>()?;
            }
            _ => {}
        }
    }
    parts.retain(|_, kibibytes| *kibibytes > 0);
    Ok(parts)
}
