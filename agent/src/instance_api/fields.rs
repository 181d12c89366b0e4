//! Reads the members of a JSON object, strictly for what is there and leniently for what the contract calls optional.
//! It names every wrong member at once, with what it holds and what it may hold. Members it does not know are allowed.

use dotmac_protocol::{secrecy::is_secret_name, time::Timestamp};
use jiff::{civil::DateTime, tz::TimeZone};
use serde_json::{Map, Number, Value};

use super::problem::Problem;

/// The largest count or amount that is believed: more than anything that an instance counts.
const COUNT_MAX: u64 = 1_000_000_000_000;
/// The most percent that are believed: of many processors together, too.
const PERCENT_MAX: u64 = 1_000_000;
/// Which times are read.
const TIMES: &str =
    "a time from 1970-01-01T00:00:00Z to 9999-12-30T22:00:00Z, such as 2026-01-31T12:00:00Z";
/// Which decimal numbers are read.
const DECIMALS: &str = "a decimal number of at most 20 digits before and 10 behind its point";
/// Characters of a wrong value that are told back.
const VALUE_CHARS_MAX: usize = 80;
/// Wrong members that are told back at most.
const WRONG_MAX: usize = 32;
/// Bytes of a time or a decimal number at most.
const NUMBER_BYTES_MAX: usize = 64;

/// A member that is not what the call takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Its path, such as `metrics.active_subscribers`.
    pub(super) field: String,
    /// What it holds, shortened; `none` when it is missing.
    pub(super) value: String,
    /// What it may hold.
    pub(super) allowed: String,
}

