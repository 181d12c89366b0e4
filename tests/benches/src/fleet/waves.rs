//! The waves of a burst: which orders were sealed together, and how long after the last change in it the last of its orders
//! was acknowledged.
//!
//! No request changes a thousand units, and the leader seals whatever was committed while it sealed the wave before: so a
//! burst makes many waves, and how many orders are in one is for the machine to say. Which they are, the audit tells. It
//! also tells when a change and a wave were handed to the log, which is before they were committed: so these figures are
//! somewhat too large, and never too small. Fleet and benchmark have one clock.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use dotmac_runtime::clock::Clock;
use dotmac_tests::deployment;
use serde_json::Value;
use tokio::time::Instant;

use super::burst::Change;
use crate::{
    ground::Ground,
    report::{Found, put, put_ms},
    samples::{median, percentile},
    tell,
    wire::{Ask, Wire},
};

/// Stories read at once.
const READERS: usize = 16;
/// Entries of a story that one burst adds at most, and more.
const ENTRIES_MAX: usize = 200;
/// What changes of a unit are called.
const CHANGES: [&str; 2] = ["deployment.created", "deployment.updated"];

/// Waves of bursts, as they are read.
pub(super) struct Waves {
    /// Milliseconds since 1970 of a moment, to compare the audit's times with.
    began: (Instant, f64),
    /// How far each tenant's story was read.
    read: BTreeMap<String, u64>,
}

/// What was found of bursts.
#[derive(Default)]
pub(super) struct Sealed {
    /// Of every order: from its change to its acknowledgement.
    each_ms: Vec<f64>,
    /// Of every wave: its orders.
    orders: Vec<f64>,
    /// Of every wave: from its last change to its last acknowledgement.
    changed_ms: Vec<f64>,
    /// Of every wave: from its sealing to its last acknowledgement.
    sealed_ms: Vec<f64>,
}

/// What the audit says of one order.
struct Order {
    wave: u64,
    changed_ms: f64,
    sealed_ms: f64,
    held_ms: f64,
}

impl Waves {
    /// From now on.
    pub(super) fn begin(clock: &Clock) -> Self {
        let nanos = clock.now_nanos();
        Self {
            began: (Instant::now(), ms_of(nanos / 1_000)),
            read: BTreeMap::new(),
        }
    }

    /// Adds the waves of a burst. Every burst has to be added, in order.
    ///
    /// # Errors
    /// When the audit lacks one of its orders.
    pub(super) async fn add(
        &mut self,
        ground: &Ground,
        burst: &[Change],
        sealed: &mut Sealed,
    ) -> Result<()> {
        // The watcher was that controller's: its ledger has all that was heard.
        let target = ground.targets.first().context("there is no controller")?;
        let share = burst.len().div_ceil(READERS).max(1);
        let read = &self.read;
        let readers = (0..).zip(burst.chunks(share));
        let readers = readers.map(|(number, changes)| async move {
            let mut wire = Wire::open(target, number).await?;
            let mut stories = Vec::new();
            for one in changes {
                let after = read.get(&one.tenant).copied().unwrap_or_default();
                stories.push(story(&mut wire, &one.tenant, after).await?);
            }
            anyhow::Ok(stories)
        });
        let stories = futures::future::try_join_all(readers).await?;
        let mut waves: BTreeMap<u64, Vec<Order>> = BTreeMap::new();
        for (one, story) in burst.iter().zip(stories.into_iter().flatten()) {
            let last = story.last().and_then(|entry| entry["sequence"].as_u64());
            self.read
                .extend(last.map(|last| (one.tenant.clone(), last)));
            let order = self
                .order(one, &story)
                .with_context(|| format!("{}, generation {}", one.id, one.generation))?;
            waves.entry(order.wave).or_default().push(order);
        }
        for orders in waves.values() {
            sealed.take(orders);
        }
        Ok(())
    }

