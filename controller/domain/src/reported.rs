//! What an instance said of itself and what its agent's probes found, in short; every report is in the ledger
//! ([`Stream::Usage`], [`Stream::Events`], [`Stream::Minutes`]) and, signed, in the agent's own chain.
//!
//! Bounded (law 11): one deployment keeps its last usage, its last claim, [`MONTHS_MAX`] months, [`MINUTES_MAX`]
//! minutes and [`TRANSITIONS_MAX`] changes of health; the oldest go first. A report that exceeds its own bounds does not count, and is counted as ignored.
//! Reports count once (law 8): an agent's chain brings each of its records once, and a usage with the time of the one
//! before is that one again. What an instance claims changes no status: probes do.

use std::collections::BTreeMap;

use dotmac_protocol::{
    ids::{DeploymentId, Generation},
    license::Phase,
    record::{
        Health, HealthStatus, Record,
        reports::{
            Claim, InstanceEvent, PAYLOAD_BYTES_MAX, PluginUsage, ProbeMinute, Report, Usage,
            WORD_BYTES_MAX,
        },
    },
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    audit::{Facts, Stream},
    calendar::Month,
    state::State,
    tenancy::Deployment,
};

/// Months whose highest number of subscribers is kept; the oldest goes first.
pub const MONTHS_MAX: usize = 13;
/// Changes of health that are kept; the oldest goes first.
pub const TRANSITIONS_MAX: usize = 20;
/// Characters that are kept of why health changed; the whole reason is in the audit.
const TRANSITION_CHARS_MAX: usize = 200;
/// Minutes that are kept; the oldest goes first.
pub const MINUTES_MAX: usize = 60;
/// One minute in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// What was reported of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reported {
    /// What it uses, by its own last count.
    pub usage: Option<Received<Usage>>,
    /// The most active subscribers of each month.
    pub peaks: BTreeMap<Month, u64>,
    /// What it claims of its own health.
    pub claim: Option<Received<Claim>>,
    /// Counts of its usage.
    pub usages: Tally,
    /// What happened in it.
    pub events: Tally,
    /// Counts of its plugins' usage.
    pub plugins: Tally,
    /// Its newest minutes, oldest first, all components together.
    pub minutes: Vec<MinuteSum>,
    /// Reports that exceeded their bounds and did not count.
    pub ignored: u64,
    /// The most active subscribers that were counted while the licence let them grow; without any such count, the first one
    /// at all. Restricted, no more are served.
    pub highest_active: Option<u64>,
    /// How its health changed, oldest first.
    pub transitions: Vec<Transition>,
}

/// Another health than the one before, by its agent's probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When it came here by the State's clock.
    pub at: Timestamp,
    /// How it is from then on.
    pub status: HealthStatus,
    /// Why it is not healthy; its first 200 characters.
    pub reason: String,
    /// Of which generation.
    pub generation: Generation,
}

/// Something, and when it came here by the State's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received<T> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub report: T,
}

/// How many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// When the last one came, by the State's clock.
    pub last_at: Option<Timestamp>,
}

/// What the probes of all components found in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteSum {
    /// The first moment of the minute.
    pub minute: Timestamp,
    /// Answers waited for.
    pub probes: u32,
    /// Those that were not given, or not in time, or said that it is not well.
    pub failed: u32,
    /// Milliseconds that all answers took together.
    pub latency_sum_ms: u64,
    /// Milliseconds of the slowest answer.
    pub latency_max_ms: u32,
}

/// What the probes found in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Availability {
    /// Minutes in which there were probes.
    pub minutes: usize,
    /// Answers waited for.
    pub probes: u64,
    /// Those that were missing or not well.
    pub failed: u64,
    /// Those that were well, in hundredths of a percent, rounded down.
    pub basis_points: u16,
    /// Milliseconds of an answer on average, rounded down.
    pub latency_mean_ms: u64,
    /// Milliseconds of the slowest answer.
    pub latency_max_ms: u32,
}

