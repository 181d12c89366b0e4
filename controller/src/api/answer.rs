//! What answers are made of: JSON bodies, pages and times. It knows no domain.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use dotmac_protocol::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Items of a page that are written within a millisecond.
const SHORT_PAGE_ITEMS: usize = 100;

/// An answer with a body.
pub(super) fn answer(status: StatusCode, body: impl Serialize) -> Response {
    (status, Json(body)).into_response()
}

/// One page of a list; `next` is the cursor of the page after it.
pub(super) fn page<T: Serialize>(items: Vec<T>, next: Option<String>) -> Response {
    let next_cursor = next;
    answer(StatusCode::OK, Page { items, next_cursor })
}

/// Cuts a list to a page. `items` may give one more than the limit: then there is a page after it, and its cursor is
/// the key of the last item on this one. A long page takes milliseconds: this thread's other tasks move to another one.
pub(super) fn page_of<K: ToString, T: Serialize>(
    items: impl Iterator<Item = (K, T)>,
    limit: usize,
) -> Response {
    let has_others = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if limit > SHORT_PAGE_ITEMS && has_others {
        tokio::task::block_in_place(|| cut(items, limit))
    } else {
        cut(items, limit)
    }
}

fn cut<K: ToString, T: Serialize>(items: impl Iterator<Item = (K, T)>, limit: usize) -> Response {
    let mut items = items.peekable();
    let mut last = None;
    let mut page_items = Vec::new();
    while page_items.len() < limit
        && let Some((key, item)) = items.next()
    {
        last = Some(key);
        page_items.push(item);
    }
    let next = last.filter(|_| items.peek().is_some());
    page(page_items, next.map(|key| key.to_string()))
}

#[derive(Serialize)]
struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
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
