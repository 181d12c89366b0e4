//! Reads members of the API's answers for people: whatever is missing is empty, whatever is there is clean.

use serde_json::Value;

use super::output::{clean, duration};

/// A member as text; empty when it is missing or null.
pub(crate) fn text(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::String(text) => clean(text),
        Value::Null => String::new(),
        other => clean(&other.to_string()),
    }
}

/// A list; empty when it is missing.
pub(crate) fn items<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

/// A time as the API writes it (milliseconds or RFC 3339), in milliseconds since 1970.
pub(crate) fn millis(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            u64::try_from(time.as_millisecond()).ok()
        }
        _ => None,
    }
}

/// How long ago a member's time is; its text when it is no time.
pub(crate) fn age(object: &Value, name: &str, now_ms: u64) -> String {
    millis(&object[name]).map_or_else(
        || text(object, name),
        |at| duration(now_ms.saturating_sub(at)),
    )
}

/// A member's time as people write it (UTC, to the second or with milliseconds); its text when it is no time.
pub(crate) fn time(object: &Value, name: &str) -> String {
    let at = millis(&object[name])
        .and_then(|millis| i64::try_from(millis).ok())
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map_or_else(|| text(object, name), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{age, millis, text, time};

    #[test]
    fn both_forms_of_a_time_are_the_same_moment() {
        let both = json!({"number": 1_700_000_000_123_u64, "text": "2023-11-14T22:13:20.123Z", "word": "soon"});
        assert_eq!(millis(&both["number"]), millis(&both["text"]));
        assert_eq!(time(&both, "number"), "2023-11-14T22:13:20.123Z");
        assert_eq!(age(&both, "text", 1_700_000_005_123), "5000 ms");
        assert_eq!(age(&both, "word", 0), "soon");
        assert_eq!(text(&both, "missing"), "");
    }
}