impl Reported {
    /// What the probes found in the 60 minutes before `now`; `None` if there were none.
    #[must_use]
    pub fn availability(&self, now: Timestamp) -> Option<Availability> {
        let oldest = now.0.saturating_sub(MINUTE_MS * MINUTES_MAX as u64);
        let recent = self.minutes.iter().filter(|one| one.minute.0 >= oldest);
        let mut sum = Availability {
            minutes: 0,
            probes: 0,
            failed: 0,
            basis_points: 0,
            latency_mean_ms: 0,
            latency_max_ms: 0,
        };
        let mut latency_ms: u64 = 0;
        for one in recent {
            sum.minutes += 1;
            sum.probes += u64::from(one.probes);
            sum.failed += u64::from(one.failed);
            latency_ms = latency_ms.saturating_add(one.latency_sum_ms);
            sum.latency_max_ms = sum.latency_max_ms.max(one.latency_max_ms);
        }
        let well = sum.probes.saturating_sub(sum.failed);
        let share = (well * 10_000).checked_div(sum.probes)?;
        sum.basis_points = u16::try_from(share).unwrap_or(10_000);
        sum.latency_mean_ms = latency_ms / sum.probes;
        Some(sum)
    }

    /// What of it is shown with the deployment and changes what that looks like, but for the times.
    fn looks(&self) -> (Option<u64>, Option<&str>) {
        let usage = self.usage.as_ref();
        let claim = self.claim.as_ref();
        (
            usage.map(|usage| usage.report.active_subscribers),
            claim.map(|claim| claim.report.status.as_str()),
        )
    }

    fn take_usage(&mut self, usage: &Usage, is_frozen: bool, now: Timestamp) -> bool {
        let last = self.usage.as_ref().map(|last| last.report.reported_at);
        if last == Some(usage.reported_at) {
            return false;
        }
        // A clock that runs ahead opens no month that has not begun.
        let month = Month::of(usage.reported_at.min(now));
        let peak = self.peaks.entry(month).or_default();
        *peak = (*peak).max(usage.active_subscribers);
        if self.peaks.len() > MONTHS_MAX {
            self.peaks.pop_first();
        }
        self.usages.add(now);
        let rises = !is_frozen && self.highest_active < Some(usage.active_subscribers);
        if self.highest_active.is_none() || rises {
            self.highest_active = Some(usage.active_subscribers);
        }
        // What was kept back and comes late is history; only a count from a clock that ran ahead gives way to it.
        if last.is_none_or(|last| last < usage.reported_at || last > now) {
            self.usage = Some(Received {
                at: now,
                report: usage.clone(),
            });
        }
        true
    }

    /// Adds a minute of one component to those that are kept. One that is yet to come is in the ledger alone: it would
    /// stay the newest for long.
    fn take_minute(&mut self, probe: &ProbeMinute, now: Timestamp) {
        let minute = Timestamp(probe.minute.0 / MINUTE_MS * MINUTE_MS);
        if minute > now {
            return;
        }
        let place = self.minutes.binary_search_by_key(&minute, |one| one.minute);
        let place = place.unwrap_or_else(|place| {
            let sum = MinuteSum {
                minute,
                probes: 0,
                failed: 0,
                latency_sum_ms: 0,
                latency_max_ms: 0,
            };
            self.minutes.insert(place, sum);
            place
        });
        let sum = &mut self.minutes[place];
        sum.probes = sum.probes.saturating_add(probe.probes);
        sum.failed = sum.failed.saturating_add(probe.failed).min(sum.probes);
        sum.latency_sum_ms = sum.latency_sum_ms.saturating_add(probe.latency_sum_ms);
        sum.latency_max_ms = sum.latency_max_ms.max(probe.latency_max_ms);
        if self.minutes.len() > MINUTES_MAX {
            self.minutes.remove(0);
        }
    }
}

impl Tally {
    fn add(&mut self, now: Timestamp) {
        self.count = self.count.saturating_add(1);
        self.last_at = Some(now);
    }
}

