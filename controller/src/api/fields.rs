//! Reads the members of a body or the parameters of a query one by one, and collects everything that is wrong with
//! them: field, value, what would be allowed. Whatever was not asked for is refused by name, its value never shown.

use std::{ops::RangeInclusive, str::FromStr};

use dotmac_domain::reply::FieldError;
use serde_json::{Map, Value};

mod number;
mod time;

pub(super) use number::whole;

use number::digits;

use super::problem::{MALFORMED, Problem};

/// Characters of a value that an error repeats at most.
const VALUE_MAX: usize = 200;
/// Parameters of a query at most.
const PARAMETERS_MAX: usize = 32;

/// A text that must not be shown: it has no `Debug`.
pub(super) struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Members that are still to be read, and what was wrong so far.
#[derive(Debug)]
pub(super) struct Fields {
    members: Map<String, Value>,
    prefix: String,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
    is_query: bool,
}

impl Fields {
    /// The members of a body.
    pub(super) fn of_body(body: Value) -> Result<Self, Problem> {
        match body {
            Value::Object(members) => Ok(Self::new(members, String::new(), false)),
            _ => Err(Problem::new(&MALFORMED, "the body is JSON, but no object")),
        }
    }

    /// The parameters of a query; each may be given once.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self, Problem> {
        let uri = format!("/?{}", query.unwrap_or_default());
        let pairs = uri.parse().ok().and_then(|uri: axum::http::Uri| {
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok()
        });
        let Some(axum::extract::Query(pairs)) = pairs else {
            return Err(Problem::new(
                &MALFORMED,
                "the query of the address cannot be read",
            ));
        };
        if pairs.len() > PARAMETERS_MAX {
            let detail = format!("a query has at most {PARAMETERS_MAX} parameters");
            return Err(Problem::new(&MALFORMED, detail));
        }
        let mut fields = Self::new(Map::new(), String::new(), true);
        for (name, value) in pairs {
            if fields.members.insert(name.clone(), value.into()).is_some() {
                fields.refuse(&name, "", "once");
            }
        }
        Ok(fields)
    }

    fn new(members: Map<String, Value>, prefix: String, is_query: bool) -> Self {
        Self {
            members,
            prefix,
            known: Vec::new(),
            errors: Vec::new(),
            is_query,
        }
    }

    /// Takes a member out; null counts as absent.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Whether a member is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Notes that a member is missing that must be there.
    fn demand(&mut self, name: &'static str, allowed: &str) -> Option<()> {
        if self.has(name) {
            return Some(());
        }
        self.known.push(name);
        self.members.remove(name);
        self.refuse(name, "", format!("required: {allowed}"));
        None
    }

    /// Notes a wrong value.
    pub(super) fn refuse(&mut self, name: &str, value: &str, allowed: impl Into<String>) {
        let name: String = name.chars().take(100).collect();
        let field = format!("{}{name}", self.prefix);
        let value = value.chars().take(VALUE_MAX).collect();
        self.errors.push(FieldError {
            field,
            value,
            allowed: allowed.into(),
        });
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.refuse(name, &show(&other), "a text");
                None
            }
        }
    }

    /// A text of a kind.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, allowed: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.refuse(name, &text, allowed);
        }
        parsed
    }

    /// A text of a kind that must be there.
    pub(super) fn required<T: FromStr>(&mut self, name: &'static str, allowed: &str) -> Option<T> {
        self.demand(name, allowed)?;
        self.parsed(name, allowed)
    }

    /// A text of one line that shows something: no control characters, not only blanks.
    pub(super) fn line(&mut self, name: &'static str, characters_max: usize) -> Option<String> {
        let text = self.text(name)?;
        let is_line = text.chars().count() <= characters_max
            && !text.contains(char::is_control)
            && !text.trim().is_empty();
        if is_line {
            return Some(text);
        }
        self.refuse(name, &text, line_of(characters_max));
        None
    }

    /// A [`Self::line`] that must be there.
    pub(super) fn required_line(
        &mut self,
        name: &'static str,
        characters_max: usize,
    ) -> Option<String> {
        if self.has(name) {
            return self.line(name, characters_max);
        }
        self.required(name, &line_of(characters_max))
    }

    /// A text of one line, which may be empty.
    pub(super) fn note(&mut self, name: &'static str, characters_max: usize) -> Option<String> {
        let text = self.text(name)?;
        if text.chars().count() <= characters_max && !text.contains(char::is_control) {
            return Some(text);
        }
        let allowed = format!("at most {characters_max} characters, no control characters");
        self.refuse(name, &text, allowed);
        None
    }

    /// One of these words.
    pub(super) fn choice(
        &mut self,
        name: &'static str,
        words: &[&'static str],
    ) -> Option<&'static str> {
        let text = self.text(name)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            self.refuse(name, &text, words.join(", "));
        }
        found
    }

    /// A number within a range.
    pub(super) fn number<N: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<N> {
        let value = self.take(name)?;
        let number = match &value {
            Value::String(text) if self.is_query => digits(text),
            other => whole(other),
        };
        let fits = number.filter(|number| range.contains(number));
        let found = fits.and_then(|number| N::try_from(number).ok());
        if found.is_none() {
            self.refuse(
                name,
                &show(&value),
                format!("{} to {}", range.start(), range.end()),
            );
        }
        found
    }

    /// A number within a range that must be there.
    pub(super) fn required_number<N: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<N> {
        self.demand(name, &format!("{} to {}", range.start(), range.end()))?;
        self.number(name, range)
    }

    /// A value that must be there and that `read` understands.
    pub(super) fn quantity<T>(
        &mut self,
        name: &'static str,
        read: fn(&Value) -> Option<T>,
        allowed: &str,
    ) -> Option<T> {
        let value = self.take(name);
        let found = value.as_ref().and_then(read);
        if found.is_none() {
            self.refuse(name, &value.as_ref().map(show).unwrap_or_default(), allowed);
        }
        found
    }

    /// A yes or no.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        let found = match &value {
            Value::String(text) if self.is_query => text.parse().ok(),
            other => other.as_bool(),
        };
        if found.is_none() {
            self.refuse(name, &show(&value), "true or false");
        }
        found
    }

    /// A text that no error repeats.
    pub(super) fn secret(&mut self, name: &'static str, characters_max: usize) -> Option<Secret> {
        match self.take(name)? {
            Value::String(text)
                if (1..=characters_max).contains(&text.chars().count())
                    && !text.contains(char::is_control) =>
            {
                Some(Secret(text))
            }
            _ => {
                let allowed = line_of(characters_max);
                self.refuse(name, "", allowed);
                None
            }
        }
    }

    /// The members of an object, none of whose values an error repeats.
    pub(super) fn object(&mut self, name: &'static str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(members) => Some(members),
            _ => {
                self.refuse(name, "", "an object");
                None
            }
        }
    }

    /// The members of an object that are read like these; to be given to [`Self::absorb`] afterwards.
    pub(super) fn nested(&mut self, name: &'static str) -> Option<Self> {
        let members = self.object(name)?;
        Some(Self::new(
            members,
            format!("{}{name}.", self.prefix),
            self.is_query,
        ))
    }

    /// Takes over what was wrong with nested members.
    pub(super) fn absorb(&mut self, nested: Self) {
        self.errors.extend(nested.into_errors());
    }

    /// Everything was read.
    ///
    /// # Errors
    /// With everything that was wrong, unknown members too.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let errors = self.into_errors();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Problem::fields(errors))
        }
    }

    /// Everything was read and made into `value`, which is `None` only if something was wrong.
    ///
    /// # Errors
    /// With everything that was wrong, unknown members too.
    pub(super) fn finish_with<T>(self, value: Option<T>) -> Result<T, Problem> {
        self.finish()?;
        value.ok_or_else(|| Problem::fields(Vec::new()))
    }

    fn into_errors(mut self) -> Vec<FieldError> {
        let unknown: Vec<String> = self.members.keys().take(PARAMETERS_MAX).cloned().collect();
        let known = self.known.join(", ");
        for name in unknown {
            let allowed = if known.is_empty() {
                "no field at all".to_owned()
            } else {
                format!("unknown field; known are {known}")
            };
            self.refuse(&name, "", allowed);
        }
        self.errors
    }
}

