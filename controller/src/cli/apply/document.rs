//! A file of YAML or JSON as a tree whose every member knows its line. Anchors may be used; how much they make of a
//! small file is bounded, and so are depth and length.

use serde::{Deserialize, de};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Bytes of a file at most.
pub(super) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One place of the file.
#[derive(Debug)]
pub(super) struct Node {
    /// Its line, from 1.
    pub(super) line: u64,
    /// What is there.
    pub(super) kind: Kind,
}

/// What is at a place.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, a truth value, a number or a text.
    Scalar(Value),
    /// One after the other.
    List(Vec<Node>),
    /// By name, in the file's order; each with the line of the name.
    Map(Vec<(String, u64, Node)>),
}

/// Why a file cannot be read, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line, from 1.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) what: String,
}

impl Fault {
    /// Something wrong in this line.
    pub(super) fn new(line: u64, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

/// Reads all documents of a text.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Fault> {
    let documents: Result<Vec<Spanned<Tree>>, _> = serde_saphyr::from_multiple(text);
    match documents {
        Ok(documents) => Ok(documents.into_iter().map(Node::of).collect()),
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            let what = words(&error.to_string());
            Err(Fault::new(line, what))
        }
    }
}

/// What the parser says, in a line that repeats nothing of the file, which may hold secrets: only its first line says
/// what is wrong.
fn words(said: &str) -> String {
    let first = said.lines().next().unwrap_or_default();
    let what = first.split_once(": ").map_or(first, |(_, what)| what);
    let what = match what.split_once(": ") {
        Some((place, what)) if place.starts_with("line ") => what,
        _ => what,
    };
    let is_too_much = ["budget breached", "recursion limit exceeded"];
    if is_too_much.iter().any(|words| what.contains(words)) {
        return "it is too large, too deep, or its anchors make too much of it".to_owned();
    }
    match what.split_once(", set ") {
        Some((what, _)) if what.starts_with("duplicate mapping key") => {
            what.replacen("duplicate mapping key", "it is there twice", 1)
        }
        _ => what.to_owned(),
    }
}

impl Node {
    fn of(spanned: Spanned<Tree>) -> Self {
        let line = spanned.referenced.line();
        let kind = match spanned.value {
            Tree::Scalar(value) => Kind::Scalar(value),
            Tree::List(items) => Kind::List(items.into_iter().map(Self::of).collect()),
            Tree::Map(members) => {
                let members = members.into_iter().map(|(name, inner)| {
                    let line = name.referenced.line();
                    (name.value, line, Self::of(inner))
                });
                Kind::Map(members.collect())
            }
        };
        Self { line, kind }
    }

    /// The same without lines.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::value).collect(),
            Kind::Map(members) => {
                let members = members.iter();
                let members = members.map(|(name, _, inner)| (name.clone(), inner.value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

/// What the parser is asked for.
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> de::Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Tree::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Kind, read};

    #[test]
    fn documents_lists_and_json_are_read_with_their_lines() {
        let documents = read("a: 1\n---\n- b: [x, \"2\"]\n").unwrap();
        let values: Vec<_> = documents.iter().map(super::Node::value).collect();
        assert_eq!(values, [json!({"a": 1}), json!([{"b": ["x", "2"]}])]);
        assert_eq!((documents[0].line, documents[1].line), (1, 3));
        let json = read("{\n\t\"a\": \"\\ud83d\\ude00\",\n\t\"b\": null\n}").unwrap();
        assert_eq!(json[0].value(), json!({"a": "😀", "b": null}));
        let Kind::Map(members) = &json[0].kind else {
            panic!("a mapping")
        };
        assert_eq!((members[0].1, members[1].1), (2, 3));
        assert!(read("# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_one_line_that_repeats_nothing_of_the_file() {
        let fault = read("secret: hunter2\nsecret: hunter3\n").unwrap_err();
        assert_eq!(fault.line, 2);
        assert_eq!(fault.what, "it is there twice: secret");
        let fault = read("url: hunter2\n  more: x\n").unwrap_err();
        assert!(
            fault.line == 2 && !fault.what.contains("hunter2"),
            "{fault:?}"
        );
    }

    #[test]
    fn a_small_file_cannot_become_a_large_tree_or_a_deep_one() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        for text in [bomb, "[".repeat(100_000)] {
            let fault = read(&text).unwrap_err();
            assert!(fault.what.starts_with("it is too large"), "{fault:?}");
        }
    }
}