impl State {
    /// Lets what an agent reports of its own unit count; whose it is was looked up, never read in the report.
    pub(crate) fn take_reports(
        &mut self,
        id: &DeploymentId,
        (record, reports): (&Record, &[Report]),
        now: Timestamp,
        facts: &mut Facts,
    ) {
        let before = self.reported.get(id).cloned().unwrap_or_default();
        let mut after = before.clone();
        let license = self.deployments.get(id).map(|one| &one.license);
        let is_frozen = license.is_some_and(|license| license.phase(now) == Phase::Restricted);
        for report in reports {
            let Some(stream) = after.take(id, report, is_frozen, now) else {
                continue;
            };
            self.append_report(stream, (record, report.clone()), now, facts);
        }
        if after.looks() != before.looks() {
            self.deployments.note(id);
        }
        self.reported.insert_mut(id.clone(), after);
    }

    /// Keeps that a deployment's health is another one now.
    pub(crate) fn note_transition(&mut self, id: &DeploymentId, health: &Health, now: Timestamp) {
        let mut after = self.reported.get(id).cloned().unwrap_or_default();
        let last = after.transitions.last();
        let is_same = last.is_some_and(|last| {
            (last.status, last.generation) == (health.status, health.generation)
        });
        if is_same {
            return;
        }
        after.transitions.push(Transition {
            at: now,
            status: health.status,
            reason: health.reason.chars().take(TRANSITION_CHARS_MAX).collect(),
            generation: health.generation,
        });
        if after.transitions.len() > TRANSITIONS_MAX {
            after.transitions.remove(0);
        }
        self.reported.insert_mut(id.clone(), after);
    }

    /// Subscribers that a deployment is served at most right now.
    #[must_use]
    pub fn subscribers_of(&self, id: &DeploymentId, one: &Deployment) -> u64 {
        let reached = self.reported.get(id).and_then(|one| one.highest_active);
        one.license
            .subscribers(one.license.phase(self.now), reached)
    }
}

impl Reported {
    /// Lets one report count, and says which series it belongs to.
    fn take(
        &mut self,
        id: &DeploymentId,
        report: &Report,
        is_frozen: bool,
        now: Timestamp,
    ) -> Option<Stream> {
        if !is_bounded(report) {
            self.ignored = self.ignored.saturating_add(1);
            return None;
        }
        let id = id.clone();
        match report {
            Report::Usage(usage) => {
                let is_new = self.take_usage(usage, is_frozen, now);
                is_new.then_some(Stream::Usage(id))
            }
            Report::Plugin(_) => {
                self.plugins.add(now);
                Some(Stream::Usage(id))
            }
            Report::Event(_) => {
                self.events.add(now);
                Some(Stream::Events(id))
            }
            Report::Claim(claim) => {
                let report = Claim::clone(claim);
                self.claim = Some(Received { at: now, report });
                None
            }
            Report::Minute(minute) => {
                self.take_minute(minute, now);
                Some(Stream::Minutes(id))
            }
        }
    }
}

/// Whether a report keeps what its makers promise of it.
fn is_bounded(report: &Report) -> bool {
    let words = |words: &[&str]| words.iter().all(|word| word.len() <= WORD_BYTES_MAX);
    match report {
        Report::Usage(usage) => {
            let money = [&usage.revenue_today, &usage.outstanding_invoices];
            let money = money.map(|text| text.as_deref().unwrap_or_default());
            words(&money)
        }
        Report::Event(InstanceEvent {
            event_id,
            event_type,
            occurred_at: _,
            payload,
        }) => words(&[event_id, event_type]) && payload.len() <= PAYLOAD_BYTES_MAX,
        Report::Claim(claim) => words(&[
            &claim.status,
            &claim.api_status,
            &claim.radius_status,
            &claim.database_status,
            &claim.redis_status,
            &claim.app_version,
            &claim.config_version,
        ]),
        Report::Minute(minute) => minute.failed <= minute.probes,
        Report::Plugin(PluginUsage {
            plugin_id,
            metric_name,
            usage_count: _,
            timestamp: _,
        }) => words(&[plugin_id, metric_name]),
    }
}
