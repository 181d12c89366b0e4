//! The fields of logs: every one that the source uses is in docs/operations/logs.md, and every one there is used.

use std::{collections::BTreeSet, fs};

use dotmac_tests::log_schema;

use super::source;
use crate::checkout;

/// What the formatter writes by itself.
const EVERYWHERE: [&str; 4] = ["timestamp", "level", "target", "message"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The arguments of every call that logs, in a text without comments.
fn calls(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for level in LEVELS {
        let call = format!("tracing::{level}!(");
        for (at, _) in code.match_indices(&call) {
            let inside = &code[at + call.len()..];
            let end =
                end_of(inside).unwrap_or_else(|| panic!("a call without an end: {inside:.80}"));
            found.push(&inside[..end]);
        }
    }
    found
}

/// Where the parenthesis closes that is open before `text`.
fn end_of(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, one) in text.char_indices() {
        match one {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The names of the fields in the arguments of a call; what begins with a quote is its message.
fn fields(arguments: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = arguments.trim_start();
    while !rest.is_empty() && !rest.starts_with('"') {
        let name = rest.trim_start_matches(['%', '?']);
        let end = name.find(|one: char| !(one.is_ascii_alphanumeric() || one == '_' || one == '.'));
        found.push(name[..end.unwrap_or(name.len())].to_owned());
        rest = after_comma(rest);
    }
    found
}

fn after_comma(text: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, one) in text.char_indices() {
        match one {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => return text[at + 1..].trim_start(),
            _ => {}
        }
    }
    ""
}

#[test]
fn every_field_of_the_logs_is_documented_and_every_documented_one_is_used() {
    let page = fs::read_to_string(checkout().join("docs/operations/logs.md")).unwrap();
    let documented: BTreeSet<String> = log_schema::documented(&page).into_keys().collect();
    let mut used: BTreeSet<String> = EVERYWHERE.map(str::to_owned).into();
    let mut count = 0;
    for (path, code) in source::programs() {
        for call in calls(&code) {
            count += 1;
            for field in fields(call) {
                assert!(
                    documented.contains(&field),
                    "{path}: {field} is not in docs/operations/logs.md"
                );
                used.insert(field);
            }
        }
    }
    assert!(count > 100, "only {count} calls");
    let unused: Vec<&String> = documented.difference(&used).collect();
    assert!(unused.is_empty(), "documented and not used: {unused:?}");
}
