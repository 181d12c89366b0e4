//! JSON without second meanings: a member that is given twice is refused by name, where most readers would quietly
//! take the last one.

use std::{cell::RefCell, fmt};

use dotmac_domain::reply::FieldError;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::problem::{MALFORMED, Problem};

/// Objects and lists inside one another at most; far below where readers of an answer that holds the value give up.
const DEPTH_MAX: usize = 32;

/// Reads one JSON value.
///
/// # Errors
/// When it is none (only the place is told, not the text), or a member is given twice.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let twice = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Place {
        path: String::new(),
        twice: &twice,
    };
    let read = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    let error = match read {
        Ok(value) if is_deeper(&value, DEPTH_MAX) => {
            let detail = format!("the body nests deeper than {DEPTH_MAX} objects and lists");
            return Err(Problem::new(&MALFORMED, detail));
        }
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Some(field) = twice.into_inner() {
        let allowed = "once".to_owned();
        return Err(Problem::fields(vec![FieldError {
            field,
            value: String::new(),
            allowed,
        }]));
    }
    let (line, column) = (error.line(), error.column());
    Err(Problem::new(
        &MALFORMED,
        format!("the body is not JSON at line {line}, column {column}"),
    ))
}

/// Whether objects and lists nest deeper than `depth`. The reader stops at 128 by itself.
fn is_deeper(value: &Value, depth: usize) -> bool {
    let deeper = |inner: &Value| is_deeper(inner, depth.saturating_sub(1));
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(deeper),
        Value::Object(members) => depth == 0 || members.values().any(deeper),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Where in the document a value is.
struct Place<'a> {
    path: String,
    twice: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
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
        let mut values = Vec::new();
        loop {
            let path = join(&self.path, &values.len().to_string());
            match items.next_element_seed(Place {
                path,
                twice: self.twice,
            })? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = join(&self.path, &name);
            if values.contains_key(&name) {
                self.twice.replace(Some(path));
                return Err(A::Error::custom("a member is given twice"));
            }
            let value = members.next_value_seed(Place {
                path,
                twice: self.twice,
            })?;
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}

fn join(path: &str, name: &str) -> String {
    let name: String = name.chars().take(100).collect();
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
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
        assert!(parse(nested(200).as_bytes()).is_err());
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
        let deep = "[".repeat(10_000);
        for text in ["", "{", "{} {}", "secret", r#"{"a":"secret"#, &deep] {
            let problem = format!("{:?}", parse(text.as_bytes()).unwrap_err());
            assert!(problem.contains("is not JSON at line"), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
