//! Quantities as Kubernetes writes them: `500m` or `1.5` cpu, `512Mi` or `1G` bytes. Whole numbers only inside; it
//! rounds nothing.

use serde_json::Value;

use crate::api::fields::whole;

/// What a cpu quantity may be.
pub(super) const CPU: &str = "cpus such as 500m, 1 or 1.5";
/// What a byte quantity may be.
pub(super) const BYTES: &str = "bytes such as 512Mi, 2Gi or 1G";

/// Suffixes of bytes, and how many digits may stand before them: less than a petabyte altogether.
const UNITS: [(&str, u64, usize); 8] = [
    ("Ki", 1 << 10, 12),
    ("Mi", 1 << 20, 9),
    ("Gi", 1 << 30, 6),
    ("Ti", 1 << 40, 3),
    ("k", 1_000, 12),
    ("M", 1_000_000, 9),
    ("G", 1_000_000_000, 6),
    ("T", 1_000_000_000_000, 3),
];
/// Digits of a number of bytes, of thousandths of a cpu and of whole cpus at most.
const DIGITS: (usize, usize, usize) = (15, 9, 6);

/// Thousandths of a cpu, at least one. `schema::cpu` says the same.
pub(super) fn cpu_millis(value: &Value) -> Option<u32> {
    let text = text(value)?;
    if let Some(millis) = text.strip_suffix('m') {
        return positive(millis, DIGITS.1)?.try_into().ok();
    }
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) => (whole, thousandths(part)?),
        None => (text.as_str(), 0),
    };
    let whole = if whole == "0" && part > 0 {
        0
    } else {
        positive(whole, DIGITS.2)?
    };
    u32::try_from(whole.checked_mul(1_000)?.checked_add(part)?).ok()
}

/// Bytes, at least one. `schema::bytes` says the same.
pub(super) fn bytes(value: &Value) -> Option<u64> {
    let text = text(value)?;
    let unit = UNITS
        .iter()
        .find_map(|(suffix, unit, digits)| Some((text.strip_suffix(suffix)?, *unit, *digits)));
    let (number, unit, digits) = unit.unwrap_or((&text, 1, DIGITS.0));
    positive(number, digits)?.checked_mul(unit)
}

/// A text as it is; a number only when it is whole.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) => whole(value).map(|number| number.to_string()),
        _ => None,
    }
}

/// A number above zero as people write it: digits that do not begin with a zero.
fn positive(text: &str, digits_max: usize) -> Option<u64> {
    let is_number = (1..=digits_max).contains(&text.len())
        && !text.starts_with('0')
        && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// One to three digits behind the point.
fn thousandths(part: &str) -> Option<u64> {
    let is_part = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if is_part {
        format!("{part:0<3}").parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{bytes, cpu_millis};
    use crate::api::schema;

    fn allows(schema: &Value, value: &Value) -> bool {
        jsonschema::draft202012::new(schema)
            .unwrap()
            .is_valid(value)
    }

    #[test]
    fn cpus_are_thousandths() {
        let right = [
            (json!("500m"), 500),
            (json!("1"), 1000),
            (json!("1.5"), 1500),
            (json!("0.25"), 250),
            (json!("2.001"), 2001),
            (json!("0.001"), 1),
            (json!(2), 2000),
            (json!(2.0), 2000),
        ];
        for (value, millis) in right {
            assert_eq!(cpu_millis(&value), Some(millis), "{value}");
            assert!(allows(&schema::cpu(), &value), "{value}");
        }
        let texts = [
            "",
            "m",
            "-1",
            "1.0001",
            "1e3",
            "1.5m",
            "99999999999",
            "+1",
            "0",
            "0m",
            "0.000",
            "01",
            "1.",
            ".5",
            "1000000",
            "1\n",
        ];
        for wrong in texts
            .map(Value::from)
            .into_iter()
            .chain([json!(0), json!(0.5), json!(true)])
        {
            assert_eq!(cpu_millis(&wrong), None, "{wrong}");
            assert!(!allows(&schema::cpu(), &wrong), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_whole() {
        let right = [
            (json!("512Mi"), 512 << 20),
            (json!("2Gi"), 2 << 30),
            (json!("1G"), 1_000_000_000),
            (json!("7"), 7),
            (json!("999Ti"), 999 << 40),
            (json!(1_048_576), 1 << 20),
        ];
        for (value, count) in right {
            assert_eq!(bytes(&value), Some(count), "{value}");
            assert!(allows(&schema::bytes(), &value), "{value}");
        }
        let texts = [
            "",
            "Mi",
            "1.5Gi",
            "-1",
            "1 Gi",
            "1000Ti",
            "0",
            "0Gi",
            "01",
            "1000000000000000",
            "1gi",
        ];
        for wrong in texts
            .map(Value::from)
            .into_iter()
            .chain([json!(0), json!(1.5)])
        {
            assert_eq!(bytes(&wrong), None, "{wrong}");
            assert!(!allows(&schema::bytes(), &wrong), "{wrong}");
        }
    }
}
