//! A burst: changes asked for over many connections at once, and when a watcher heard that the agent of each has its order
//! on disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::supervise;
use dotmac_tests::{deployment, watch::Watch};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    ground::Ground,
    report::{Found, put_ms},
    samples::{median, percentile},
    tell,
    wire::{Ask, Wire},
};

/// How long all acknowledgements of one burst may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the State says of an order that its agent has on disk.
const HELD: &str = "its agent has the order";

/// One change of one unit.
pub(super) struct Change {
    /// When it was asked for.
    pub(super) asked: Instant,
    /// When its answer came.
    pub(super) answered: Instant,
    /// When a watcher heard of it.
    pub(super) heard: Instant,
    /// When a watcher heard that its agent has the order on disk.
    pub(super) held: Instant,
    /// The deployment.
    pub(super) id: String,
    /// Whose it is.
    pub(super) tenant: String,
    /// The generation that it made.
    pub(super) generation: u64,
}

/// What was asked for and answered.
struct Answered {
    asked: Instant,
    answered: Instant,
    id: String,
    tenant: String,
    generation: u64,
}

/// What a watcher heard of a deployment's newest generation.
#[derive(Debug, Clone, Copy)]
struct Heard {
    generation: u64,
    first: Instant,
    held: Option<Instant>,
}

impl Change {
    /// The earliest moment at which it was seen to be committed: by its answer, or by a watcher, who may be told before.
    fn committed(&self) -> Instant {
        self.answered.min(self.heard)
    }
}

/// Asks for all of them at once over so many connections, and waits until the agent of each has its order on disk.
///
/// # Errors
/// When one is not accepted, or not acknowledged in time.
pub(super) async fn burst(
    writers: usize,
    ground: &Arc<Ground>,
    asks: Vec<Ask>,
) -> Result<Vec<Change>> {
    let mut watched = Watch::open(&ground.fleet.api()?, "types=deployment").await?;
    watched.until(|event| event.kind == "synced").await?;
    let (telling, heard) = watch::channel(BTreeMap::new());
    let listener = supervise::spawn("bench watcher", listen(watched, telling));
    let answered = ask(writers, ground, asks).await?;
    let is_held = |heard: &BTreeMap<String, Heard>, one: &Answered| {
        let of = heard.get(&one.id);
        of.is_some_and(|of| of.generation >= one.generation && of.held.is_some())
    };
    let mut news = heard.clone();
    let whole = news.wait_for(|heard| {
        heard.len() >= answered.len() && answered.iter().all(|one| is_held(heard, one))
    });
    let seen = match timeout(PATIENCE, whole).await {
        Ok(seen) => seen.context("the watcher ended")?.clone(),
        Err(_) => {
            let heard = heard.borrow();
            let missing = answered.iter().filter(|one| !is_held(&heard, one));
            let (missing, all) = (missing.count(), answered.len());
            bail!("{missing} of {all} orders are not acknowledged in time")
        }
    };
    listener.abort();
    let changes = answered.into_iter().map(|one| {
        let of = seen[&one.id];
        Change {
            asked: one.asked,
            answered: one.answered,
            heard: of.first,
            held: of.held.expect("all of them were waited for"),
            id: one.id,
            tenant: one.tenant,
            generation: one.generation,
        }
    });
    Ok(changes.collect())
}

