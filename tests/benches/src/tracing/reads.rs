//! Shows of one deployment of which none, one in a hundred (the default) and all are traced. Every fleet's controllers are
//! restarted before, so that they differ in nothing else.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    api::DEPLOYMENTS,
    fleet::{CONTROLLERS, Fleet},
    openmetrics::Exposition,
    wait::until,
};
use serde_json::json;

use super::{Settings, sink::Sink};
use crate::{
    drive::{Make, Round, drive_whole},
    ground::Ground,
    report::{Found, put, put_spread},
    samples::{Samples, median, percentile},
    tell,
    wire::{Ask, Wire},
};

/// Of a thousand reads so many are traced, by the name of the way; without a number nothing is exported.
const WAYS: [(&str, Option<u16>); 3] = [("off", None), ("default", Some(10)), ("all", Some(1000))];
/// How long the last spans may take to be exported.
const EXPORT_WITHIN: Duration = Duration::from_secs(15);
/// Spans that may still wait then: looks at the metrics are traced, too.
const WAITING_MAX: f64 = 32.0;

/// One share of reads, and its fleet.
struct Way {
    name: &'static str,
    ground: Ground,
    per_thousand: Option<u16>,
    show: Make,
    rounds: Vec<Samples>,
    _sink: Option<Sink>,
}

/// Measures all ways in turn.
pub(super) async fn measure(settings: &Settings, found: &mut Found) -> Result<()> {
    let mut ways = Vec::new();
    for (name, per_thousand) in WAYS {
        ways.push(Way::start(name, per_thousand).await?);
    }
    let round = Round {
        connections: settings.connections,
        over: Duration::from_secs(settings.seconds),
        every: None,
    };
    let mut order: Vec<usize> = (0..ways.len()).collect();
    for _ in 0..settings.rounds {
        for place in &order {
            let way = &mut ways[*place];
            let targets = &way.ground.targets;
            let samples = drive_whole(targets, round, Arc::clone(&way.show)).await?;
            way.rounds.push(samples);
        }
        // Whoever comes first must not always be the same.
        order.rotate_left(1);
    }
    for way in &ways {
        way.note(found).await?;
    }
    Ok(())
}

/// What became of the controllers' spans since they started: exported, and dropped for want of room.
async fn spans(ground: &Ground) -> Result<(f64, f64)> {
    until("the spans are exported", EXPORT_WITHIN, async || {
        let (mut exported, mut dropped) = (0.0, 0.0);
        for target in &ground.targets {
            let (status, body) = Wire::open(target, 0)
                .await?
                .ask(&Ask::get("/metrics"))
                .await?;
            let text = String::from_utf8_lossy(&body);
            ensure!(status.is_success(), "metrics: {status}: {text}");
            let told = Exposition::read(&text)?;
            let value = |name: &str| {
                let value = told.value(name, &[]);
                value.with_context(|| format!("{name} is not told"))
            };
            let waiting = value("dotmac_telemetry_spans_waiting")?;
            ensure!(waiting <= WAITING_MAX, "{waiting} spans wait");
            exported += value("dotmac_telemetry_spans_exported_total")?;
            dropped += value("dotmac_telemetry_spans_dropped_total")?;
        }
        Ok(Some((exported, dropped)))
    })
    .await
}

/// Restarts the controllers one by one, with a configuration in which so many of a thousand reads are traced.
async fn restart(fleet: &Fleet, per_thousand: Option<u16>) -> Result<()> {
    for name in CONTROLLERS {
        if let Some(per_thousand) = per_thousand {
            let file = fleet.home().join(name).join("controller.toml");
            let text = fs::read_to_string(&file)?;
            let section = "[telemetry]\n";
            ensure!(
                text.contains(section),
                "{} has no {section}",
                file.display()
            );
            let sampled = format!("{section}reads_sampled_per_thousand = {per_thousand}\n");
            fs::write(&file, text.replace(section, &sampled))?;
        }
        let before = fleet.kill(name).await?;
        fleet.back(name, &before).await?;
        fleet.settled().await?;
    }
    fleet.agents_connected().await
}

impl Way {
    async fn start(name: &'static str, per_thousand: Option<u16>) -> Result<Self> {
        let sink = match per_thousand {
            Some(_) => Some(Sink::start().await?),
            None => None,
        };
        let endpoint = sink.as_ref().map(|sink| sink.address);
        let home = format!("bench-tracing-reads-{name}");
        let ground = Ground::start_traced(&home, endpoint).await?;
        ground.fill("Filler", 100).await?;
        restart(&ground.fleet, per_thousand).await?;
        let ids = ground.ids(1).await?;
        let id = ids.first().context("there is no deployment")?.clone();
        ground.warm_up(&id).await?;
        let show: Make = Arc::new(move |_| Ask::get(format!("{DEPLOYMENTS}/{id}")));
        Ok(Self {
            name,
            ground,
            per_thousand,
            show,
            rounds: Vec::new(),
            _sink: sink,
        })
    }

    async fn note(&self, found: &mut Found) -> Result<()> {
        let name = self.name;
        let each = |of: fn(&Samples) -> f64| -> Vec<f64> { self.rounds.iter().map(of).collect() };
        let rates = each(Samples::rate);
        let (p50, p99) = (
            each(|one| one.percentile(50)),
            each(|one| one.percentile(99)),
        );
        put_spread(found, &format!("{name}_show_per_second"), &rates);
        put_spread(found, &format!("{name}_show_p50_ms"), &p50);
        put_spread(found, &format!("{name}_show_p99_ms"), &p99);
        let shows: usize = self.rounds.iter().map(Samples::len).sum();
        found.insert(format!("{name}_shows"), json!(shows));
        let (exported, dropped) = spans(&self.ground).await?;
        put(found, format!("{name}_read_spans_exported"), exported);
        put(found, format!("{name}_read_spans_dropped"), dropped);
        let traced = exported + dropped + WAITING_MAX * 3.0;
        let is_all = self.per_thousand == Some(1000);
        ensure!(
            !is_all || traced >= f64::from(u32::try_from(shows)?),
            "{traced} spans of {shows} shows that are all traced"
        );
        ensure!(
            (exported > 0.0) == self.per_thousand.is_some(),
            "{name}: {exported} spans are exported"
        );
        tell(&format!(
            "{name}: {:.0} shows a second ({:.0} to {:.0}), p50 {:.2} ms, p99 {:.2} ms; {exported:.0} spans exported, \
             {dropped:.0} dropped",
            median(rates.iter().copied()),
            percentile(rates.iter().copied(), 0),
            percentile(rates.iter().copied(), 100),
            median(p50),
            median(p99),
        ));
        Ok(())
    }
}
