//! Finds in a query which series it asks for, and by which labels. It knows just enough of PromQL for that, and judges
//! nothing else.

use std::collections::BTreeSet;

/// What one query needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Series, each with the labels that are matched.
    pub series: Vec<(String, BTreeSet<String>)>,
    /// Labels by which results are grouped or joined.
    pub grouped: BTreeSet<String>,
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
        let mut labels = BTreeSet::new();
        if next == Some("{") {
            let inside: Vec<&String> = tokens[at + 1..]
                .iter()
                .take_while(|one| *one != "}")
                .collect();
            labels.extend(
                inside
                    .iter()
                    .filter(|one| is_word(one))
                    .map(|one| (*one).clone()),
            );
            at += inside.len() + 1;
        }
        needs.series.push((token.to_owned(), labels));
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

fn is_word(token: &str) -> bool {
    token.starts_with(|one: char| one.is_ascii_alphabetic() || one == '_')
}

/// Words, braces and parentheses; strings, numbers and ranges are left out.
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
        let is_kept = is_word(token) || matches!(token, "(" | ")" | "{" | "}");
        if is_kept {
            found.push(token.to_owned());
        }
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{legend, needs};

    #[test]
    fn series_and_labels_are_found() {
        let query = r#"topk(5, histogram_quantile(0.99, sum by (le, route) (rate(a_bucket{x="1", y=~"b|c"}[5m])))) / (sum(b) or vector(0)) - b offset 5m"#;
        let found = needs(query);
        let labels = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let expected = [
            ("a_bucket".to_owned(), labels(&["x", "y"])),
            ("b".to_owned(), labels(&[])),
            ("b".to_owned(), labels(&[])),
        ];
        assert_eq!(found.series, expected);
        assert_eq!(found.grouped, labels(&["le", "route"]));
        assert_eq!(legend("{{a}} and {{ b }}"), labels(&["a", "b"]));
    }
}
