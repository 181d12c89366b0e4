//! What answers are made of: JSON bodies, pages and times. It knows no domain.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dotmac_protocol::time::Timestamp;
use serde_json::{Value, json};

/// An answer with a body.
pub(super) fn answer(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// 201 and where the new thing is.
pub(super) fn created(location: &str, body: Value) -> Response {
    let mut response = answer(StatusCode::CREATED, body);
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// One page of a list; `next` is the cursor of the page after it.
pub(super) fn page(items: Vec<Value>, next: Option<String>) -> Response {
    answer(StatusCode::OK, json!({"items": items, "next_cursor": next}))
}

/// Cuts a list to a page. `items` may give one more than the limit: then there is a page after it, and its cursor is
/// the key of the last item on this one.
pub(super) fn page_of(items: impl Iterator<Item = (String, Value)>, limit: usize) -> Response {
    let mut items: Vec<(String, Value)> = items.take(limit.saturating_add(1)).collect();
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| has_more)
        .map(|(key, _)| key.clone());
    page(items.into_iter().map(|(_, value)| value).collect(), next)
}

/// A time as answers write it: RFC 3339, UTC, with milliseconds.
pub(super) fn time(at: Timestamp) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(
            || format!("{:.3}", jiff::Timestamp::MAX),
            |at| format!("{at:.3}"),
        )
}

/// Like [`time`], or null.
pub(super) fn time_or_null(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| time(at).into())
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::time;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(
            time(Timestamp(1_700_000_000_123)),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(time(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert!(time(Timestamp(u64::MAX)).starts_with("9999-12-30T"));
    }
}
