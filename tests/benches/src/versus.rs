//! `make bench-etcd`: three of our nodes against three members of etcd on the same machine, disk and value size, both
//! syncing every acknowledgement. The order of the two alternates over the rounds; ratios are medians of the rounds' own
//! ratios, and above 1 we are ahead.
//!
//! Two levels. *public*: an authenticated product command (a tenant gets another name) with the evidence of a second
//! controller and its audit fact, from a client process of its own over the API. *core*: values proposed in process; one of
//! the three controllers runs inside the benchmark and leads. etcd is asked by its own benchmark client both times.

mod footprint;
mod log_engine;

pub(crate) use footprint::disk;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use dotmac_controller::app::Running;
use dotmac_domain::Command;
use dotmac_tests::fleet::Fleet;
use serde_json::{Value, json};

use crate::{
    commits::{Counted, OWN, WRITERS, lead, propose, seat},
    drive::{Make, Round, drive_whole},
    etcd::{Etcd, Told, VALUE_BYTES, Verb},
    ground::{Ground, post, rename},
    physics,
    report::{self, Found, put, put_spread},
    samples::{Samples, median},
    tell, watch,
    wire::Ask,
};

/// Requests of etcd's client before the first round, to learn how many fit in one.
const FIRST_TOTAL: u64 = 400;
/// The number of writers whose reads decide.
const READERS: u64 = 256;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Rounds of each measurement, the order alternating
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Seconds of each round, about
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Entities made to see what memory and disk they take
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(300..=19_000))]
    entities: u64,
    /// Watchers of one change
    #[arg(long, default_value_t = 1000)]
    watchers: u64,
    /// Changes that are watched in each round
    #[arg(long, default_value_t = 40)]
    changes: u64,
    /// Only these: engine, footprint, public, reads, watch, core
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Settings {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == name)
    }

    fn over(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Measures all of it.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("rounds".into(), json!(settings.rounds));
    found.insert("value_bytes".into(), json!(VALUE_BYTES));
    let ground = Ground::start("bench-etcd").await?;
    let etcd = Etcd::start().await?;
    let (sync_p50, sync_p99) = physics::sync_ms(ground.fleet.home())?;
    put(&mut found, "sync_p50_ms", sync_p50);
    put(&mut found, "sync_p99_ms", sync_p99);
    tell(&format!(
        "the disk: a sync of 4 KiB p50 {sync_p50} ms, p99 {sync_p99} ms"
    ));
    if settings.wants("engine") {
        log_engine::compare(settings, ground.fleet.home(), &mut found).await?;
    }
    if settings.wants("footprint") {
        footprint::compare(settings.entities, &ground, &etcd, &mut found).await?;
    }
    through_the_api(settings, &ground, &etcd, &mut found).await?;
    if settings.wants("core") {
        ground.fleet.settled().await?;
        // Until the end: the supervisor would start the controller that this program plays.
        let hold = ground.fleet.kill_and_hold(&[OWN]).await?;
        let disk = Arc::new(Counted::default());
        let running = lead(&ground.fleet, &disk).await?;
        let measured = core(
            settings,
            (&ground.fleet, &running),
            &disk,
            &etcd,
            &mut found,
        )
        .await;
        running.stop().await;
        drop(hold);
        measured?;
    }
    report::write("etcd.json", found)
}

/// Writes, reads and watchers over the public API.
async fn through_the_api(
    settings: &Settings,
    ground: &Ground,
    etcd: &Etcd,
    found: &mut Found,
) -> Result<()> {
    let most = WRITERS.into_iter().max().unwrap_or_default();
    let ids: Arc<[String]> = tenants(ground, most).await?.into();
    let first = ids.first().context("there is no tenant")?;
    if settings.wants("public") {
        for writers in WRITERS {
            let ids = Arc::clone(&ids);
            let make: Make = Arc::new(move |number: u64| {
                let place = usize::try_from(number % writers).unwrap_or_default();
                rename(&ids[place % ids.len()], &name(number))
            });
            let ratio = rounds(settings, ground, etcd, (Verb::Put, writers), make, found).await?;
            put(found, format!("public_ratio_{writers}"), ratio);
        }
    }
    // The key that is read must be there.
    etcd.fan_out(1, 1, true).await?;
    if settings.wants("reads") {
        for readers in WRITERS {
            let path = format!("/api/v1/tenants/{first}");
            let make: Make = Arc::new(move |_| Ask::get(&path));
            let ratio = rounds(settings, ground, etcd, (Verb::Read, readers), make, found).await?;
            put(found, format!("reads_ratio_{readers}"), ratio);
            if readers == READERS {
                put(found, "reads_ratio", ratio);
            }
        }
    }
    if settings.wants("watch") {
        fan_out(settings, ground, etcd, first, found).await?;
    }
    Ok(())
}

