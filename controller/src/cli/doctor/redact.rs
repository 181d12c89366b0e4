//! Takes out of a text whatever could be a secret: those that are known, values with a telling name, and everything
//! that looks like a key. It takes out too much rather than too little.

use serde_json::Value;

/// What stands where something was.
pub(super) const REDACTED: &str = "[redacted]";
/// Letters of a known secret below which it would hide ordinary words.
const KNOWN_LETTERS_MIN: usize = 8;
/// Letters from which a word without gaps looks like a key. Ids of requests have 32.
const KEY_LETTERS_MIN: usize = 33;
/// Parts of names whose values are secret.
const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "authorization",
    "cookie",
    "apikey",
    "api_key",
    "private",
    "database_url",
    "redis_url",
    "env",
];
/// What the tokens of this product begin with.
const PREFIXES: [&str; 3] = ["dotmac_", "dotmac-token-", "dotmac-join-"];

/// Secrets that are known, and the way to take them and others out.
#[derive(Default)]
pub(super) struct Redactor {
    known: Vec<String>,
}

impl Redactor {
    /// Knows this secret from now on; each line of it as well.
    pub(super) fn know(&mut self, secret: &str) {
        let parts = secret.lines().map(str::trim).chain([secret.trim()]);
        let long = parts.filter(|part| part.len() >= KNOWN_LETTERS_MIN);
        self.known.extend(long.map(str::to_owned));
    }

    /// Lines of a log or a configuration. Lines that are JSON stay JSON.
    pub(super) fn lines(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for line in text.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(value @ Value::Object(_)) => clean.push_str(&self.value(&value).to_string()),
                _ => clean.push_str(&self.text(line)),
            }
            clean.push('\n');
        }
        clean
    }

    /// A value with all its members.
    pub(super) fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| {
                    let is_open = member.is_null() || member.is_boolean() || !is_secret(name);
                    let member = if is_open {
                        self.value(member)
                    } else {
                        REDACTED.into()
                    };
                    (self.text(name), member)
                })
                .collect(),
            other => other.clone(),
        }
    }

    /// A text.
    fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = text.replace(secret.as_str(), REDACTED);
        }
        let text = without_passwords(&text);
        let mut clean = String::with_capacity(text.len());
        let mut takes_next = false;
        for word in text.split_inclusive(|letter: char| !is_key_letter(letter)) {
            let (word, gap) = match word.char_indices().next_back() {
                Some((place, letter)) if !is_key_letter(letter) => word.split_at(place),
                _ => (word, ""),
            };
            let is_key = is_key(word) || (takes_next && !word.is_empty());
            clean.push_str(if is_key { REDACTED } else { word });
            clean.push_str(gap);
            if !word.is_empty() {
                takes_next = announces(word, gap);
            } else if gap == "\n" {
                takes_next = false;
            }
        }
        clean
    }
}

/// Whether the next word is a secret: `password: x`, `token=x`, `Bearer x`.
fn announces(word: &str, gap: &str) -> bool {
    word.eq_ignore_ascii_case("bearer")
        || word.eq_ignore_ascii_case("basic")
        || (is_secret(word) && matches!(gap, "=" | ":" | "\"" | "'"))
}

/// Whether a name says that its value is secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let is_named = SECRET_NAMES.iter().any(|part| match *part {
        "env" => name == "env",
        part => name.contains(part),
    });
    // What is public of a secret: its id, its file, when it ends.
    is_named
        && !["_id", "_file", "_at", "_digest"]
            .iter()
            .any(|end| name.ends_with(end))
}

/// Whether a word looks like a key: one of our tokens, or long and without gaps.
fn is_key(word: &str) -> bool {
    PREFIXES
        .iter()
        .any(|prefix| word.starts_with(prefix) && word.len() > prefix.len() + 16)
        || word.split(['.', '-', ':']).any(|part| {
            part.len() >= KEY_LETTERS_MIN
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+/_=".contains(&byte))
                && !is_path(part)
        })
}

/// Paths have slashes between short names; keys have long stretches.
fn is_path(word: &str) -> bool {
    word.contains('/')
        && word
            .split(['/', '_'])
            .all(|part| part.len() < KEY_LETTERS_MIN - 8)
}

fn is_key_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "+/_.-".contains(letter)
}

/// `scheme://user:password@host` without what stands before the `@`.
fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, behind) = rest.split_at(start + 3);
        clean.push_str(before);
        let end = behind.find(|letter: char| letter.is_whitespace() || "\"'<>".contains(letter));
        let authority = &behind[..end.unwrap_or(behind.len())];
        rest = match authority.rfind('@') {
            Some(at) => {
                clean.push_str(REDACTED);
                &behind[at..]
            }
            None => behind,
        };
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{REDACTED, Redactor};

    #[test]
    fn what_could_be_a_secret_is_taken_out_and_the_rest_stays() {
        let mut redactor = Redactor::default();
        redactor.know("my own canary\n");
        let hides = [
            "GET / Authorization: Bearer canary-1",
            "postgres://isp:canary-2@db.example:5432/isp",
            "redis://:can/ary@h",
            "password=canary-3",
            "api_key: canary4",
            "the key is 6361966e6172795f6361966e6172795f6361966e6172795f6361966e6172795f",
            "sealed Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
            "dotmac-token-1.00112233445566778899",
            "dotmac_pat_0011223344556677_canarycanarycanary",
            "this is my own canary here",
        ];
        for text in hides {
            let clean = redactor.lines(text);
            assert!(
                clean.contains(REDACTED) && !clean.contains("canary"),
                "{clean}"
            );
            for secret in ["canary-1", "636196", "Y2Fu", "00112233"] {
                assert!(!clean.contains(secret), "{clean}");
            }
        }
        let stays = [
            "deployment demo-isp-0190a1b2 waits: no agent is connected in do-fra1",
            "/var/lib/dotmac/controller-1/data/log/segments/0001.log",
            "request 0123456789abcdef0123456789abcdef took 12 ms",
            "http://127.0.0.1:8000/api/v1/tenant-orchestration/deployments",
        ];
        for text in stays {
            assert_eq!(redactor.lines(text).trim_end(), text);
        }
    }

    #[test]
    fn members_with_telling_names_are_taken_out_at_any_depth() {
        let value = json!({"level": "INFO", "fields": {"token_id": "0123456789abcdef", "access_token": "canary",
            "nested": [{"database_url": "canary", "Set-Cookie": "canary", "env": {"A": "canary"}, "has_secret": true}]}});
        let expected = json!({"level": "INFO", "fields": {"token_id": "0123456789abcdef", "access_token": REDACTED,
            "nested": [{"database_url": REDACTED, "Set-Cookie": REDACTED, "env": REDACTED, "has_secret": true}]}});
        let redactor = Redactor::default();
        assert_eq!(redactor.value(&value), expected);
        let line = redactor.lines(&value.to_string());
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            expected
        );
    }
}
