//! Whole numbers as bodies and queries write them.

use serde_json::Value;

/// A whole number, however it is written: 2 and 2.0 are the same in JSON.
pub(in crate::api) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        // Beyond 2^53 a float does not say which whole number is meant.
        (0.0..=9_007_199_254_740_992.0)
            .contains(&number)
            .then(|| format!("{number:.0}").parse().ok())?
    })
}

/// A number as the parameters of a query have it.
pub(super) fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}
