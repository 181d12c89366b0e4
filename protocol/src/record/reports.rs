//! What an instance reports, and what its agent measures of it, in batches ([`super::Event::Reports`]). Whoever makes
//! these has bounded every text; what an instance claims of itself is marked as a claim.

use serde::{Deserialize, Serialize};

use crate::{ids::PartName, time::Timestamp};

/// Bytes of an event's payload at most; a longer one is left out and marked.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024;
/// Bytes of any other text at most.
pub const WORD_BYTES_MAX: usize = 128;
/// Bytes of the encoded reports of one record, about, at most: so that the record stays within its own limit.
pub const REPORTS_BYTES_MAX: usize = 12 * 1024;

/// What can happen in an instance: the types of [`InstanceEvent`] that the contract knows.
pub const EVENT_TYPES: [&str; 25] = [
    "subscriber.created",
    "subscriber.activated",
    "subscriber.suspended",
    "subscriber.terminated",
    "subscriber.upgraded",
    "subscriber.downgraded",
    "subscriber.updated",
    "payment.received",
    "payment.failed",
    "invoice.created",
    "invoice.overdue",
    "invoice.paid",
    "ticket.created",
    "ticket.escalated",
    "ticket.resolved",
    "nas.online",
    "nas.offline",
    "olt.alarm",
    "ont.alarm",
    "ont.provisioned",
    "ont.deprovisioned",
    "session.started",
    "session.ended",
    "session.terminated",
    "session.coa_sent",
];

/// One thing that an instance reported or that was measured of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// What it uses, by its own count.
    Usage(Box<Usage>),
    /// Something happened in it.
    Event(InstanceEvent),
    /// What it claims of its own health; probes decide, never this.
    Claim(Box<Claim>),
    /// One minute of the agent's own probes.
    Minute(ProbeMinute),
    /// How often a plugin was used, by the instance's own count.
    Plugin(PluginUsage),
}

/// An instance's own count of what it uses; identified by `reported_at` within its deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// When it counted, by its clock.
    pub reported_at: Timestamp,
    /// Subscribers with an active service.
    pub active_subscribers: u64,
    /// All subscribers.
    pub total_subscribers: u64,
    /// New ones today.
    pub new_subscribers_today: u64,
    /// Lost ones today.
    pub churned_subscribers_today: u64,
    /// Sessions open now.
    pub active_sessions: u64,
    /// Sessions begun today.
    pub sessions_today: u64,
    /// Data moved, in kilobytes (thousandths of the megabytes that are reported).
    pub data_usage_kb: u64,
    /// Network access servers that answer.
    pub active_nas_devices: u64,
    /// Optical line terminals that answer.
    pub active_olts: u64,
    /// Optical network terminals that answer.
    pub active_onts: u64,
    /// Money taken today, as a decimal number in the tenant's currency.
    pub revenue_today: Option<String>,
    /// What is invoiced and not paid, as a decimal number.
    pub outstanding_invoices: Option<String>,
}

/// Something that happened in an instance; identified by `event_id` within its deployment for 7 days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEvent {
    /// The instance's name for it.
    pub event_id: String,
    /// Such as `subscriber.created`.
    pub event_type: String,
    /// When, by its clock.
    pub occurred_at: Timestamp,
    /// JSON, with secret-looking members masked; empty when it was larger than [`PAYLOAD_BYTES_MAX`].
    pub payload: String,
}

/// What an instance says of its own health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// When, by its clock.
    pub reported_at: Timestamp,
    /// The whole.
    pub status: String,
    /// Its API.
    pub api_status: String,
    /// Its RADIUS server.
    pub radius_status: String,
    /// Its database.
    pub database_status: String,
    /// Its Redis.
    pub redis_status: String,
    /// Hundredths of a percent.
    pub cpu_usage_basis_points: u32,
    /// Hundredths of a percent.
    pub memory_usage_basis_points: u32,
    /// Hundredths of a percent.
    pub disk_usage_basis_points: u32,
    /// The version that it says it is.
    pub app_version: String,
    /// The configuration that it says it has.
    pub config_version: String,
}

/// What the agent's probes of one component found in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeMinute {
    /// The first moment of the minute.
    pub minute: Timestamp,
    /// Which component.
    pub component: PartName,
    /// Answers waited for.
    pub probes: u32,
    /// Those that were not given, or not in time, or said that it is not well.
    pub failed: u32,
    /// Milliseconds that all answers took together.
    pub latency_sum_ms: u64,
    /// Milliseconds of the slowest answer.
    pub latency_max_ms: u32,
}

/// How often a plugin was used; identified by plugin, metric and time within its deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginUsage {
    /// Which plugin.
    pub plugin_id: String,
    /// Such as `api_calls`.
    pub metric_name: String,
    /// How often.
    pub usage_count: u64,
    /// When it was counted, by the instance's clock.
    pub timestamp: Timestamp,
}
