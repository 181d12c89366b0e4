//! `make bench-api`: show, list of 100 and create against a bare axum handler on the same machine in the same run, the
//! order of the two alternating; medians of several rounds.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use dotmac_tests::api::DEPLOYMENTS;
use serde_json::{Map, Value, json};

use crate::{
    bare::Bare,
    drive::{Make, Round, drive_whole},
    etcd::Etcd,
    ground::{Ground, create, list},
    physics,
    report::{self, write},
    samples::{Samples, median, percentile, rounded},
    tell,
    watch::{self, Heard},
    wire::{Ask, Target},
};

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Rounds of each measurement; more creates than tenants there may be (20,000) are refused
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Seconds of each round
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Connections of the rounds that find out how many requests a second there can be
    #[arg(long, default_value_t = 32)]
    connections: u64,
    /// Deployments in the State before anything is measured
    #[arg(long, default_value_t = 300)]
    deployments: u64,
    /// Watchers of one change
    #[arg(long, default_value_t = 1000)]
    watchers: u64,
    /// Changes that are watched in each round
    #[arg(long, default_value_t = 40)]
    changes: u64,
    /// Only these: show, list100, create, watch
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// One operation, of ours and of the peer.
struct Operation {
    name: &'static str,
    ours: Make,
    bare: Make,
}

/// Measures all of it.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    let ground = Ground::start("bench-api").await?;
    ground.fill("Filler", settings.deployments).await?;
    let ids = ground.ids(1).await?;
    let id = ids.first().context("there is no deployment")?;
    let show = Ask::get(format!("{DEPLOYMENTS}/{id}"));
    let bodies = tempfile::tempdir()?;
    let prepared = |name: &str| bodies.path().join(name);
    fs::write(prepared("show"), ground.body(&show).await?)?;
    fs::write(prepared("list"), ground.body(&list(100)).await?)?;
    let bare = Bare::start(&prepared("show"), &prepared("list")).await?;
    let peers = [Target::open(bare.address)];
    found.insert("rounds".into(), json!(settings.rounds));
    found.insert("connections".into(), json!(settings.connections));
    physics(&ground, &mut found)?;
    let created = Arc::new(AtomicU64::new(0));
    let operations = [
        Operation {
            name: "show",
            ours: Arc::new(move |_| show.clone()),
            bare: Arc::new(|_| Ask::get("/show")),
        },
        Operation {
            name: "list100",
            ours: Arc::new(|_| list(100)),
            bare: Arc::new(|_| Ask::get("/list")),
        },
        Operation {
            name: "create",
            ours: Arc::new(move |_| create("Bench", created.fetch_add(1, Ordering::Relaxed))),
            bare: Arc::new(|number| Ask {
                path: "/create".into(),
                ..create("Bench", number)
            }),
        },
    ];
    ground.warm_up(id).await?;
    let is_wanted =
        |name: &str| settings.only.is_empty() || settings.only.iter().any(|one| one == name);
    for operation in operations.iter().filter(|one| is_wanted(one.name)) {
        compare(settings, &ground, &peers, operation, &mut found).await?;
    }
    if is_wanted("watch") {
        fan_out(settings, &ground, &mut found).await?;
    }
    limits(&mut found);
    write("api.json", found)
}

