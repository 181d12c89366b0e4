//! JSON schemas (draft 2020-12) as the OpenAPI document writes them, in few words. What a schema allows, its reader
//! takes, and nothing else: the schemas stand beside the readers.

use serde_json::{Map, Value, json};

mod forms;

pub(super) use forms::{
    agent_id, bytes, cpu, deployment_id, digest, host_name, line, moment, note, part_name,
    region_id, release_key, release_name, release_version, secret, stream, tenant_id, token_id,
};

/// The component schema of this name.
pub(super) fn of(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// One page of a list of these.
pub(super) fn page_of(item: Value) -> Value {
    let cursor = json!({"type": ["string", "null"]});
    object(&[("items", list(item)), ("next_cursor", cursor)], &[])
}

/// Anything.
pub(super) fn anything() -> Value {
    json!({})
}

/// Any text.
pub(super) fn any_text() -> Value {
    json!({"type": "string"})
}

/// A text of this form.
pub(super) fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

/// One of these words.
pub(super) fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

/// A whole number within a range.
pub(super) fn whole(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

/// A count.
pub(super) fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// A whole number, or null.
pub(super) fn count_or_null() -> Value {
    or_null(count())
}

/// A yes or no.
pub(super) fn flag() -> Value {
    json!({"type": "boolean"})
}

/// A time, RFC 3339 in UTC.
pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// A text, or null.
pub(super) fn text_or_null() -> Value {
    or_null(any_text())
}

/// An object with members of any names, all of which are these.
pub(super) fn map_of(item: Value) -> Value {
    json!({"type": "object", "additionalProperties": item})
}

/// A schema with a word about it.
pub(super) fn about(text: &str, schema: Value) -> Value {
    let mut schema = schema;
    schema["description"] = text.into();
    schema
}

/// This, or null.
pub(super) fn or_null(schema: Value) -> Value {
    let mut schema = schema;
    if let Some(Value::String(word)) = schema.get("type").cloned() {
        schema["type"] = json!([word, "null"]);
        if let Some(Value::Array(words)) = schema.get_mut("enum") {
            words.push(Value::Null);
        }
        return schema;
    }
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// An object of any members.
pub(super) fn any_object() -> Value {
    json!({"type": "object"})
}

/// An object without members, for a request of which the path says everything.
pub(super) fn nothing() -> Value {
    object(&[], &[])
}

/// A list of these.
pub(super) fn list(item: Value) -> Value {
    json!({"type": "array", "items": item})
}

/// An object with these members and no others: those that must be there, and those that may be.
pub(super) fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let members: Map<String, Value> = required
        .iter()
        .chain(optional)
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut schema =
        json!({"type": "object", "properties": members, "additionalProperties": false});
    if !names.is_empty() {
        schema["required"] = json!(names);
    }
    schema
}

/// A body: like [`object`], where an optional member that is null counts as absent.
pub(super) fn body(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let optional: Vec<(&str, Value)> = optional
        .iter()
        .map(|(name, schema)| (*name, or_null(schema.clone())))
        .collect();
    object(required, &optional)
}
