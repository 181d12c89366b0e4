//! Deployments on real agents: every station of their way is traced, on controllers and agents. A collector that lacks one
//! of them fails the run, for then something else was measured.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use dotmac_tests::{
    api::DEPLOYMENTS,
    fleet::{ACTIVE_WITHIN, AGENTS},
    wait::until,
};
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    Settings,
    sink::{Seen, Sink},
};
use crate::{
    deploy::{self, Made},
    ground::Ground,
    report::{Found, put_spread},
    samples::{median, percentile},
    tell,
    wire::Ask,
};

/// The spans that every deployment leaves on its way.
const STATIONS: [&str; 12] = [
    "POST /api/v1/tenant-orchestration/deployments",
    "controller.attest",
    "controller.vouch",
    "raft.propose",
    "raft.commit",
    "wave.seal",
    "wave.sign",
    "order.dispatch",
    "order.accept",
    "order.apply",
    "driver.start",
    "probe.healthy",
];
/// How long the last spans may take to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(15);

/// One way to trace, its fleet, and what each round found.
struct Way {
    name: &'static str,
    ground: Arc<Ground>,
    made: usize,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    per_second: Vec<f64>,
}

/// Measures all ways in turn.
pub(super) async fn measure(settings: &Settings, found: &mut Found) -> Result<()> {
    let sink = Sink::start().await?;
    // Bound and never accepted: connections succeed, and no answer comes.
    let hung = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let away = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        listener.local_addr()?
    };
    let mut ways = Vec::new();
    for (name, endpoint) in [
        ("off", None),
        ("exported", Some(sink.address)),
        ("away", Some(away)),
        ("hung", Some(hung.local_addr()?)),
    ] {
        ways.push(Way::start(name, endpoint).await?);
    }
    let mut order: Vec<usize> = (0..ways.len()).collect();
    for number in 0..settings.rounds {
        let mut made = Vec::new();
        for place in &order {
            made.push((*place, ways[*place].round(settings, number).await?));
        }
        // Agents have room for so many, and what runs takes part of the machine.
        for (place, made) in &made {
            ways[*place].delete(made).await?;
        }
        for (place, made) in &made {
            ways[*place].destroyed(made).await?;
        }
        // Whoever comes first must not always be the same.
        order.rotate_left(1);
    }
    for way in &ways {
        way.note(found);
    }
    let exported = ways.iter().find(|way| way.name == "exported");
    let seen = whole(&sink, exported.context("no traces were exported")?.made).await?;
    found.insert("exports".into(), json!(seen.exports));
    found.insert("exported_bytes".into(), json!(seen.bytes));
    found.insert("exported_spans".into(), json!(seen.spans));
    Ok(())
}

/// Waits until the collector has every station of every deployment.
async fn whole(sink: &Sink, made: usize) -> Result<Seen> {
    until("every station is exported", ARRIVE_WITHIN, async || {
        let seen = sink.seen().await?;
        for station in STATIONS {
            let count = seen.spans.get(station).copied().unwrap_or_default();
            ensure!(
                count >= made as u64,
                "the collector has {count} spans {station} of {made} deployments"
            );
        }
        Ok(Some(seen))
    })
    .await
}

impl Way {
    async fn start(name: &'static str, endpoint: Option<SocketAddr>) -> Result<Self> {
        let home = format!("bench-tracing-{name}");
        let ground = Ground::start_traced(&home, endpoint).await?;
        // The first one of each agent finds nothing in any cache.
        for region in AGENTS {
            ground
                .fleet
                .deploy(&format!("First {region}"), region)
                .await?;
        }
        Ok(Self {
            name,
            ground: Arc::new(ground),
            made: AGENTS.len(),
            p50_ms: Vec::new(),
            p99_ms: Vec::new(),
            per_second: Vec::new(),
        })
    }

    async fn round(&mut self, settings: &Settings, number: u32) -> Result<Vec<Made>> {
        let (name, count) = (format!("Round {number}"), settings.deployments);
        let made = deploy::phase(&self.ground, &name, count, settings.at_once).await?;
        let took = || made.iter().map(|one| one.took_ms);
        let first = made.iter().map(|one| one.asked).min();
        let last = made.iter().map(|one| one.active).max();
        let (first, last) = first.zip(last).context("nothing was deployed")?;
        let rate = f64::from(u32::try_from(count)?) / last.duration_since(first).as_secs_f64();
        self.made += count;
        self.p50_ms.push(median(took()));
        self.p99_ms.push(percentile(took(), 99));
        self.per_second.push(rate);
        Ok(made)
    }

    async fn delete(&self, made: &[Made]) -> Result<()> {
        for one in made {
            let ask = Ask {
                method: Method::DELETE,
                path: format!("{DEPLOYMENTS}/{}", one.id),
                body: Bytes::new(),
                expected: StatusCode::ACCEPTED,
                bearer: None,
            };
            self.ground.body(&ask).await?;
        }
        Ok(())
    }

    async fn destroyed(&self, made: &[Made]) -> Result<()> {
        for one in made {
            let fleet = &self.ground.fleet;
            fleet
                .until_status(&one.id, "destroyed", ACTIVE_WITHIN)
                .await?;
        }
        Ok(())
    }

    fn note(&self, found: &mut Found) {
        let name = self.name;
        for (what, rounds) in [
            ("active_p50_ms", &self.p50_ms),
            ("active_p99_ms", &self.p99_ms),
            ("active_per_second", &self.per_second),
        ] {
            put_spread(found, &format!("{name}_{what}"), rounds);
        }
        let (least, most) = (
            percentile(self.p50_ms.iter().copied(), 0),
            percentile(self.p50_ms.iter().copied(), 100),
        );
        tell(&format!(
            "{name}: request to active p50 {:.0} ms ({least:.0} to {most:.0}), p99 {:.0} ms, {:.1} a second",
            median(self.p50_ms.iter().copied()),
            median(self.p99_ms.iter().copied()),
            median(self.per_second.iter().copied()),
        ));
    }
}
