//! The published JSON Schema of release manifests (`config/release.schema.json`): every manifest is checked against it
//! before anything else looks at it.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use dotmac_domain::reply::FieldError;
use jsonschema::Validator;
use serde_json::Value;

use crate::api::problem::Problem;

/// The schema's text.
const SCHEMA: &str = include_str!("../../../../config/release.schema.json");
/// Wrong places named in one answer at most.
const ERRORS_MAX: usize = 20;

static VALUE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(SCHEMA).expect("the shipped schema is JSON"));
static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::draft202012::new(&VALUE).expect("the shipped schema is one of draft 2020-12")
});

/// The schema as a value.
pub(super) fn value() -> &'static Value {
    &VALUE
}

/// The schema, for editors and people. It needs no token: it is part of the documentation.
pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], SCHEMA).into_response()
}

/// Refuses what the schema does not allow, place by place.
pub(super) fn check(manifest: &Value) -> Result<(), Problem> {
    let errors: Vec<FieldError> = VALIDATOR
        .iter_errors(manifest)
        .take(ERRORS_MAX)
        .map(|error| FieldError {
            field: field(error.instance_path().as_str()),
            value: error.instance().to_string().chars().take(200).collect(),
            allowed: error.to_string().chars().take(500).collect(),
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Problem::fields(errors))
    }
}

/// A JSON pointer as the rest of the API writes places: `components.web.env`.
fn field(pointer: &str) -> String {
    match pointer.trim_start_matches('/') {
        "" => "manifest".to_owned(),
        path => path.replace('/', "."),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_wrong_place_is_named() {
        let manifest = serde_json::json!({"name": "x", "version": "1", "components": {"web": {}}});
        assert!(check(&manifest).is_err());
        let demo = include_str!("../../../../tests/releases/demo-isp.json");
        assert!(check(&serde_json::from_str(demo).unwrap()).is_ok());
    }
}
