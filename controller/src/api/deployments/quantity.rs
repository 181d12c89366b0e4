//! Quantities as Kubernetes writes them: `500m` or `1.5` cpu, `512Mi` or `1G` bytes. Whole numbers only inside; it
//! rounds nothing.

use serde_json::Value;

/// What a cpu quantity may be.
pub(super) const CPU: &str = "cpus such as 500m, 1 or 1.5";
/// What a byte quantity may be.
pub(super) const BYTES: &str = "bytes such as 512Mi, 2Gi or 1G";

/// Suffixes of bytes.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Thousandths of a cpu.
pub(super) fn cpu_millis(value: &Value) -> Option<u32> {
    let text = text(value)?;
    let millis = match text.strip_suffix('m') {
        Some(millis) => digits(millis)?,
        None => {
            let (whole, part) = text.split_once('.').unwrap_or((&text, "0"));
            if part.len() > 3 {
                return None;
            }
            digits(whole)?
                .checked_mul(1_000)?
                .checked_add(digits(&format!("{part:0<3}"))?)?
        }
    };
    u32::try_from(millis).ok()
}

/// Bytes.
pub(super) fn bytes(value: &Value) -> Option<u64> {
    let text = text(value)?;
    let unit = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = unit.unwrap_or((&text, 1));
    digits(number)?.checked_mul(unit)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{bytes, cpu_millis};

    #[test]
    fn cpus_are_thousandths() {
        let cases = [
            ("500m", 500),
            ("1", 1000),
            ("1.5", 1500),
            ("0.25", 250),
            ("2.001", 2001),
        ];
        for (text, millis) in cases {
            assert_eq!(cpu_millis(&json!(text)), Some(millis), "{text}");
        }
        assert_eq!(
            (cpu_millis(&json!(2)), cpu_millis(&json!(0.5))),
            (Some(2000), Some(500))
        );
        for wrong in ["", "m", "-1", "1.0001", "1e3", "1.5m", "99999999999", "+1"] {
            assert_eq!(cpu_millis(&json!(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn bytes_are_whole() {
        let cases = [
            ("512Mi", 512 << 20),
            ("2Gi", 2 << 30),
            ("1G", 1_000_000_000),
            ("7", 7),
        ];
        for (text, count) in cases {
            assert_eq!(bytes(&json!(text)), Some(count), "{text}");
        }
        for wrong in ["", "Mi", "1.5Gi", "-1", "1 Gi", "99999999999999Ti"] {
            assert_eq!(bytes(&json!(wrong)), None, "{wrong}");
        }
    }
}
