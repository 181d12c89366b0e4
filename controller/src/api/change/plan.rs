//! What a change would do: the fields that would be different, found by comparing an entity before and after. It
//! decides nothing; the State itself carried the command out on a copy.

use serde_json::{Value, json};

/// Fields that move with everything and tell nobody anything in a plan.
const BESIDE_THE_POINT: [&str; 8] = [
    "generation",
    "journey",
    "last_updated",
    "next_step",
    "observed_generation",
    "reason",
    "revision",
    "waiting",
];
/// Differences that a plan lists at most; a larger entity cannot be asked for.
const DIFFERENCES_MAX: usize = 2_000;

/// The differences between an entity before (none: it is made) and after (none: it is gone), sorted by field. Objects
/// are compared member by member, `features.radius`; lists as a whole.
pub(super) fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<Value> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Value>) {
    if before == after || found.len() >= DIFFERENCES_MAX {
        return;
    }
    let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let (old, new) = match (members(before), members(after)) {
        (None, None) => {
            found.push(json!({"field": path, "from": before, "to": after}));
            return;
        }
        // A member that becomes an object, or stops being one, is one difference.
        (None, Some(_)) | (Some(_), None) if !path.is_empty() => {
            found.push(json!({"field": path, "from": before, "to": after}));
            return;
        }
        (old, new) => (old.unwrap_or_default(), new.unwrap_or_default()),
    };
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        if path.is_empty() && BESIDE_THE_POINT.contains(&name.as_str()) {
            continue;
        }
        let inner = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let absent_is_null =
            |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
        let (from, to) = (absent_is_null(old.get(name)), absent_is_null(new.get(name)));
        compare(&inner, from.as_ref(), to.as_ref(), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;

    #[test]
    fn a_plan_names_what_differs_and_nothing_else() {
        let before = json!({"a": 1, "b": {"x": true, "y": 2}, "c": [1], "same": "s", "revision": 1, "n": null});
        let after =
            json!({"a": 2, "b": {"x": true, "z": 3}, "c": [1, 2], "same": "s", "revision": 2});
        assert_eq!(
            differences(Some(&before), Some(&after)),
            [
                json!({"field": "a", "from": 1, "to": 2}),
                json!({"field": "b.y", "from": 2, "to": null}),
                json!({"field": "b.z", "from": null, "to": 3}),
                json!({"field": "c", "from": [1], "to": [1, 2]}),
            ]
        );
        assert!(differences(Some(&before), Some(&before)).is_empty());
    }

    #[test]
    fn what_is_made_comes_from_nothing() {
        let after = json!({"a": 1, "b": null});
        assert_eq!(
            differences(None, Some(&after)),
            [json!({"field": "a", "from": null, "to": 1})]
        );
    }
}
