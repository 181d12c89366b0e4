//! What instances report and what is measured of them, on its way into the agent's signed chain: gathered into batches,
//! durable before anybody is told, and counted once.
//!
//! ```text
//!   submit -> queue of the unit -> one record of many reports -> chain (synced) -> file of the unit -> answer
//!   probes -> minutes --------------------^
//! ```
//! It refuses what there is no room for, with a reason to come again, and never drops what it took. Probe minutes are
//! the exception: they are left out first.

mod allowance;
mod files;
mod memory;
mod minutes;
mod queue;
#[cfg(test)]
pub(crate) mod tests;
mod unit;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_protocol::{
    ids::{TenantId, UnitId},
    record::{
        Event,
        reports::{Claim, ProbeMinute, REPORTS_BYTES_MAX, Report},
    },
    time::Timestamp,
};
use dotmac_runtime::clock::Clock;
use thiserror::Error;
use tokio::sync::watch;

use self::{
    allowance::Allowance,
    files::{Remembered, file_of},
    memory::DAY_MS,
    queue::{MINUTE_BYTES, Waiting, bytes_of, chunks},
    unit::Unit,
};
pub use self::{
    files::ReportFiles,
    minutes::{Counter, Tally, UnitTally},
};
use crate::{
    chain::{AppendError, Chain},
    license_time::LicenseTime,
    unit::{About, Desired},
};

/// What an instance claims of its health is recorded again after this time, though nothing changed.
const CLAIM_EVERY_MS: u64 = 10 * 60_000;
/// How often minutes are looked for that no report took along.
const FLUSH_EVERY: Duration = Duration::from_secs(15);
/// How long a minute waits for a report that takes it along, in milliseconds.
const MINUTE_WAITS_MS: u64 = 30_000;

/// Why a report was not taken. It may be sent again.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The unit reported more than it may. There is enough allowance after so many seconds.
    #[error("the instance reports too much at once")]
    Often { wait_s: u64 },
    /// Too much waits for the controllers' acknowledgement, or too many sums of one day have to be kept.
    #[error("too many reports wait for the controllers")]
    Full,
    /// Too much waits for the disk.
    #[error("too many reports at once")]
    Busy,
    /// The disk fails.
    #[error("the report cannot be written down")]
    Failed,
}

/// The reports of all units.
#[allow(
    missing_debug_implementations,
    reason = "its chain holds the signing key"
)]
pub struct Reports {
    chain: Arc<Chain>,
    time: LicenseTime,
    clock: Clock,
    per_second: NonZeroU32,
    tally: Tally,
    directory: PathBuf,
    incarnation: String,
    units: Mutex<BTreeMap<UnitId, Arc<Unit>>>,
}

/// Of which unit the reports are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Of {
    /// Whose unit.
    pub tenant: TenantId,
    /// Which unit.
    pub unit: UnitId,
}

impl Reports {
    /// Goes on from what the files remember. A unit may make `per_second` reports, and after a pause those of 200 s at
    /// once.
    #[must_use]
    pub fn new(
        files: ReportFiles,
        chain: Arc<Chain>,
        time: LicenseTime,
        clock: Clock,
        per_second: NonZeroU32,
    ) -> Self {
        let new = |kept| Unit::new(kept, Allowance::new(per_second, &clock));
        let units = files.units.into_iter();
        let units = units.map(|(unit, kept)| (unit, new(kept))).collect();
        Self {
            chain,
            time,
            clock,
            per_second,
            tally: Tally::default(),
            directory: files.directory,
            incarnation: files.incarnation,
            units: Mutex::new(units),
        }
    }

    /// Where probes are counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Takes reports: when this returns well they are on disk, or were before. While `is_frozen` the highest number
    /// of subscribers does not rise.
    ///
    /// # Errors
    /// When they were not all taken; those that were are known again.
    pub async fn submit(
        self: &Arc<Self>,
        of: &Of,
        is_frozen: bool,
        reports: Vec<Report>,
    ) -> Result<(), Refusal> {
        let unit = self.unit(&of.unit);
        let fresh = unit.fresh(reports).ok_or(Refusal::Failed)?;
        if fresh.is_empty() {
            return Ok(());
        }
        if !unit
            .remembered(|kept| kept.memory.has_room(&fresh))
            .unwrap_or(false)
        {
            return Err(Refusal::Full);
        }
        let charged = unit.allowance.charge(fresh.len(), &self.clock);
        charged.map_err(|wait_s| Refusal::Often { wait_s })?;
        let mut answers = Vec::new();
        let waiting = chunks(fresh, is_frozen, &mut answers);
        self.enqueue(of, &unit, waiting)?;
        for answer in answers {
            // Whoever would have answered is gone: so is what it had to write.
            answer.await.unwrap_or(Err(Refusal::Failed))?;
        }
        Ok(())
    }

    /// Takes what an instance claims of its health, when it is news or was not recorded for a while.
    ///
    /// # Errors
    /// As [`Reports::submit`].
    pub async fn claim(self: &Arc<Self>, of: &Of, claim: Claim) -> Result<(), Refusal> {
        let unit = self.unit(&of.unit);
        let now = self.clock.now();
        let is_known = unit.claimed().as_ref().is_some_and(|(before, at)| {
            says_the_same(before, &claim) && now.distance_millis(*at) < CLAIM_EVERY_MS
        });
        if is_known {
            return Ok(());
        }
        let report = Report::Claim(Box::new(claim.clone()));
        self.submit(of, false, vec![report]).await?;
        *unit.claimed() = Some((claim, now));
        Ok(())
    }

    /// The subscribers that a unit reported last.
    #[must_use]
    pub fn active(&self, unit: &UnitId) -> Option<u64> {
        self.known(unit, |kept| kept.memory.active())
    }