/// The members of one object. What is wrong is collected; [`Fields::finish`] tells it.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    members: &'a Map<String, Value>,
    /// In front of names, such as `metrics.`.
    path: String,
    wrong: Vec<Wrong>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &str, members: &'a Map<String, Value>) -> Self {
        Self {
            members,
            path: path.to_owned(),
            wrong: Vec::new(),
        }
    }

    /// What was wrong.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.wrong.is_empty() {
            Ok(())
        } else {
            Err(Problem::Fields(self.wrong))
        }
    }

    /// A text of 1 to `bytes_max` bytes.
    pub(super) fn text(&mut self, name: &str, bytes_max: usize) -> String {
        match self.members.get(name) {
            Some(Value::String(text)) if !text.is_empty() && text.len() <= bytes_max => {
                text.clone()
            }
            found => self.refuse(name, found, &format!("a text of 1 to {bytes_max} bytes")),
        }
    }

    /// A text of at most `bytes_max` bytes, which may be empty.
    pub(super) fn line(&mut self, name: &str, bytes_max: usize) -> String {
        match self.members.get(name) {
            Some(Value::String(text)) if text.len() <= bytes_max => text.clone(),
            found => self.refuse(name, found, &format!("a text of at most {bytes_max} bytes")),
        }
    }

    /// As [`Fields::text`], or nothing: absent, null or empty.
    pub(super) fn optional_text(&mut self, name: &str, bytes_max: usize) -> Option<String> {
        match self.members.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(_) => Some(self.text(name, bytes_max)),
        }
    }

    /// RFC 3339; without an offset it is UTC.
    pub(super) fn time(&mut self, name: &str) -> Timestamp {
        let found = self.members.get(name);
        match found.and_then(Value::as_str).and_then(time) {
            Some(time) => time,
            None => self.refuse(name, found, TIMES),
        }
    }

    /// A whole number of at most [`COUNT_MAX`], also written as `12.0`.
    pub(super) fn count(&mut self, name: &str) -> u64 {
        let found = self.members.get(name);
        match found
            .and_then(Value::as_number)
            .and_then(|number| scaled(number, 0))
        {
            Some((count, true)) if count <= COUNT_MAX => count,
            _ => self.refuse(name, found, &format!("a whole number, 0 to {COUNT_MAX}")),
        }
    }

    /// A number of at most [`COUNT_MAX`], in units of 10 to the power of minus `decimals`; what is finer is left out.
    pub(super) fn amount(&mut self, name: &str, decimals: u32) -> u64 {
        self.number(name, decimals, COUNT_MAX).0
    }

    /// As [`Fields::amount`], with two decimals, up to [`PERCENT_MAX`].
    pub(super) fn percent(&mut self, name: &str) -> u32 {
        let (basis_points, _) = self.number(name, 2, PERCENT_MAX);
        u32::try_from(basis_points).expect("its bound is below 32 bits")
    }

    /// A number of at most [`COUNT_MAX`]; one with a fraction counts as the next higher one.
    pub(super) fn count_up(&mut self, name: &str) -> u64 {
        let (count, is_whole) = self.number(name, 0, COUNT_MAX);
        count + u64::from(!is_whole)
    }

    /// A number from 0 to `most`, scaled, and whether nothing was left out.
    fn number(&mut self, name: &str, decimals: u32, most: u64) -> (u64, bool) {
        let found = self.members.get(name);
        let number = found.and_then(Value::as_number);
        let highest = most.saturating_mul(10_u64.saturating_pow(decimals));
        let fits =
            |(scaled, is_whole): &(u64, bool)| *scaled < highest || *scaled == highest && *is_whole;
        match number
            .and_then(|number| scaled(number, decimals))
            .filter(fits)
        {
            Some(scaled) => scaled,
            None => {
                let refused: u64 = self.refuse(name, found, &format!("a number from 0 to {most}"));
                (refused, true)
            }
        }
    }

    /// A decimal number, as a number or as a text; absent or null for none.
    pub(super) fn optional_decimal(&mut self, name: &str) -> Option<String> {
        let text = match self.members.get(name) {
            None | Some(Value::Null) => return None,
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::String(text)) => text.clone(),
            found => return Some(self.refuse(name, found, DECIMALS)),
        };
        if is_decimal(&text) {
            return Some(text);
        }
        let found = self.members.get(name);
        Some(self.refuse(name, found, DECIMALS))
    }

    /// One of some words.
    pub(super) fn word(&mut self, name: &str, words: &[&str]) -> String {
        match self.members.get(name) {
            Some(Value::String(text)) if words.contains(&text.as_str()) => text.clone(),
            found => self.refuse(name, found, &format!("one of {}", words.join(", "))),
        }
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Option<&'a Map<String, Value>> {
        let found = self.members.get(name);
        match found {
            Some(Value::Object(members)) => Some(members),
            _ => self.refuse(name, found, "an object"),
        }
    }

    /// A list of at most so many items.
    pub(super) fn list(&mut self, name: &str, items_max: usize) -> &'a [Value] {
        let found = self.members.get(name);
        match found {
            Some(Value::Array(items)) if items.len() <= items_max => items,
            Some(Value::Array(items)) => {
                let value = Value::from(format!("{} items", items.len()));
                self.refuse(
                    name,
                    Some(&value),
                    &format!("a list of at most {items_max} items"),
                )
            }
            _ => self.refuse(name, found, &format!("a list of at most {items_max} items")),
        }
    }

    /// Takes over what was wrong inside of a member.
    pub(super) fn adopt(&mut self, inner: Self) {
        let room = WRONG_MAX.saturating_sub(self.wrong.len());
        self.wrong.extend(inner.wrong.into_iter().take(room));
    }

    fn refuse<T: Default>(&mut self, name: &str, found: Option<&Value>, allowed: &str) -> T {
        let value = match found {
            None => "none".to_owned(),
            Some(_) if is_secret_name(name) => "not shown".to_owned(),
            Some(value) => shortened(value),
        };
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(Wrong {
                field: format!("{}{name}", self.path),
                value,
                allowed: allowed.to_owned(),
            });
        }
        T::default()
    }
}

/// Milliseconds of a JWT's NumericDate (RFC 7519); `None` before 1970.
pub(super) fn numeric_date(number: &Number) -> Option<u64> {
    scaled(number, 3).map(|(millis, _)| millis)
}

/// A time as the API reads them; `None` before 1970.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    if text.len() > NUMBER_BYTES_MAX {
        return None;
    }
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let naive: DateTime = text.parse().ok()?;
        Some(naive.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}

