//! What requests about releases and their answers look like. A manifest's schema is the published one.

use serde_json::{Map, Value};

use crate::api::schema;

/// All of them.
pub(in crate::api) fn schemas() -> Vec<(String, Value)> {
    let mut all = vec![
        ("Release".to_owned(), release(&[])),
        (
            "ReleaseWithManifest".to_owned(),
            release(&[("manifest", schema::any_object())]),
        ),
    ];
    all.extend(manifest());
    all
}

fn release(more: &[(&'static str, Value)]) -> Value {
    let mut members = vec![
        ("name", schema::release_name()),
        ("version", schema::release_version()),
        ("channel", schema::or_null(schema::part_name())),
        (
            "default",
            schema::about("whether it is what its channel gives", schema::flag()),
        ),
        ("retired", schema::flag()),
        ("digest", schema::digest()),
        ("description", schema::any_text()),
        ("added_at", schema::time()),
    ];
    members.extend(more.iter().cloned());
    schema::object(&members, &[])
}

/// The published schema as components: its definitions beside it instead of inside.
fn manifest() -> Vec<(String, Value)> {
    let mut whole = super::manifest_schema::value().clone();
    let inside = whole.as_object_mut().and_then(|members| {
        members.remove("$schema");
        members.remove("$id");
        members.remove("$defs")
    });
    let inside: Map<String, Value> =
        serde_json::from_value(inside.unwrap_or_default()).unwrap_or_default();
    let inside = inside
        .into_iter()
        .map(|(name, schema)| (format!("Manifest.{name}"), moved(schema)));
    std::iter::once(("Manifest".to_owned(), moved(whole)))
        .chain(inside)
        .collect()
}

/// With references that follow the definitions to their new place.
fn moved(schema: Value) -> Value {
    match schema {
        Value::Object(members) => members
            .into_iter()
            .map(
                |(name, value)| match value.as_str().and_then(|to| to.strip_prefix("#/$defs/")) {
                    Some(to) if name == "$ref" => {
                        (name, format!("#/components/schemas/Manifest.{to}").into())
                    }
                    _ => (name, moved(value)),
                },
            )
            .collect(),
        Value::Array(items) => items.into_iter().map(moved).collect(),
        other => other,
    }
}
