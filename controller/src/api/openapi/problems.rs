//! Problems as the OpenAPI document writes them: one response for each status and set of codes.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{operation::Operation, problem::Kind, schema};

/// Every problem of an operation, by status.
pub(super) fn by_status(one: &Operation) -> BTreeMap<StatusCode, Vec<&'static Kind>> {
    let mut found: BTreeMap<StatusCode, Vec<&'static Kind>> = BTreeMap::new();
    for kind in one.all_problems() {
        found.entry(kind.status()).or_default().push(kind);
    }
    found
}

/// What the response of a status and its codes is called.
pub(super) fn name(status: StatusCode, kinds: &[&Kind]) -> String {
    let codes: Vec<&str> = kinds.iter().map(|kind| kind.code()).collect();
    format!("{}.{}", status.as_u16(), codes.join("."))
}

/// The response.
pub(super) fn response(status: StatusCode, kinds: &[&Kind]) -> Value {
    let titles: Vec<String> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}", kind.code(), kind.title()))
        .collect();
    let mut headers = json!({"x-request-id": {"$ref": "#/components/headers/RequestId"}});
    if kinds.iter().all(|kind| kind.retry_after_s().is_some()) {
        headers["Retry-After"] = json!({"$ref": "#/components/headers/RetryAfter"});
    }
    if status == StatusCode::UNAUTHORIZED {
        headers["WWW-Authenticate"] = json!({"$ref": "#/components/headers/Challenge"});
    }
    json!({
        "description": titles.join("; "),
        "headers": headers,
        "content": {"application/problem+json": {"schema": schema_of(status, kinds)}},
    })
}

/// A problem of this status with one of these codes.
pub(super) fn schema_of(status: StatusCode, kinds: &[&Kind]) -> Value {
    let codes: Vec<&str> = kinds.iter().map(|kind| kind.code()).collect();
    json!({
        "allOf": [schema::of("Problem")],
        "properties": {"status": {"const": status.as_u16()}, "code": {"enum": codes}},
    })
}

/// Any problem.
pub(super) fn schema() -> Value {
    let error = schema::object(
        &[
            ("field", schema::any_text()),
            ("value", schema::any_text()),
            ("allowed", schema::any_text()),
        ],
        &[],
    );
    schema::object(
        &[
            ("type", schema::pattern("^/docs/errors/[a-z-]+$")),
            ("title", schema::any_text()),
            ("status", schema::whole(400, 599)),
            ("code", schema::any_text()),
            ("detail", schema::any_text()),
            ("next", schema::any_text()),
            ("errors", schema::list(error)),
        ],
        &[],
    )
}