/// A value as it is told back.
fn shortened(value: &Value) -> String {
    let text = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        value => value.to_string(),
    };
    text.chars().take(VALUE_CHARS_MAX).collect()
}

/// A number times 10 to the power of `decimals`, cut to a whole one, and whether nothing was cut off. `None` below 0
/// and above 64 bits. No floating point: the number's digits are shifted.
fn scaled(number: &Number, decimals: u32) -> Option<(u64, bool)> {
    if let Some(whole) = number.as_u64() {
        let scaled = whole.checked_mul(10_u64.checked_pow(decimals)?)?;
        return Some((scaled, true));
    }
    let text = number.to_string();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text.as_str(), 0),
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.bytes().all(|digit| digit == b'0') {
        return Some((0, true));
    }
    let point = i64::try_from(whole.len()).ok()? + exponent + i64::from(decimals);
    if sign < 0 || point > 40 {
        return None;
    }
    let point = usize::try_from(point.max(0)).ok()?;
    let kept: String = digits
        .chars()
        .chain(std::iter::repeat('0'))
        .take(point)
        .collect();
    let is_whole = digits.bytes().skip(point).all(|digit| digit == b'0');
    let scaled = if kept.is_empty() {
        0
    } else {
        kept.parse().ok()?
    };
    Some((scaled, is_whole))
}

fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |digits: &str, most: usize| {
        (1..=most).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    are_digits(whole, 20) && are_digits(fraction, 10)
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;
    use serde_json::{Number, Value, json};

    use super::{Fields, numeric_date, scaled, time};
    use crate::instance_api::problem::Problem;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_are_scaled_by_their_digits() {
        for (text, decimals, expected) in [
            ("12", 3, Some((12_000, true))),
            ("12.0", 0, Some((12, true))),
            ("12.5", 0, Some((12, false))),
            ("0.1", 2, Some((10, true))),
            ("99.999", 2, Some((9_999, false))),
            ("1e3", 0, Some((1_000, true))),
            ("1e-7", 3, Some((0, false))),
            ("-0.0", 0, Some((0, true))),
            ("-1", 0, None),
            ("1e300", 0, None),
            ("18446744073709551615", 0, Some((u64::MAX, true))),
            ("18446744073709551616", 0, None),
            ("18446744073709551615", 1, None),
        ] {
            assert_eq!(scaled(&number(text), decimals), expected, "{text}");
        }
        assert_eq!(
            numeric_date(&number("1700000000.25")),
            Some(1_700_000_000_250)
        );
    }

    #[test]
    fn times_are_rfc_3339_and_utc_without_an_offset() {
        let noon = Some(Timestamp(1_767_268_800_000));
        for text in [
            "2026-01-01T12:00:00Z",
            "2026-01-01T13:00:00+01:00",
            "2026-01-01T12:00:00",
            "2026-01-01 12:00:00.000",
        ] {
            assert_eq!(time(text), noon, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn every_wrong_member_is_named_and_no_secret_is_told_back() {
        let body = json!({"name": "", "count": -1, "rate": "3", "at": 5, "token": 7, "extra": {}});
        let Value::Object(members) = &body else {
            unreachable!("an object")
        };
        let mut fields = Fields::new("metrics.", members);
        fields.text("name", 10);
        fields.count("count");
        fields.amount("rate", 2);
        fields.time("at");
        fields.text("token", 10);
        fields.object("missing");
        let Err(Problem::Fields(wrong)) = fields.finish() else {
            panic!("it is wrong")
        };
        let told: Vec<(&str, &str)> = wrong
            .iter()
            .map(|one| (one.field.as_str(), one.value.as_str()))
            .collect();
        let expected = [
            ("metrics.name", "\"\""),
            ("metrics.count", "-1"),
            ("metrics.rate", "\"3\""),
            ("metrics.at", "5"),
            ("metrics.token", "not shown"),
            ("metrics.missing", "none"),
        ];
        assert_eq!(told, expected);
    }
}
