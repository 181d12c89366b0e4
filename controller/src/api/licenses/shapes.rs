//! What requests about licences and their answers look like.

use dotmac_domain::{tenancy::REASON_CHARS_MAX, tier};
use dotmac_protocol::license::Phase;
use serde_json::Value;

use super::GRACE_DAYS_MAX;
use crate::api::{deployments::choice, schema};

/// What `effective_max_subscribers` is.
pub(in crate::api) const EFFECTIVE: &str = "what the instance is served: max_subscribers, or while it is restricted no \
                                             more than it ever had while it might grow";

/// All of them.
pub(in crate::api) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("License", license()),
        ("LicenseUpdate", update()),
        ("LicenseOrder", order()),
    ]
}

fn update() -> Value {
    let end =
        "when it ends; null: never. Grace follows, then restriction: neither stops an instance";
    schema::body(
        &[],
        &[
            ("license_tier", choice(tier::LICENSE_TIERS)),
            ("max_subscribers", schema::whole(1, 1_000_000)),
            ("max_services", schema::whole(1, 100_000)),
            ("api_rate_limit", schema::whole(100, 1_000_000)),
            ("expires_at", schema::about(end, schema::moment())),
            ("grace_days", schema::whole(0, GRACE_DAYS_MAX)),
        ],
    )
}

fn order() -> Value {
    let reason = schema::about(
        "why, for the audit and for whoever asks",
        schema::line(REASON_CHARS_MAX),
    );
    schema::body(&[("reason", reason)], &[])
}

fn license() -> Value {
    let or_null = schema::or_null;
    schema::object(
        &[
            (
                "id",
                schema::about("its deployment's", schema::deployment_id()),
            ),
            ("tenant_id", schema::tenant_id()),
            ("tenant_name", schema::any_text()),
            ("environment", choice(tier::ENVIRONMENTS)),
            ("status", schema::one_of(&Phase::ALL.map(Phase::as_str))),
            ("license_tier", choice(tier::LICENSE_TIERS)),
            ("max_subscribers", schema::count()),
            (
                "effective_max_subscribers",
                schema::about(EFFECTIVE, schema::count()),
            ),
            ("max_services", schema::count()),
            (
                "api_rate_limit",
                schema::about("calls of its API a minute", schema::count()),
            ),
            ("expires_at", or_null(schema::time())),
            ("grace_days", schema::count()),
            (
                "restricted_at",
                schema::about("when its grace is over, too", or_null(schema::time())),
            ),
            (
                "active_subscribers",
                schema::about("by the instance's own last count", schema::count_or_null()),
            ),
            (
                "limit_used_percent",
                schema::about("of effective_max_subscribers", schema::count_or_null()),
            ),
            (
                "features",
                schema::about("what is granted now", schema::map_of(schema::flag())),
            ),
            (
                "reason",
                schema::about("why it is suspended or revoked", schema::text_or_null()),
            ),
            ("since", or_null(schema::time())),
            (
                "revision",
                schema::about(
                    "its deployment's; its `ETag` is \"r\" and this number",
                    schema::count(),
                ),
            ),
        ],
        &[],
    )
}