fn line_of(characters_max: usize) -> String {
    format!("1 to {characters_max} characters, no control characters")
}

/// A value as an error repeats it.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Fields;

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_secrets_are_not_repeated() {
        let body =
            json!({"name": 5, "count": 11, "url": 7, "hidden": "canary", "more": {"inner": "x"}});
        let mut fields = Fields::of_body(body).unwrap();
        assert_eq!(fields.text("name"), None);
        assert_eq!(fields.number::<u32>("count", 1..=10), None);
        assert!(fields.secret("url", 10).is_none());
        assert_eq!(fields.required::<String>("missing", "a name"), None);
        let nested = fields.nested("more").unwrap();
        fields.absorb(nested);
        let problem = format!("{:?}", fields.finish().unwrap_err());
        for (field, value) in [
            ("name", "5"),
            ("count", "11"),
            ("url", ""),
            ("missing", ""),
            ("more.inner", ""),
            ("hidden", ""),
        ] {
            let expected = format!("field: {field:?}, value: {value:?}");
            assert!(problem.contains(&expected), "{expected} in {problem}");
        }
        assert!(!problem.contains("canary"));
    }

    #[test]
    fn numbers_and_flags_of_a_query_are_texts_and_each_parameter_comes_once() {
        let mut fields = Fields::of_query(Some("limit=5&all=true&a%20b=c")).unwrap();
        assert_eq!(fields.number::<usize>("limit", 1..=10), Some(5));
        assert_eq!(fields.flag("all"), Some(true));
        assert_eq!(fields.text("a b"), Some("c".into()));
        assert!(fields.finish().is_ok());
        let mut fields = Fields::of_query(Some("limit=5&limit=6")).unwrap();
        let _ = fields.number::<usize>("limit", 1..=10);
        assert!(fields.finish().is_err());
    }
}
