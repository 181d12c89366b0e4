//! Reads a time of a body: RFC 3339 as answers write it, or with another offset. Years 2000 to 8999, whole
//! milliseconds: what has no such form is refused instead of rounded.

use dotmac_protocol::time::Timestamp;
use serde_json::Value;

use super::Fields;

/// What such a time looks like.
const ALLOWED: &str = "a time such as 2027-01-31T12:00:00Z, from the year 2000 to 8999, or null";

impl Fields {
    /// A time. Here null is a value: `Some(None)`.
    pub(in crate::api) fn time_or_null(&mut self, name: &'static str) -> Option<Option<Timestamp>> {
        if self.members.get(name).is_some_and(Value::is_null) {
            self.take(name);
            return Some(None);
        }
        let text = self.text(name)?;
        let time = parse(&text);
        if time.is_none() {
            self.refuse(name, &text, ALLOWED);
        }
        time.map(Some)
    }
}

/// A time in its one form.
fn parse(text: &str) -> Option<Timestamp> {
    // The calendar's own rules are the library's; it takes more forms than this one.
    has_form(text).then_some(())?;
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}

/// `YYYY-MM-DDTHH:MM:SS`, up to three digits of a second, and `Z` or an offset of less than a day.
fn has_form(text: &str) -> bool {
    let Some((moment, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let is_moment = fits(moment, "0000-00-00T00:00:00")
        && (b'2'..=b'8').contains(&moment.as_bytes()[0])
        && &moment[17..] < "60";
    let digits = rest.strip_prefix('.').map_or(0, |rest| {
        1 + rest.bytes().take_while(u8::is_ascii_digit).count()
    });
    let zone = &rest[digits..];
    let is_offset = || fits(zone, "+00:00") && &zone[1..3] < "24" && &zone[4..] < "60";
    is_moment && matches!(digits, 0 | 2..=4) && (zone == "Z" || is_offset())
}

/// Whether a text has a digit for each `0`, a sign for `+`, and the other characters as they are.
fn fits(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text
            .bytes()
            .zip(form.bytes())
            .all(|(found, wanted)| match wanted {
                b'0' => found.is_ascii_digit(),
                b'+' => matches!(found, b'+' | b'-'),
                other => found == other,
            })
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;
    use serde_json::json;

    use super::{Fields, parse};
    use crate::api::{answer::time, schema};

    #[test]
    fn a_time_is_taken_as_its_schema_says_and_in_no_other_form() {
        let validator = jsonschema::draft202012::new(&schema::moment()).unwrap();
        let taken = [
            "2027-01-31T12:00:00Z",
            "2000-01-01T00:00:00.000Z",
            "8999-12-31T23:59:59.999-23:59",
            "2024-02-29T00:00:00.5+01:30",
            "2400-02-29T00:00:00Z",
        ];
        let refused = [
            "",
            "2027-01-31",
            "2027-01-31 12:00:00Z",
            "2027-01-31t12:00:00z",
            "2027-01-31T12:00:00",
            "2027-01-31T12:00Z",
            "2027-01-31T12:00:60Z",
            "2027-01-31T24:00:00Z",
            "2027-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2027-04-31T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-00-10T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "9000-01-01T00:00:00Z",
            "2027-01-31T12:00:00.Z",
            "2027-01-31T12:00:00.0000Z",
            "2027-01-31T12:00:00+24:00",
            "2027-01-31T12:00:00+01:60",
            "2027-01-31T12:00:00+0100",
            "2027-01-31T12:00:00Z[UTC]",
            "2027-01-31T12:00:00é",
            "+2027-01-31T12:00:0Z",
        ];
        for (texts, is_taken) in [(&taken[..], true), (&refused[..], false)] {
            for text in texts {
                assert_eq!(parse(text).is_some(), is_taken, "{text}");
                assert_eq!(validator.is_valid(&json!(text)), is_taken, "{text}");
            }
        }
        let at = Timestamp(1_893_456_000_123);
        assert_eq!(parse(&time(at)), Some(at));
    }

    #[test]
    fn null_is_a_value_and_absence_is_none() {
        let mut fields = Fields::of_body(json!({"a": null, "b": "soon"})).unwrap();
        assert_eq!(fields.time_or_null("a"), Some(None));
        assert_eq!(fields.time_or_null("c"), None);
        assert_eq!(fields.time_or_null("b"), None);
        assert!(fields.finish().is_err());
    }
}
