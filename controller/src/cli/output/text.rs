//! Text on its way to somebody's terminal or program: cleaned of what moves a cursor or reorders letters, or written as
//! JSON and YAML in which such letters are escapes. Nobody's name reaches a terminal as he wrote it.

use serde_json::Value;

/// What ends a line: Unicode's mandatory breaks.
const LINE_ENDS: [char; 7] = [
    '\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}',
];

/// Text without control characters and invisible marks, so that nobody's name can move the cursor, hide a line or look
/// like another name.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|letter| !is_unsafe(*letter)).collect()
}

/// Like [`clean`], for output of several lines: line ends and tabs stay.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars()
        .filter(|letter| matches!(letter, '\n' | '\t') || !is_unsafe(*letter))
        .collect()
}

/// Like [`clean`], for what has to stay in one line, such as a cell of a table: a mark stands between two lines, and a
/// tab is a space.
pub(crate) fn clean_line(text: &str) -> String {
    let spaced = text.replace('\t', " ");
    let lines = spaced.split(LINE_ENDS).map(clean);
    let shown: Vec<String> = lines.filter(|line| !line.trim().is_empty()).collect();
    shown.join(" | ")
}

/// Milliseconds as people read them.
pub(crate) fn duration(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{millis} ms"),
        10_000..120_000 => format!("{} s", millis / 1000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} days", millis / 86_400_000),
    }
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        _ => format!("{}.{} GiB", count >> 30, ((count % (1 << 30)) * 10) >> 30),
    }
}

/// A value as JSON of several lines.
pub(super) fn json(value: &Value) -> String {
    escaped(&format!("{value:#}"))
}

/// A value as JSON in one line.
pub(super) fn json_line(value: &Value) -> String {
    escaped(&value.to_string())
}

/// A value as YAML 1.2, without a line end: every string that could be read as something else is quoted as in JSON.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(&mut text, value, 0);
    text.trim_start_matches(['\n', ' ']).to_owned()
}

/// The ids in an answer: of each item of a list, or of the thing itself. Releases are NAME:VERSION.
pub(super) fn ids(value: &Value) -> Vec<String> {
    let lists = ["items", "processes", "nodes", "contexts"];
    let list = lists.iter().find_map(|name| value[name].as_array());
    let named = |one: &Value| {
        let text = |name: &str| one[name].as_str().map(clean);
        let release = || Some(format!("{}:{}", text("name")?, text("version")?));
        let number = || one["id"].as_u64().map(|id| id.to_string());
        let id = text("id").or_else(number).or_else(release);
        id.or_else(|| text("name"))
            .or_else(|| one.as_str().map(clean))
    };
    match list {
        Some(items) => items.iter().filter_map(named).collect(),
        None => named(value).into_iter().collect(),
    }
}

/// Control characters, marks that reorder text, and letters that nobody sees (Unicode's default ignorable ones, and the
/// empty Braille pattern). The two joiners stay: words of some languages and composed emoji need them.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// JSON text in which unsafe letters, which only strings can hold, are escapes. Line ends are the text's own.
fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter == '\n' || !is_unsafe(letter) {
            safe.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            safe.push_str(&format!("\\u{unit:04x}"));
        }
    }
    safe
}

/// Writes behind what is there already: ` scalar`, or the lines of a list or an object.
fn write_yaml(text: &mut String, value: &Value, indent: usize) {
    let line = format!("\n{:indent$}", "");
    match value {
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&line);
                text.push('-');
                match item {
                    // The first member stands behind the dash, the others below it.
                    Value::Object(members) if !members.is_empty() => {
                        let mut inner = String::new();
                        write_yaml(&mut inner, item, indent + 2);
                        text.push(' ');
                        text.push_str(inner.trim_start());
                    }
                    _ => write_yaml(text, item, indent + 2),
                }
            }
        }
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                text.push_str(&line);
                text.push_str(&yaml_string(name));
                text.push(':');
                write_yaml(text, member, indent + 2);
            }
        }
        Value::String(word) => text.push_str(&format!(" {}", yaml_string(word))),
        other => text.push_str(&format!(" {other}")),
    }
}

