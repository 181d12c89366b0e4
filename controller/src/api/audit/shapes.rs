//! What the audit's answers look like.

use serde_json::Value;

use crate::api::schema;

/// All of them.
pub(in crate::api) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("AuditEntry", entry()),
        ("AuditLink", link()),
        ("AuditStream", stream()),
    ]
}

fn entry() -> Value {
    schema::object(
        &[
            ("stream", schema::stream()),
            ("sequence", schema::count()),
            ("at", schema::time()),
            ("actor", schema::any_text()),
            ("action", schema::any_text()),
            ("tenant", schema::or_null(schema::tenant_id())),
            ("unit", schema::text_or_null()),
            ("request", schema::text_or_null()),
            ("detail", schema::any_text()),
            ("digest", schema::digest()),
        ],
        &[],
    )
}

fn link() -> Value {
    let hex = || schema::pattern("^([0-9a-f]{2})*$");
    let signature = schema::object(&[("key", schema::any_text()), ("value", hex())], &[]);
    schema::object(
        &[
            ("sequence", schema::count()),
            ("body", hex()),
            ("signature", schema::or_null(signature)),
            ("previous", schema::digest()),
            ("digest", schema::digest()),
        ],
        &[],
    )
}

fn stream() -> Value {
    schema::object(
        &[
            ("stream", schema::stream()),
            ("sequence", schema::count()),
            ("digest", schema::digest()),
            ("key", schema::or_null(schema::pattern("^[0-9a-f]{64}$"))),
            ("dropped", schema::count()),
            ("dropped_digest", schema::digest()),
        ],
        &[],
    )
}