    /// The most subscribers that a unit reported while its licence let them grow; without any such report, its first
    /// one at all.
    #[must_use]
    pub fn highest_active(&self, unit: &UnitId) -> Option<u64> {
        self.known(unit, |kept| kept.memory.highest_active())
    }

    /// How often a plugin was used from one day to another, both included and any time of them, by metric.
    #[must_use]
    pub fn plugin_usage(
        &self,
        unit: &UnitId,
        plugin: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> BTreeMap<String, u64> {
        let (from, to) = (from.0 / DAY_MS, to.0 / DAY_MS);
        self.known(unit, |kept| Some(kept.memory.sums(plugin, from, to)))
            .unwrap_or_default()
    }

    /// Forgets a unit that was removed.
    pub fn forget(&self, unit: &UnitId) {
        let gone = self.units().remove(unit);
        if let Some(kept) = gone.and_then(|unit| unit.end()) {
            kept.remove();
        }
        self.tally.take(unit, Timestamp(u64::MAX), |_| true);
    }

    /// Records the minutes that no report takes along, for ever.
    pub async fn keep_flushing(self: Arc<Self>, desired: watch::Receiver<Arc<Desired>>) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush(&desired).await;
        }
    }

    async fn flush(self: &Arc<Self>, desired: &watch::Receiver<Arc<Desired>>) {
        for unit in self.tally.waiting(self.clock.now(), MINUTE_WAITS_MS) {
            let tenant = desired
                .borrow()
                .get(&unit)
                .map(|wanted| wanted.tenant.clone());
            let Some(tenant) = tenant else {
                self.tally.take(&unit, Timestamp(u64::MAX), |_| true);
                continue;
            };
            let (waiting, answer) = Waiting::empty();
            let of = Of { tenant, unit };
            let queued = self.enqueue(&of, &self.unit(&of.unit), vec![waiting]);
            if queued.is_ok() && matches!(answer.await, Ok(Err(Refusal::Failed))) {
                tracing::warn!(unit = %of.unit, "minutes of probes were not written down");
            }
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        of: &Of,
        unit: &Arc<Unit>,
        waiting: Vec<Waiting>,
    ) -> Result<(), Refusal> {
        if unit.queue.push(waiting)? {
            let (reports, of, unit) = (Arc::clone(self), of.clone(), Arc::clone(unit));
            tokio::task::spawn_blocking(move || reports.write_all(&of, &unit));
        }
        Ok(())
    }

    /// Writes until nothing waits. One at a time per unit; units share the chain's sync.
    fn write_all(&self, of: &Of, unit: &Unit) {
        let mut turn = unit.queue.turn();
        while let Some(group) = turn.next() {
            let result = self.write(of, unit, &group);
            for waiting in group {
                // Who gave up meanwhile asks again and finds it known.
                let _ = waiting.done.send(result);
            }
        }
    }

    fn write(&self, of: &Of, unit: &Unit, group: &[Waiting]) -> Result<(), Refusal> {
        let reports = group
            .iter()
            .flat_map(|waiting| waiting.reports.iter().cloned());
        let mut reports = unit.fresh(reports.collect()).ok_or(Refusal::Failed)?;
        let mut left = REPORTS_BYTES_MAX.saturating_sub(reports.iter().map(bytes_of).sum());
        if self.chain.has_room_for_minutes(&of.unit) {
            let fits = |minute: &ProbeMinute| {
                let bytes = MINUTE_BYTES + minute.component.as_str().len();
                let fits = bytes <= left;
                left = left.saturating_sub(bytes);
                fits
            };
            let minutes = self.tally.take(&of.unit, self.clock.now(), fits);
            reports.extend(minutes.into_iter().map(Report::Minute));
        }
        if reports.is_empty() {
            return Ok(());
        }
        let about = About {
            tenant: Some(of.tenant.clone()),
            unit: Some(of.unit.clone()),
            ..About::default()
        };
        let appended = self.chain.append(&about, Event::Reports(reports.clone()));
        let sequence = appended.map_err(|error| {
            tracing::warn!(unit = %of.unit, %error, "reports are not in the record chain");
            match error {
                AppendError::Full { .. } => Refusal::Full,
                AppendError::TooLarge(_) | AppendError::Write(_) | AppendError::Failed(_) => {
                    Refusal::Failed
                }
            }
        })?;
        let is_frozen = group.iter().any(|waiting| waiting.is_frozen);
        let now = self.time.now();
        unit.remembered(|kept| {
            kept.take(|memory| memory.take(sequence, now, is_frozen, &reports));
        });
        Ok(())
    }

    fn unit(&self, unit: &UnitId) -> Arc<Unit> {
        let mut units = self.units();
        let known = units.entry(unit.clone()).or_insert_with(|| {
            let file = file_of(&self.directory, unit);
            let allowance = Allowance::new(self.per_second, &self.clock);
            Unit::new(Remembered::new(file, &self.incarnation), allowance)
        });
        Arc::clone(known)
    }

    fn known<T>(&self, unit: &UnitId, look: impl FnOnce(&Remembered) -> Option<T>) -> Option<T> {
        let unit = Arc::clone(self.units().get(unit)?);
        unit.remembered(|kept| look(kept)).flatten()
    }

    fn units(&self) -> MutexGuard<'_, BTreeMap<UnitId, Arc<Unit>>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing changed that anybody would want to know at once: measured percentages always change.
fn says_the_same(before: &Claim, now: &Claim) -> bool {
    let words = |claim: &Claim| Claim {
        reported_at: Timestamp(0),
        cpu_usage_basis_points: 0,
        memory_usage_basis_points: 0,
        disk_usage_basis_points: 0,
        ..claim.clone()
    };
    words(before) == words(now)
}