/// A string without quotes where every reader takes it for a string, otherwise as JSON writes it.
fn yaml_string(word: &str) -> String {
    let is_plain = word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !is_reserved(word);
    if is_plain {
        return word.to_owned();
    }
    escaped(&Value::from(word).to_string())
}

/// Words that some version of YAML takes for a truth value, for nothing or for a number.
fn is_reserved(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let words = [
        "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "infinity",
    ];
    words.contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{bytes, clean, clean_line, clean_lines, duration, ids, json as to_json, yaml};

    /// One name with everything that a terminal obeys or an eye misses.
    const EVIL: &str =
        "a\u{1b}[31m\u{1b}]0;owned\u{7}b\r\n\u{9b}2J\u{202e}c\u{2066}\u{200b}\u{7f}\u{e0041}d";

    #[test]
    fn no_control_character_of_a_server_reaches_the_terminal() {
        assert_eq!(clean(EVIL), "a[31m]0;ownedb2Jcd");
        assert_eq!(clean_lines("a\tb\r\nc\u{1b}"), "a\tb\nc");
        assert_eq!(clean_line("a\tb\nforged row"), "a b | forged row");
        let told = "web.0 ended; its last lines:\nlicensed\r\n\n  serving\u{2028}on\u{1b}[2J\n";
        let line = "web.0 ended; its last lines: | licensed |   serving | on[2J";
        assert_eq!(clean_line(told), line);
        let unseen = "a\u{ad}\u{115f}\u{1160}\u{3164}\u{ffa0}\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{180e}\u{2800}\u{34f}b";
        assert_eq!(clean(unseen), "ab");
        assert_eq!(clean("Zoë Ωmega 日本 👩‍🚒"), "Zoë Ωmega 日本 👩‍🚒");
    }

    #[test]
    fn json_and_yaml_escape_what_they_may_not_show_and_keep_its_meaning() {
        let value = json!({EVIL: [EVIL, {"plain": "x"}]});
        for text in [to_json(&value), yaml(&value)] {
            assert_eq!(clean_lines(&text), text);
            assert!(
                text.contains("\\u001b[31m") && text.contains("\\u202e"),
                "{text}"
            );
        }
        assert_eq!(
            serde_json::from_str::<Value>(&to_json(&value)).unwrap(),
            value
        );
        assert_eq!(
            serde_saphyr::from_str::<Value>(&yaml(&value)).unwrap(),
            value
        );
    }

    #[test]
    fn yaml_reads_back_as_what_was_written() {
        let value = json!({
            "items": [
                {"id": "x-0190", "empty": {}, "none": [], "nothing": null, "number": -1.5, "yes": true,
                    "nested": {"list": [[1, 2], ["a", "b: c", "- d", "#e", "", " f "]]}},
                "no", "true", "0x10", "1e3", "12:30", "2026-01-01", "~", "null", "Off", ".inf", "=", "line\nend", "é",
            ],
            "1": "a", "null": "b", "a b": "c",
        });
        let text = yaml(&value);
        assert_eq!(
            serde_saphyr::from_str::<Value>(&text).unwrap(),
            value,
            "{text}"
        );
        assert_eq!(
            yaml(&json!({"id": "x", "list": [{"a": 1, "b": "c d"}]})),
            "id: x\nlist:\n  - a: 1\n    b: \"c d\""
        );
        assert_eq!(yaml(&json!([])), "[]");
    }

    #[test]
    fn names_are_the_ids_of_what_is_shown() {
        let list = json!({"items": [{"id": "a", "name": "A"}, {"name": "demo", "version": "1.0"}, {"id": 3}]});
        assert_eq!(ids(&list), ["a", "demo:1.0", "3"]);
        assert_eq!(ids(&json!({"id": "a\nb"})), ["ab"]);
        assert!(ids(&Value::Null).is_empty());
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            [bytes(0), bytes(2048), bytes(5 << 20), bytes(3 << 29)],
            ["0 B", "2 KiB", "5 MiB", "1.5 GiB"]
        );
        assert_eq!(
            [duration(9_999), duration(10_000), duration(180_000)],
            ["9999 ms", "10 s", "3 min"]
        );
    }
}
