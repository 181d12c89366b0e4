//! JSON without second meanings: a member that is given twice is refused by name, where most readers would quietly
//! take the last one.

use std::{cell::RefCell, fmt};

use dotmac_domain::reply::FieldError;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    fields::whole,
    problem::{MALFORMED, Problem},
};

/// Objects and lists inside one another at most; far below where readers of an answer that holds the value give up.
const DEPTH_MAX: usize = 32;

/// Characters of a member's name that an error repeats at most.
const NAME_MAX: usize = 100;

/// Reads one JSON value.
///
/// # Errors
/// When it is none (only the place is told, not the text), nests too deep, or a member is given twice.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let wrong = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let root = Place {
        above: None,
        depth: 0,
        wrong: &wrong,
    };
    let read = root
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    let error = match read {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    Err(match wrong.into_inner() {
        Some(Wrong::Twice(field)) => Problem::fields(vec![FieldError {
            field,
            value: String::new(),
            allowed: "once".to_owned(),
        }]),
        Some(Wrong::Deep) => {
            let detail = format!("the body nests deeper than {DEPTH_MAX} objects and lists");
            Problem::new(&MALFORMED, detail)
        }
        None => {
            let (line, column) = (error.line(), error.column());
            let detail = format!("the body is not JSON at line {line}, column {column}");
            Problem::new(&MALFORMED, detail)
        }
    })
}

/// The same value with its whole numbers written without a point: 3.0 and 3 are the same in JSON.
pub(super) fn with_whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(_) => whole(&value).map_or(value, Value::from),
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, with_whole_numbers(value)))
            .collect(),
        other => other,
    }
}

/// What JSON allows and this reader does not.
enum Wrong {
    Twice(String),
    Deep,
}

/// Where in the document a value is. The path is put together only when something is wrong there.
struct Place<'a> {
    above: Option<(&'a Place<'a>, Step<'a>)>,
    depth: usize,
    wrong: &'a RefCell<Option<Wrong>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        let Some((above, step)) = self.above else {
            return String::new();
        };
        let mut path = above.path();
        if !path.is_empty() {
            path.push('.');
        }
        match step {
            Step::Member(name) => path.extend(name.chars().take(NAME_MAX)),
            Step::Item(index) => path.push_str(&index.to_string()),
        }
        path
    }

    fn below<'b>(&'b self, step: Step<'b>) -> Place<'b> {
        Place {
            above: Some((self, step)),
            depth: self.depth + 1,
            wrong: self.wrong,
        }
    }

    /// That another list or object may begin here.
    fn expect_shallow<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < DEPTH_MAX {
            return Ok(());
        }
        self.wrong.replace(Some(Wrong::Deep));
        Err(E::custom("it nests too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for &Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Place<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.expect_shallow()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(&self.below(Step::Item(values.len())))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.expect_shallow()?;
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let place = self.below(Step::Member(&name));
            if values.contains_key(&name) {
                self.wrong.replace(Some(Wrong::Twice(place.path())));
                return Err(A::Error::custom("a member is given twice"));
            }
            let value = members.next_value_seed(&place)?;
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn what_nests_too_deep_is_refused_before_anything_keeps_it() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert!(parse(nested(33).as_bytes()).is_err());
        for text in [nested(33), nested(200), "[".repeat(100_000)] {
            let problem = format!("{:?}", parse(text.as_bytes()).unwrap_err());
            assert!(problem.contains("deeper than 32"), "{problem}");
        }
        let objects = format!("{}1{}", r#"{"a":"#.repeat(33), "}".repeat(33));
        assert!(parse(objects.as_bytes()).is_err());
    }

    #[test]
    fn a_value_is_read_as_everybody_reads_it() {
        let text = r#"{"a":[1,-2,2.5,"x",null,true],"b":{"c":{}}}"#;
        assert_eq!(
            parse(text.as_bytes()).unwrap(),
            json!({"a": [1, -2, 2.5, "x", null, true], "b": {"c": {}}})
        );
    }

    #[test]
    fn a_member_given_twice_is_named() {
        for (text, field) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"x":[{"y":1,"y":2}]}"#, "x.0.y"),
        ] {
            let problem = format!("{:?}", parse(text.as_bytes()).unwrap_err());
            assert!(problem.contains(&format!("field: {field:?}")), "{problem}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_without_repeating_it() {
        for text in [
            "",
            "{",
            "{} {}",
            "secret",
            r#"{"a":"secret"#,
            "\u{feff}{}",
            "{\"a\":NaN}",
        ] {
            let problem = format!("{:?}", parse(text.as_bytes()).unwrap_err());
            assert!(problem.contains("is not JSON at line"), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
