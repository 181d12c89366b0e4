//! What answers about the controllers look like.

use serde_json::{Value, json};

use crate::api::schema;

/// All of them.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("ClusterStatus", status()),
        ("ClusterHealth", health()),
        ("ClusterRules", super::finalize::rules_schema()),
    ]
}

fn status() -> Value {
    let node = schema::object(
        &[
            ("id", schema::count()),
            ("address", schema::any_text()),
            ("link_address", schema::any_text()),
            (
                "state",
                schema::one_of(&["leader", "follower", "learner", "unreachable"]),
            ),
            (
                "standing",
                schema::one_of(&["learner", "joining", "voter", "leaving", "retired"]),
            ),
            ("incarnation", schema::any_text()),
            ("signs", schema::flag()),
            ("behind", schema::count_or_null()),
            ("pid", schema::count_or_null()),
            ("applied", schema::count_or_null()),
            ("state_digest", schema::text_or_null()),
            ("agents", schema::count_or_null()),
            ("signing", schema::flag()),
            ("refusals", schema::list(json!({}))),
            (
                "software",
                schema::about(
                    "Null: a program of before version 2, or away",
                    schema::text_or_null(),
                ),
            ),
            ("rules_supported", schema::count_or_null()),
            ("slow_disk", schema::text_or_null()),
        ],
        &[],
    );
    let unfinished = schema::object(
        &[
            ("controller", schema::count()),
            ("waits_for", schema::any_text()),
        ],
        &[],
    );
    schema::object(
        &[
            ("leader", schema::count_or_null()),
            ("term", schema::count_or_null()),
            ("nodes", schema::list(node)),
            ("answered_by", schema::count()),
            ("epoch", schema::count_or_null()),
            ("trust_version", schema::count_or_null()),
            ("rules", schema::of("ClusterRules")),
            (
                "rules_next",
                schema::about(
                    "What is between the cluster and newer rules",
                    schema::text_or_null(),
                ),
            ),
            ("unfinished", schema::or_null(unfinished)),
            ("backups", schema::of("BackupStatus")),
        ],
        &[],
    )
}

fn health() -> Value {
    let text = schema::any_text;
    let reason = schema::object(
        &[
            ("severity", schema::one_of(&["degraded", "unhealthy"])),
            ("about", text()),
            ("reason", text()),
            ("since", schema::time()),
            ("who", text()),
        ],
        &[],
    );
    let controller = schema::object(
        &[
            ("id", schema::count()),
            ("reachable", schema::flag()),
            ("signing", schema::flag()),
            ("takes_writes", schema::flag()),
            ("behind", schema::count_or_null()),
            ("clock_skew_ms", json!({"type": ["integer", "null"]})),
        ],
        &[],
    );
    let quorum = schema::object(
        &[
            ("controllers", schema::count()),
            ("reachable", schema::count()),
            ("needed", schema::count()),
        ],
        &[],
    );
    let waiting = schema::object(
        &[
            ("deployment", schema::deployment_id()),
            ("reason", text()),
            ("since", schema::time()),
            ("who", text()),
        ],
        &[],
    );
    schema::object(
        &[
            (
                "status",
                schema::one_of(&["healthy", "degraded", "unhealthy"]),
            ),
            ("reasons", schema::list(reason)),
            ("answered_by", schema::count()),
            ("checked_at", schema::time()),
            ("leader", schema::count_or_null()),
            ("term", schema::count_or_null()),
            ("quorum", quorum),
            (
                "signing",
                schema::object(
                    &[("able", schema::count()), ("needed", schema::count())],
                    &[],
                ),
            ),
            ("controllers", schema::list(controller)),
            ("agents", agents()),
            ("deployments", deployments()),
            ("oldest_waiting", schema::or_null(waiting)),
        ],
        &[],
    )
}

fn agents() -> Value {
    let region = schema::object(
        &[
            ("region", schema::region_id()),
            ("connected", schema::count()),
            ("total", schema::count()),
        ],
        &[],
    );
    let (connected, total) = (schema::count(), schema::count());
    schema::object(
        &[
            ("connected", connected),
            ("total", total),
            ("regions", schema::list(region)),
        ],
        &[],
    )
}

fn deployments() -> Value {
    schema::object(
        &[
            ("total", schema::count()),
            ("by_status", schema::map_of(schema::count())),
        ],
        &[],
    )
}