/// Both in turn; the median of the rounds' ratios.
async fn rounds(
    settings: &Settings,
    ground: &Ground,
    etcd: &Etcd,
    (verb, clients): (Verb, u64),
    make: Make,
    found: &mut Found,
) -> Result<f64> {
    let kind = if verb == Verb::Put { "public" } else { "reads" };
    let mut total = first_total(settings, etcd, verb, clients).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..settings.rounds {
        for turn in [number % 2, (number + 1) % 2] {
            if turn == 0 {
                let round = Round {
                    connections: clients,
                    over: settings.over(),
                    every: None,
                };
                let samples = drive_whole(&ground.targets, round, Arc::clone(&make)).await?;
                ours.push(of_samples(&samples));
            } else {
                let told = etcd.drive(verb, clients, total).await?;
                total = total_of(&told, settings.seconds);
                theirs.push(told);
            }
        }
    }
    Ok(note(found, kind, clients, (&ours, &theirs)))
}

/// Values proposed in process by a controller that leads, and its syncs.
async fn core(
    settings: &Settings,
    (fleet, running): (&Fleet, &Running),
    disk: &Counted,
    etcd: &Etcd,
    found: &mut Found,
) -> Result<()> {
    let value = "x".repeat(usize::try_from(VALUE_BYTES)?);
    let command = Command::NoteAccess {
        action: "bench.noted".into(),
        tenant: None,
        detail: value,
    };
    let mut sync_ms = Vec::new();
    for writers in WRITERS {
        let mut total = first_total(settings, etcd, Verb::Put, writers).await?;
        let (mut ours, mut theirs, mut syncs_per_ack) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..settings.rounds {
            for turn in [number % 2, (number + 1) % 2] {
                if turn == 0 {
                    if !running.node.is_leader() {
                        tell(
                            "the benchmark's controller leads no more; the others are stopped in turn again",
                        );
                        seat(fleet, running).await?;
                    }
                    if writers == 1 {
                        sync_ms.push(physics::sync_ms(etcd.home())?.0);
                    }
                    let before = disk.syncs();
                    let samples =
                        propose(&running.node, writers, settings.over(), &command).await?;
                    let syncs = u32::try_from(disk.syncs() - before)?;
                    let answers = u32::try_from(samples.len().max(1))?;
                    syncs_per_ack.push(f64::from(syncs) / f64::from(answers));
                    ours.push(of_samples(&samples));
                } else {
                    let told = etcd.drive(Verb::Put, writers, total).await?;
                    total = total_of(&told, settings.seconds);
                    theirs.push(told);
                }
            }
        }
        let ratio = note(found, "core", writers, (&ours, &theirs));
        put(found, format!("core_ratio_{writers}"), ratio);
        let per_ack = median(syncs_per_ack);
        put(found, format!("core_{writers}_syncs_per_ack"), per_ack);
        tell(&format!(
            "of these, syncs of the leader per acknowledgement: {per_ack:.3}"
        ));
    }
    let alone = found["core_1_p50_ms"].as_f64().unwrap_or_default();
    let sync = median(sync_ms);
    put(found, "core_1_sync_p50_ms", sync);
    put(found, "core_1_over_sync", alone / sync.max(f64::EPSILON));
    Ok(())
}

