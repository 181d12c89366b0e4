//! Licences and what instances report, with the values that break things.

use dotmac_domain::{Command, command::UpdateLicense};
use dotmac_protocol::{
    record::reports::{Claim, InstanceEvent, PluginUsage, ProbeMinute, Report, Usage},
    time::Timestamp,
};
use proptest::prelude::*;

use super::strategies::{deployment, number, small, text};

pub(super) fn command() -> impl Strategy<Value = Command> {
    let some = |of: BoxedStrategy<u32>| proptest::option::of(of);
    let numbers = (
        some(small().boxed()),
        some(small().boxed()),
        some(small().boxed()),
    );
    let end = proptest::option::of(proptest::option::of(number().prop_map(Timestamp)));
    let grace = proptest::option::of(number());
    let tier = proptest::option::of(text());
    let update = (deployment(), tier, numbers, end, grace).prop_map(
        |(deployment, license_tier, numbers, expires_at, grace_ms)| {
            Command::UpdateLicense(Box::new(UpdateLicense {
                deployment,
                license_tier,
                max_subscribers: numbers.0,
                max_services: numbers.1,
                api_rate_limit: numbers.2,
                expires_at,
                grace_ms,
            }))
        },
    );
    let reason = || (deployment(), text());
    prop_oneof![
        3 => update,
        1 => reason().prop_map(|(deployment, reason)| Command::SuspendLicense { deployment, reason }),
        1 => reason().prop_map(|(deployment, reason)| Command::RevokeLicense { deployment, reason }),
        1 => deployment().prop_map(|deployment| Command::ReinstateLicense { deployment }),
    ]
}

pub(super) fn report() -> impl Strategy<Value = Report> {
    let word = || proptest::option::of(text());
    let usage = (number(), number(), word(), word()).prop_map(
        |(at, count, revenue_today, outstanding_invoices)| {
            Report::Usage(Box::new(Usage {
                reported_at: Timestamp(at),
                active_subscribers: count,
                total_subscribers: count,
                new_subscribers_today: count,
                churned_subscribers_today: count,
                active_sessions: count,
                sessions_today: count,
                data_usage_kb: count,
                active_nas_devices: count,
                active_olts: count,
                active_onts: count,
                revenue_today,
                outstanding_invoices,
            }))
        },
    );
    let minute = (number(), any::<u32>(), any::<u32>(), number()).prop_map(
        |(minute, probes, failed, latency_sum_ms)| {
            Report::Minute(ProbeMinute {
                minute: Timestamp(minute),
                component: "web".parse().unwrap(),
                probes,
                failed,
                latency_sum_ms,
                latency_max_ms: failed,
            })
        },
    );
    prop_oneof![
        usage,
        minute,
        (number(), text(), text(), text()).prop_map(|(at, event_id, event_type, payload)| {
            Report::Event(InstanceEvent {
                event_id,
                event_type,
                occurred_at: Timestamp(at),
                payload,
            })
        }),
        (number(), text(), any::<u32>()).prop_map(|(at, status, usage)| {
            Report::Claim(Box::new(Claim {
                reported_at: Timestamp(at),
                status: status.clone(),
                api_status: status,
                radius_status: String::new(),
                database_status: String::new(),
                redis_status: String::new(),
                cpu_usage_basis_points: usage,
                memory_usage_basis_points: usage,
                disk_usage_basis_points: usage,
                app_version: String::new(),
                config_version: String::new(),
            }))
        }),
        (number(), text(), text()).prop_map(|(at, plugin_id, metric_name)| {
            Report::Plugin(PluginUsage {
                plugin_id,
                metric_name,
                usage_count: at,
                timestamp: Timestamp(at),
            })
        }),
    ]
}
