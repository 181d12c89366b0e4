//! What differs between two entities, member by member, and how that is shown. What changes by itself (health,
//! progress, times) can be told apart from what somebody decided.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use serde_json::Value;

use super::consent::is_coloured;
use crate::cli::output::{clean, clean_line};

/// Characters of a value that are shown at most.
const VALUE_CHARS_MAX: usize = 120;
/// Members that change without anybody's decision, or follow from others.
const BY_ITSELF: [&str; 25] = [
    "agents",
    "components",
    "created_at",
    "deployed_at",
    "deployment_name",
    "deployments",
    "generation",
    "health_reason",
    "health_status",
    "journey",
    "last_updated",
    "last_used_at",
    "limits",
    "namespace",
    "next_step",
    "node",
    "pod_count",
    "ready_pods",
    "reason",
    "revision",
    "rollback_to",
    "since",
    "tier_max_replicas",
    "updated_at",
    "waiting",
];

/// One member that differs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    /// Its name; inner ones with dots.
    pub(crate) field: String,
    /// What it is; null when it is not there.
    pub(crate) from: Value,
    /// What it is to be.
    pub(crate) to: Value,
}

impl Difference {
    /// As the API tells it.
    pub(crate) fn read(told: &Value) -> Self {
        Self {
            field: told["field"].as_str().unwrap_or_default().to_owned(),
            from: told["from"].clone(),
            to: told["to"].clone(),
        }
    }

    /// Whether it is somebody's decision, and not something that begins empty.
    pub(crate) fn is_told(&self) -> bool {
        let first = self.field.split('.').next().unwrap_or(&self.field);
        let is_empty = match &self.to {
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Number(number) => number.as_u64() == Some(0),
            _ => false,
        };
        let begins_empty = self.from.is_null() && is_empty;
        !BY_ITSELF.contains(&first) && !begins_empty
    }

    /// For people, in one line.
    pub(crate) fn line(&self, is_coloured: bool) -> String {
        let field = clean(&self.field);
        let paint = |code: &str, text: String| match is_coloured {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text,
        };
        match (&self.from, &self.to) {
            (Value::Null, to) => paint("32", format!("  + {field}: {}", plain(to))),
            (from, Value::Null) => paint("31", format!("  - {field}: {}", plain(from))),
            (from, to) => format!(
                "  ~ {field}: {} -> {}",
                paint("31", plain(from)),
                paint("32", plain(to))
            ),
        }
    }
}

impl Difference {
    /// Shows it to whoever looks, in colour where there is a terminal.
    pub(crate) fn say(&self) {
        // Already without control characters but our own colours, which a remark may not have.
        let _ = writeln!(io::stderr().lock(), "{}", self.line(is_coloured()));
    }
}

/// All members that differ, by name; objects are compared member by member.
pub(crate) fn between(from: &Value, to: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", from, to, &mut found);
    found
}

fn compare(path: &str, from: &Value, to: &Value, found: &mut Vec<Difference>) {
    if let (Value::Object(before), Value::Object(after)) = (from, to) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let inner = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            let (from, to) = (&from[name.as_str()], &to[name.as_str()]);
            compare(&inner, from, to, found);
        }
        return;
    }
    if from != to {
        found.push(Difference {
            field: path.to_owned(),
            from: from.clone(),
            to: to.clone(),
        });
    }
}

/// A value as people read it, in one line of bounded length.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => clean_line(text),
        other => clean(&other.to_string()),
    };
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    let start: String = text.chars().take(VALUE_CHARS_MAX).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Difference, between};

    #[test]
    fn members_that_differ_are_named_with_both_values() {
        let before =
            json!({"replicas": 1, "features": {"a": true, "b": true}, "domain_name": null});
        let after = json!({"replicas": 2, "features": {"a": true}, "domain_name": "x.example"});
        let lines: Vec<String> = between(&before, &after)
            .iter()
            .map(|one| one.line(false))
            .collect();
        assert_eq!(
            lines,
            [
                "  + domain_name: x.example",
                "  - features.b: true",
                "  ~ replicas: 1 -> 2"
            ]
        );
        assert!(between(&before, &before).is_empty());
    }

    #[test]
    fn colours_are_there_only_when_wanted_and_values_bring_none() {
        let told = json!({"field": "name", "from": "a\u{1b}[2J", "to": "b".repeat(500)});
        let difference = Difference::read(&told);
        let line = difference.line(false);
        assert!(
            !line.contains('\u{1b}') && line.chars().count() < 200,
            "{line}"
        );
        assert_eq!(difference.line(true).matches('\u{1b}').count(), 4);
    }

    #[test]
    fn progress_and_health_are_nobodys_decision() {
        let told = |told| Difference::read(&told).is_told();
        assert!(told(json!({"field": "replicas", "from": 1, "to": 2})));
        assert!(told(
            json!({"field": "features.billing", "from": null, "to": false})
        ));
        assert!(told(
            json!({"field": "restarts_ordered", "from": 0, "to": 1})
        ));
        assert!(!told(
            json!({"field": "restarts_ordered", "from": null, "to": 0})
        ));
        assert!(!told(
            json!({"field": "waiting.reason", "from": null, "to": "x"})
        ));
        assert!(!told(
            json!({"field": "custom_config", "from": null, "to": {}})
        ));
    }
}