/// One change to many watchers, against etcd with a connection a watcher, as our streams have, and with all watchers of a
/// member on one connection, which etcd is best at and by which the ratio goes.
async fn fan_out(
    settings: &Settings,
    ground: &Ground,
    etcd: &Etcd,
    tenant: &str,
    found: &mut Found,
) -> Result<()> {
    let (watchers, changes) = (settings.watchers, settings.changes);
    let (mut ratios, mut to_separate) = (Vec::new(), Vec::new());
    let mut whole = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..settings.rounds {
        let mut medians = [0.0; 3];
        for turn in (0..3).map(|place| (place + number) % 3) {
            let heard = match turn {
                0 => watch::fan_out(ground, tenant, watchers, changes).await?,
                1 => etcd.fan_out(watchers, changes, true).await?,
                _ => etcd.fan_out(watchers, changes, false).await?,
            };
            let turn = usize::try_from(turn)?;
            medians[turn] = median(heard.whole_ms.iter().copied());
            whole[turn].extend(heard.whole_ms);
        }
        ratios.push(medians[1] / medians[0]);
        to_separate.push(medians[2] / medians[0]);
    }
    let names = ["watch", "etcd_watch_shared", "etcd_watch_separate"];
    for (name, millis) in names.into_iter().zip(&whole) {
        report::put_ms(found, &format!("{name}_request_to_last"), millis);
    }
    put_spread(found, "watch_ratio", &ratios);
    put(found, "watch_ratio_to_separate", median(to_separate));
    tell(&format!(
        "{watchers} watchers, request to the last: p50 {:.1} ms, etcd {:.1} ms on shared connections",
        median(whole[0].iter().copied()),
        median(whole[1].iter().copied())
    ));
    Ok(())
}

/// Tenants to write to: those that are there, or new ones.
async fn tenants(ground: &Ground, count: u64) -> Result<Vec<String>> {
    let path = format!("/api/v1/tenants?limit={count}");
    let listed = |body: &[u8]| -> Result<Vec<String>> {
        let page: Value = serde_json::from_slice(body)?;
        let items = page["items"].as_array().context("no items")?.iter();
        let ids = items.map(|item| item["id"].as_str().map(str::to_owned));
        ids.collect::<Option<_>>().context("a tenant without an id")
    };
    let have = listed(&ground.body(&Ask::get(&path)).await?)?;
    for number in u64::try_from(have.len())?..count {
        ground.body(&create(number)).await?;
    }
    listed(&ground.body(&Ask::get(&path)).await?)
}

/// Makes a tenant.
fn create(number: u64) -> Ask {
    post("/api/v1/tenants", &json!({"tenant_name": name(number)}))
}

/// A name with which the body of a change has 512 bytes: 16 letters of one byte and 239 of two.
fn name(number: u64) -> String {
    format!("bench {number:010}{}", "é".repeat(239))
}

async fn first_total(settings: &Settings, etcd: &Etcd, verb: Verb, clients: u64) -> Result<u64> {
    let told = etcd
        .drive(verb, clients, FIRST_TOTAL * clients.min(16))
        .await?;
    Ok(total_of(&told, settings.seconds))
}

/// As many requests as should take this long.
fn total_of(told: &Told, seconds: u64) -> u64 {
    let a_second = Duration::try_from_secs_f64(told.per_second).unwrap_or_default();
    a_second.as_secs().max(100).saturating_mul(seconds)
}

fn of_samples(samples: &Samples) -> Told {
    Told {
        per_second: samples.rate(),
        p50_ms: samples.percentile(50),
        p99_ms: samples.percentile(99),
    }
}

/// Notes the figures of both, and gives the median of the rounds' ratios.
fn note(found: &mut Found, kind: &str, clients: u64, (ours, theirs): (&[Told], &[Told])) -> f64 {
    for (prefix, told) in [("", ours), ("etcd_", theirs)] {
        let name = format!("{prefix}{kind}_{clients}");
        let rates: Vec<f64> = told.iter().map(|one| one.per_second).collect();
        put_spread(found, &format!("{name}_per_second"), &rates);
        let p50 = median(told.iter().map(|one| one.p50_ms));
        let p99 = median(told.iter().map(|one| one.p99_ms));
        put(found, format!("{name}_p50_ms"), p50);
        put(found, format!("{name}_p99_ms"), p99);
        let rate = median(rates);
        tell(&format!(
            "{name}: {rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms"
        ));
    }
    let ratios = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours.per_second / theirs.per_second);
    let ratio = median(ratios);
    tell(&format!("{kind}, {clients} at once: {ratio:.2} of etcd"));
    ratio
}

#[cfg(test)]
mod tests {
    use super::create;

    #[test]
    fn a_change_sends_512_bytes() {
        assert_eq!(create(7).body.len(), 512);
        assert_eq!(create(19_999).body.len(), 512);
    }
}