/// Measures one operation at full load, and with one caller alone.
async fn compare(
    settings: &Settings,
    ground: &Ground,
    bare: &[Target],
    operation: &Operation,
    found: &mut Map<String, Value>,
) -> Result<()> {
    let name = operation.name;
    for (kind, connections) in [("", settings.connections), ("_one", 1)] {
        let round = Round {
            connections,
            over: Duration::from_secs(settings.seconds),
            every: None,
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for number in 0..settings.rounds {
            // Whoever comes second must not always be the same.
            for turn in [number % 2, (number + 1) % 2] {
                if turn == 0 {
                    ours.push(
                        drive_whole(&ground.targets, round, Arc::clone(&operation.ours)).await?,
                    );
                } else {
                    theirs.push(drive_whole(bare, round, Arc::clone(&operation.bare)).await?);
                }
            }
        }
        let ratio = median(
            ours.iter()
                .zip(&theirs)
                .map(|(ours, bare)| ours.rate() / bare.rate()),
        );
        note(found, &format!("{name}{kind}"), &ours);
        note(found, &format!("axum_{name}{kind}"), &theirs);
        found.insert(format!("{name}{kind}_ratio_to_axum"), json!(rounded(ratio)));
        let value = |key: &str| found[key].as_f64().unwrap_or_default();
        tell(&format!(
            "{name}, {connections} connections: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; bare axum {:.0}/s, p50 {:.2} ms; ratio {ratio:.3}",
            value(&format!("{name}{kind}_rps")),
            value(&format!("{name}{kind}_p50_ms")),
            value(&format!("{name}{kind}_p99_ms")),
            value(&format!("axum_{name}{kind}_rps")),
            value(&format!("axum_{name}{kind}_p50_ms")),
        ));
    }
    Ok(())
}

/// Measures how long it takes until the last of many watchers has heard of a change, against etcd: with a connection a
/// watcher as our streams have, and with all watchers of a member on one connection, which etcd is best at.
async fn fan_out(
    settings: &Settings,
    ground: &Ground,
    found: &mut Map<String, Value>,
) -> Result<()> {
    let tenants: Value =
        serde_json::from_slice(&ground.body(&Ask::get("/api/v1/tenants?limit=1")).await?)?;
    let tenant = tenants["items"][0]["id"]
        .as_str()
        .context("there is no tenant")?;
    let etcd = Etcd::start().await?;
    let (watchers, changes) = (settings.watchers, settings.changes);
    let name = format!("watch_{watchers}");
    let (mut ours, mut theirs, mut shared) = (Heard::default(), Heard::default(), Heard::default());
    for number in 0..settings.rounds {
        // Whoever comes second must not always be the same.
        for turn in (0..3).map(|place| (place + number) % 3) {
            match turn {
                0 => ours.join(watch::fan_out(ground, tenant, watchers, changes).await?),
                1 => theirs.join(etcd.fan_out(watchers, changes, false).await?),
                _ => shared.join(etcd.fan_out(watchers, changes, true).await?),
            }
        }
    }
    let mut put = |key: String, value: f64| {
        found.insert(key, json!(rounded(value)));
    };
    for (prefix, heard) in [("", &ours), ("etcd_", &theirs), ("etcd_shared_", &shared)] {
        for (kind, values) in [
            ("", &heard.last_ms),
            ("_write", &heard.write_ms),
            ("_whole", &heard.whole_ms),
        ] {
            put(
                format!("{prefix}{name}{kind}_p50_ms"),
                median(values.iter().copied()),
            );
            put(
                format!("{prefix}{name}{kind}_p99_ms"),
                percentile(values.iter().copied(), 99),
            );
        }
    }
    let p50 = |heard: &Heard| median(heard.last_ms.iter().copied());
    put("watch_ratio".into(), p50(&theirs) / p50(&ours));
    put("watch_ratio_to_shared".into(), p50(&shared) / p50(&ours));
    tell(&format!(
        "{watchers} watchers, acknowledgement to the last: p50 {:.1} ms; etcd {:.1} ms, on shared connections {:.1} ms",
        p50(&ours),
        p50(&theirs),
        p50(&shared)
    ));
    Ok(())
}

/// Medians of rounds.
fn note(found: &mut Map<String, Value>, name: &str, rounds: &[Samples]) {
    let mut put = |key: &str, value: f64| {
        found.insert(format!("{name}_{key}"), json!(rounded(value)));
    };
    put("rps", median(rounds.iter().map(Samples::rate)));
    put(
        "p50_ms",
        median(rounds.iter().map(|round| round.percentile(50))),
    );
    put(
        "p99_ms",
        median(rounds.iter().map(|round| round.percentile(99))),
    );
}

/// What the machine itself needs.
fn physics(ground: &Ground, found: &mut Map<String, Value>) -> Result<()> {
    let (p50, p99) = physics::sync_ms(ground.fleet.home())?;
    let (sign, check) = physics::signature_ms();
    for (key, value) in [
        ("sync_p50_ms", p50),
        ("sync_p99_ms", p99),
        ("sign_ms", sign),
        ("check_ms", check),
    ] {
        found.insert(key.into(), json!(value));
    }
    tell(&format!(
        "the machine: a sync of 4 KiB p50 {p50} ms, p99 {p99} ms; a signature {sign} ms, checking one {check} ms"
    ));
    Ok(())
}

/// How far one create alone is from what it cannot be below: the request itself and two more round trips (a second
/// controller's attestation, a majority's disk), one sync, two signatures.
fn limits(found: &mut Map<String, Value>) {
    let value = |key: &str| found.get(key).and_then(Value::as_f64).unwrap_or_default();
    let round_trip = value("axum_show_one_p50_ms");
    let limit = value("axum_create_one_p50_ms")
        + 2.0 * round_trip
        + value("sync_p50_ms")
        + 2.0 * value("sign_ms");
    let over = value("create_one_p50_ms") / limit.max(f64::EPSILON);
    found.insert("create_limit_ms".into(), json!(rounded(limit)));
    found.insert("create_one_over_limit".into(), json!(rounded(over)));
}
