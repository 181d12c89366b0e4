//! What is known anyway and only asked for when the metrics are rendered: units, licences, outbox, link, clock.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use dotmac_protocol::{license::Phase, record::HealthStatus};
use dotmac_runtime::metrics::{Samples, Value};
use tokio::sync::watch;

use super::catalogue as all;
use crate::{
    license_time::LicenseTime, link::Link, reconcile::Statuses, traces::Traces, unit::Order,
};

/// Where the figures of a running agent come from.
#[allow(missing_debug_implementations, reason = "it reaches secrets")]
pub struct Figures {
    /// How units are.
    pub statuses: watch::Receiver<Arc<Statuses>>,
    /// The link, and with it orders and records.
    pub link: Arc<Link>,
    /// The time by which licences count.
    pub license_time: LicenseTime,
    /// The spans.
    pub traces: Traces,
}

impl Figures {
    pub(super) fn sample(&self, samples: &mut Samples<'_>) {
        self.of_link(samples);
        self.of_records(samples);
        self.of_units(samples);
        samples.put_spans(self.traces.spans().counts());
    }

    fn of_link(&self, samples: &mut Samples<'_>) {
        samples.put(&all::CONNECTED, self.link.is_connected());
        let now = self.link.now();
        if let Some(signed) = self.link.intake().signed_time() {
            let age_ms = now.millis_since(signed);
            samples.put(&all::SIGNED_CLOCK_AGE_SECONDS, seconds(age_ms));
        }
        if let Some(ends) = self.link.certificate_ends() {
            let left_ms = ends.millis_since(now);
            samples.put(&all::CERTIFICATE_REMAINING_SECONDS, seconds(left_ms));
            let life_ms = ends.millis_since(self.link.certificate_obtained());
            samples.put(&all::CERTIFICATE_LIFETIME_SECONDS, seconds(life_ms));
        }
    }

    fn of_records(&self, samples: &mut Samples<'_>) {
        let (first, last) = self.link.chain().outbox();
        let waiting = if first == 0 { 0 } else { last - first + 1 };
        let (bytes, limit) = self.link.chain().outbox_bytes();
        samples.put(&all::TAKES_WORK, self.link.chain().has_room());
        samples.put(&all::OUTBOX_RECORDS, waiting);
        samples.put(&all::OUTBOX_BYTES, bytes);
        samples.put(&all::OUTBOX_LIMIT_BYTES, limit);
        samples.put(&all::RECORDS, *self.link.chain().watch().borrow());
    }

    fn of_units(&self, samples: &mut Samples<'_>) {
        let words = [
            "unknown", "starting", "healthy", "degraded", "failed", "stopped",
        ];
        let mut healths: BTreeMap<&'static str, u64> = words.map(|word| (word, 0)).into();
        let mut phases: BTreeMap<&'static str, u64> =
            Phase::ALL.map(|phase| (phase.as_str(), 0)).into();
        let statuses = self.statuses.borrow().clone();
        let now = self.license_time.now();
        let desired = self.link.intake().desired().borrow().clone();
        for (unit, wanted) in desired.iter() {
            let Order::Keep(instance) = &wanted.order else {
                continue;
            };
            let known = statuses.get(unit).map(|status| status.health);
            let health = known.unwrap_or(HealthStatus::Unknown).as_str();
            *healths.entry(health).or_default() += 1;
            let phase = instance.license.phase(now).as_str();
            *phases.entry(phase).or_default() += 1;
        }
        samples.put_all(&all::UNITS, by_word(healths));
        samples.put_all(&all::LICENSES, by_word(phases));
    }
}

fn by_word(
    counts: BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = ([Cow<'static, str>; 1], Value)> {
    counts
        .into_iter()
        .map(|(word, count)| ([word.into()], Value::Whole(count)))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ages in milliseconds are exact for 285,000 years"
)]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
