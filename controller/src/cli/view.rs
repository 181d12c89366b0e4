//! Reads members of the API's answers for people: whatever is missing is empty, whatever is there is clean.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::output::{clean_line, clean_lines, duration};

/// Characters of a heading and the blank behind it, in front of what it is the heading of.
pub(crate) const HEADING_WIDTH: usize = 13;

/// A member as text of one line; empty when it is missing or null.
pub(crate) fn text(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::String(text) => clean_line(text),
        Value::Null => String::new(),
        other => clean_line(&other.to_string()),
    }
}

/// A member as text whose lines stay lines: all but the first begin with so many blanks, so that none of them looks
/// like one of ours.
pub(crate) fn lines(object: &Value, name: &str, blanks: usize) -> String {
    let Value::String(text) = &object[name] else {
        return text(object, name);
    };
    let indent = format!("\n{:blanks$}", "");
    let text = clean_lines(text);
    text.trim_end().lines().collect::<Vec<_>>().join(&indent)
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
            let time: Timestamp = text.parse().ok()?;
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

/// A member's time as people write it (the local time with its offset); its text when it is no time.
pub(crate) fn time(object: &Value, name: &str) -> String {
    time_in(object, name, TimeZone::system())
}

fn time_in(object: &Value, name: &str, zone: TimeZone) -> String {
    let at = millis(&object[name])
        .and_then(|millis| i64::try_from(millis).ok())
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    at.map_or_else(
        || text(object, name),
        |at| {
            at.to_zoned(zone)
                .strftime("%Y-%m-%d %H:%M:%S%.3f %:z")
                .to_string()
        },
    )
}

/// Members of an entity with their headings, a line each; those that end in `_at`, `since` and the like are times.
/// What there is not is left out.
pub(crate) fn page(object: &Value, members: &[(&str, &str)]) -> String {
    let lines = members.iter().filter_map(|(member, heading)| {
        let value = match *member {
            moment
                if moment.ends_with("_at")
                    || moment.ends_with("not_after")
                    || ["since", "last_updated"].contains(&moment) =>
            {
                time(object, moment)
            }
            other => text(object, other),
        };
        (!value.is_empty()).then(|| format!("{heading:<12} {value}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};
    use serde_json::json;

    use super::{age, lines, millis, page, text, time_in};

    #[test]
    fn a_page_leaves_out_what_there_is_not() {
        let tenant =
            json!({"id": "a-1", "reseller_id": null, "created_at": "2023-11-14T22:13:20Z"});
        let members = [
            ("id", "id"),
            ("reseller_id", "reseller"),
            ("created_at", "created"),
        ];
        assert_eq!(page(&tenant, &members).lines().count(), 2);
        assert!(page(&tenant, &members).starts_with("id           a-1\ncreated      2023"));
    }

    #[test]
    fn lines_stay_lines_where_they_may_and_none_is_glued_to_the_next() {
        let one = json!({"reason": "it ended; its last lines:\nlicensed\r\nstatus       active\u{1b}\n", "count": 3});
        assert_eq!(
            text(&one, "reason"),
            "it ended; its last lines: | licensed | status       active"
        );
        assert_eq!(
            lines(&one, "reason", 2),
            "it ended; its last lines:\n  licensed\n  status       active"
        );
        assert_eq!(
            (lines(&one, "count", 2), lines(&one, "none", 2)),
            ("3".into(), String::new())
        );
    }

    #[test]
    fn both_forms_of_a_time_are_the_same_moment() {
        let both = json!({"number": 1_700_000_000_123_u64, "text": "2023-11-14T22:13:20.123Z", "word": "soon"});
        assert_eq!(millis(&both["number"]), millis(&both["text"]));
        let zone = || TimeZone::fixed(Offset::constant(-3));
        assert_eq!(
            time_in(&both, "number", zone()),
            "2023-11-14 19:13:20.123 -03:00"
        );
        assert_eq!(
            time_in(&both, "text", TimeZone::UTC),
            "2023-11-14 22:13:20.123 +00:00"
        );
        assert_eq!(time_in(&both, "word", zone()), "soon");
        assert_eq!(time_in(&both, "missing", zone()), "");
        assert_eq!(age(&both, "text", 1_700_000_005_123), "5000 ms");
        assert_eq!(age(&both, "word", 0), "soon");
        assert_eq!(text(&both, "missing"), "");
    }
}