    fn order(&self, change: &Change, story: &[Value]) -> Result<Order> {
        let action = |entry: &Value| deployment::text(entry, "action").to_owned();
        let mut changes = story
            .iter()
            .filter(|entry| CHANGES.contains(&action(entry).as_str()));
        let (changed, None) = (changes.next(), changes.next()) else {
            bail!("its story tells of more than one change");
        };
        let words = format!(" generation {} ", change.generation);
        // Sealed again, it went with the last wave.
        let sealed = story.iter().rfind(|entry| {
            action(entry) == "wave.sealed" && deployment::text(entry, "detail").contains(&words)
        });
        let sealed = sealed.context("its story tells of no wave")?;
        let wave = deployment::text(sealed, "detail").strip_prefix("wave ");
        let wave = wave.and_then(|text| text.split_once(':')?.0.parse().ok());
        let (began, began_ms) = self.began;
        let held = change.held.duration_since(began).as_secs_f64() * 1000.0;
        Ok(Order {
            wave: wave.context("its wave has no number")?,
            changed_ms: at_ms(changed.context("its story tells of no change")?)?,
            sealed_ms: at_ms(sealed)?,
            held_ms: began_ms + held,
        })
    }
}

impl Sealed {
    fn take(&mut self, orders: &[Order]) {
        let most = |of: fn(&Order) -> f64| orders.iter().map(of).fold(f64::MIN, f64::max);
        let held = most(|one| one.held_ms);
        self.orders
            .push(f64::from(u32::try_from(orders.len()).unwrap_or(u32::MAX)));
        self.changed_ms.push(held - most(|one| one.changed_ms));
        self.sealed_ms.push(held - most(|one| one.sealed_ms));
        let each = orders.iter().map(|one| one.held_ms - one.changed_ms);
        self.each_ms.extend(each);
    }

    /// Notes what was found.
    pub(super) fn note(&self, name: &str, found: &mut Found) {
        found.insert(format!("{name}_waves"), self.orders.len().into());
        let orders = |percent| percentile(self.orders.iter().copied(), percent);
        put(found, format!("{name}_wave_orders_p50"), orders(50));
        put(found, format!("{name}_wave_orders_max"), orders(100));
        let key = format!("{name}_proposed_to_acknowledged");
        put_ms(found, &key, &self.each_ms);
        let key = format!("{name}_wave_last_change_to_last_acknowledged");
        put_ms(found, &key, &self.changed_ms);
        let key = format!("{name}_wave_sealed_to_last_acknowledged");
        put_ms(found, &key, &self.sealed_ms);
        tell(&format!(
            "{name}: {} waves of {:.0} orders (at most {:.0}); last change to last acknowledgement of a wave p50 {:.0} ms, \
             p99 {:.0} ms",
            self.orders.len(),
            orders(50),
            orders(100),
            median(self.changed_ms.iter().copied()),
            percentile(self.changed_ms.iter().copied(), 99),
        ));
    }
}

/// What a tenant's story tells after this sequence.
async fn story(wire: &mut Wire, tenant: &str, after: u64) -> Result<Vec<Value>> {
    let path = format!("/api/v1/audit?tenant={tenant}&limit={ENTRIES_MAX}&after={after}");
    let ask = Ask::get(path);
    let (status, body) = wire.ask(&ask).await?;
    let text = String::from_utf8_lossy(&body);
    anyhow::ensure!(status == ask.expected, "{}: {status}: {text}", ask.path);
    let page: Value = serde_json::from_str(&text)?;
    Ok(page["items"].as_array().context("no items")?.clone())
}

/// The time of an entry, in milliseconds since 1970.
fn at_ms(entry: &Value) -> Result<f64> {
    let at: jiff::Timestamp = deployment::text(entry, "at").parse()?;
    Ok(ms_of(u64::try_from(at.as_microsecond())?))
}

/// Milliseconds of microseconds; these are far below 2^53, so that nothing is lost.
fn ms_of(micros: u64) -> f64 {
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    let part = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    part(seconds) * 1000.0 + part(rest) / 1000.0
}
