//! Finds in a query which series it asks for, and by which labels and values. It knows just enough of PromQL for that, and
//! judges nothing else.

use std::collections::BTreeSet;

/// What one query needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Series, each with what is matched.
    pub series: Vec<(String, Vec<Matcher>)>,
    /// Labels by which results are grouped or joined.
    pub grouped: BTreeSet<String>,
}

/// One condition on a label, whether it is to hold or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// The values that it names; of a pattern those on each side of a `|`.
    pub values: Vec<Pattern>,
}

/// A value, or the beginning of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Value(String),
    /// Those that begin like this: `x.*`.
    Prefix(String),
}

impl Pattern {
    /// Whether it means this value.
    #[must_use]
    pub fn fits(&self, value: &str) -> bool {
        match self {
            Self::Value(wanted) => value == wanted,
            Self::Prefix(start) => value.starts_with(start.as_str()),
        }
    }

    /// Of a pattern nothing but `|` and `.*` at its end is known; whatever else it holds fits nothing.
    fn of(text: &str, is_pattern: bool) -> Vec<Self> {
        if !is_pattern {
            return vec![Self::Value(text.to_owned())];
        }
        let one = |part: &str| match part.strip_suffix(".*") {
            Some(start) => Self::Prefix(start.to_owned()),
            None => Self::Value(part.to_owned()),
        };
        text.split('|').map(one).collect()
    }
}

/// Words that are followed by a list of labels.
const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Words between expressions.
const BETWEEN: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// What a query needs.
#[must_use]
pub fn needs(query: &str) -> Needs {
    let tokens = tokens(query);
    let mut needs = Needs::default();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        let next = tokens.get(at + 1).map(String::as_str);
        at += 1;
        if !is_word(token) || BETWEEN.contains(&token) {
            continue;
        }
        if GROUPING.contains(&token) && next == Some("(") {
            let list = tokens[at + 1..].iter().take_while(|one| *one != ")");
            needs
                .grouped
                .extend(list.filter(|one| is_word(one)).cloned());
            at += tokens[at..].iter().take_while(|one| *one != ")").count();
            continue;
        }
        let is_function = next.is_some_and(|next| next == "(" || GROUPING[..2].contains(&next));
        if is_function {
            continue;
        }
        let mut matched = Vec::new();
        if next == Some("{") {
            let inside: Vec<&String> = tokens[at + 1..]
                .iter()
                .take_while(|one| *one != "}")
                .collect();
            at += inside.len() + 1;
            matched = matchers(&inside);
        }
        needs.series.push((token.to_owned(), matched));
    }
    needs
}

/// The labels that a legend names in double braces.
#[must_use]
pub fn legend(text: &str) -> BTreeSet<String> {
    let parts = text.split("{{").skip(1);
    let names = parts.filter_map(|part| part.split_once("}}"));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// What stands between braces: labels, `~` where a pattern follows, and strings.
fn matchers(inside: &[&String]) -> Vec<Matcher> {
    let mut found: Vec<Matcher> = Vec::new();
    let mut is_pattern = false;
    for token in inside {
        if is_word(token) {
            let (label, values) = ((*token).clone(), Vec::new());
            found.push(Matcher { label, values });
            is_pattern = false;
        } else if *token == "~" {
            is_pattern = true;
        } else if let Some(matcher) = found.last_mut() {
            matcher.values = Pattern::of(token.trim_matches('"'), is_pattern);
        }
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|one: char| one.is_ascii_alphabetic() || one == '_')
}

/// Words, strings, braces, parentheses and `~`; numbers and ranges are left out.
fn tokens(query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(one) = rest.chars().next() {
        let length = match one {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            one if one.is_ascii_alphanumeric() || one == '_' || one == ':' => rest
                .find(|one: char| !(one.is_ascii_alphanumeric() || "_:.".contains(one)))
                .unwrap_or(rest.len()),
            one => one.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_kept = is_word(token) || one == '"' || matches!(token, "(" | ")" | "{" | "}" | "~");
        if is_kept {
            found.push(token.to_owned());
        }
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Matcher, Pattern, legend, needs};

    #[test]
    fn series_and_labels_are_found() {
        let query = r#"topk(5, histogram_quantile(0.99, sum by (le, route) (rate(a_bucket{x!="1", y=~"b|c.*"}[5m])))) / (sum(b) or vector(0)) - b offset 5m"#;
        let found = needs(query);
        let labels = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(ToString::to_string).collect()
        };
        let matcher = |label: &str, values: Vec<Pattern>| Matcher {
            label: label.to_owned(),
            values,
        };
        let (one, b) = (Pattern::Value("1".into()), Pattern::Value("b".into()));
        let matched = vec![
            matcher("x", vec![one]),
            matcher("y", vec![b, Pattern::Prefix("c".into())]),
        ];
        let expected = [
            ("a_bucket".to_owned(), matched),
            ("b".to_owned(), vec![]),
            ("b".to_owned(), vec![]),
        ];
        assert_eq!(found.series, expected);
        assert_eq!(found.grouped, labels(&["le", "route"]));
        assert_eq!(legend("{{a}} and {{ b }}"), labels(&["a", "b"]));
    }
}