/// Notes what bursts found.
pub(super) fn note(name: &str, bursts: &[Vec<Change>], found: &mut Found) -> Result<()> {
    let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1000.0;
    let all = || bursts.iter().flatten();
    let each: Vec<f64> = all().map(|one| ms(one.committed(), one.held)).collect();
    let early = all().filter(|one| one.held < one.answered).count();
    let unseen = all().filter(|one| one.held == one.committed()).count();
    let (mut committing, mut last, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for burst in bursts {
        let asked = burst.iter().map(|one| one.asked).min();
        let committed = burst.iter().map(Change::committed).max();
        let held = burst.iter().map(|one| one.held).max();
        let asked = asked.context("an empty burst")?;
        let (committed, held) = committed.zip(held).context("an empty burst")?;
        committing.push(ms(asked, committed));
        last.push(ms(committed, held));
        whole.push(ms(asked, held));
    }
    put_ms(found, &format!("{name}_commit_to_acknowledged"), &each);
    put_ms(found, &format!("{name}_committing"), &committing);
    let key = format!("{name}_last_commit_to_last_acknowledged");
    put_ms(found, &key, &last);
    put_ms(found, &format!("{name}_whole"), &whole);
    // Told to the watcher before the answer; and of these, those that it heard of only then, which count as 0 ms.
    found.insert(format!("{name}_acks_before_answer"), early.into());
    found.insert(format!("{name}_acks_of_zero"), unseen.into());
    tell(&format!(
        "{name}: commit to acknowledgement of each p50 {:.0} ms, p99 {:.0} ms ({early} of {} were acknowledged before the \
         answer); last commit to last acknowledgement {:.0} ms, {:.0} ms from the first request",
        median(each.iter().copied()),
        percentile(each.iter().copied(), 99),
        each.len(),
        median(last.iter().copied()),
        median(whole.iter().copied()),
    ));
    Ok(())
}

/// Asks for all of them, each connection for one after the other.
async fn ask(writers: usize, ground: &Arc<Ground>, asks: Vec<Ask>) -> Result<Vec<Answered>> {
    let share = asks.len().div_ceil(writers.max(1)).max(1);
    let mut wires = Vec::new();
    for (number, asks) in asks.chunks(share).enumerate() {
        let target = &ground.targets[number % ground.targets.len()];
        let wire = Wire::open(target, u64::try_from(number)?).await?;
        wires.push((wire, asks.to_vec()));
    }
    let writers = wires.into_iter().map(|(mut wire, asks)| {
        supervise::spawn("bench writer", async move {
            let mut answered = Vec::new();
            for ask in asks {
                answered.push(ask_one(&mut wire, &ask).await?);
            }
            anyhow::Ok(answered)
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await??);
    }
    Ok(all)
}

async fn ask_one(wire: &mut Wire, ask: &Ask) -> Result<Answered> {
    let asked = Instant::now();
    let (status, body) = wire.ask(ask).await?;
    let answered = Instant::now();
    let text = String::from_utf8_lossy(&body);
    ensure!(
        status == ask.expected,
        "{} {}: {status}: {text}",
        ask.method,
        ask.path
    );
    let shown: Value = serde_json::from_str(&text)?;
    Ok(Answered {
        asked,
        answered,
        id: deployment::id(&shown)?,
        tenant: deployment::text(&shown, "tenant_id").to_owned(),
        generation: shown["generation"].as_u64().context("no generation")?,
    })
}

/// Notes when it first hears of a generation, and that the agent has its order on disk, until it is aborted.
async fn listen(mut watched: Watch, telling: watch::Sender<BTreeMap<String, Heard>>) -> Result<()> {
    while let Some(event) = watched.next().await? {
        let at = Instant::now();
        let Some(generation) = event.data["generation"].as_u64() else {
            continue;
        };
        let is_observed = event.data["observed_generation"].as_u64() == Some(generation);
        let is_held = is_observed || deployment::waiting(&event.data).starts_with(HELD);
        let id = deployment::text(&event.data, "id");
        telling.send_if_modified(|heard| {
            let known = heard.get(id).copied();
            let known = known.filter(|known| known.generation >= generation);
            let new = Heard {
                generation,
                first: known.map_or(at, |known| known.first),
                held: known.and_then(|known| known.held).or(is_held.then_some(at)),
            };
            heard.insert(id.to_owned(), new);
            known.is_none_or(|known| known.held.is_none()) && is_held
        });
    }
    Ok(())
}
