//! What looks like a secret in somebody's JSON: by the name of the member, or by the value itself. It would rather find
//! too much: what is sealed still reaches the instance, and what is masked stays in the instance.

use serde_json::{Map, Value};

/// What stands in the place of what was masked.
pub const MASK: &str = "[masked]";

/// Parts of a name that tell by themselves.
const SECRET_PARTS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "key",
    "credential",
    "dsn",
    "private",
    "bearer",
    "connectionstring",
    "signature",
];
/// Short words that tell only when they stand alone in a name: `smtp_pass` does, `bypass_mode` does not.
const SECRET_WORDS: [&str; 11] = [
    "pwd", "pass", "pin", "auth", "jwt", "cert", "otp", "psk", "salt", "cookie", "session",
];
/// Names whose value inside a text is secret: `host=db;Password=x`, `https://h/?token=x`.
const SECRET_ASSIGNMENTS: [&str; 8] = [
    "password=",
    "passwd=",
    "pwd=",
    "pass=",
    "secret=",
    "token=",
    "key=",
    "signature=",
];

/// Whether the value of a member with this name is secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let words = words(name);
    let joined = words.concat();
    SECRET_PARTS.iter().any(|part| joined.contains(part))
        || words
            .iter()
            .any(|word| SECRET_WORDS.contains(&word.as_str()))
}

/// Whether a text is secret whatever it is called: an address with a user in it, an assignment of a secret, a PEM
/// block, a signed token, or an authorization header.
#[must_use]
pub fn is_secret_text(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let squeezed: String = lower.chars().filter(|one| !one.is_whitespace()).collect();
    has_userinfo(text)
        || SECRET_ASSIGNMENTS
            .iter()
            .any(|name| squeezed.contains(name))
        || lower.contains("-----begin")
        || ["bearer ", "basic "]
            .iter()
            .any(|scheme| lower.starts_with(scheme))
        || is_signed_token(text)
}

/// Puts [`MASK`] in the place of everything that looks like a secret; a yes, a no and a null are none, whatever they are
/// called. As deep as the value goes.
pub fn mask(members: &mut Map<String, Value>) {
    for (name, value) in members {
        mask_value(value, is_secret_name(name));
    }
}

fn mask_value(value: &mut Value, is_secret: bool) {
    match value {
        Value::Object(members) if is_secret => {
            for inner in members.values_mut() {
                mask_value(inner, true);
            }
        }
        Value::Object(members) => mask(members),
        Value::Array(items) => {
            for item in items {
                mask_value(item, is_secret);
            }
        }
        Value::String(text) if is_secret || is_secret_text(text) => *value = MASK.into(),
        Value::Number(_) if is_secret => *value = MASK.into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Words of a name, in lower case: split at signs and where upper case begins.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for one in name.chars() {
        let begins = !one.is_alphanumeric() || (one.is_uppercase() && before.is_lowercase());
        if begins && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if one.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(one.to_lowercase());
        }
        before = one;
    }
    words
}

/// Whether some address in the text names a user.
fn has_userinfo(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let end = |one: char| matches!(one, '/' | '?' | '#') || one.is_whitespace();
        rest.split(end).next().unwrap_or_default().contains('@')
    })
}

/// Whether a text has the form of a JSON Web Token (RFC 7519): three parts, the first a JSON object in base64url.
fn is_signed_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.matches('.').count() == 2
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{is_secret_name, is_secret_text, mask};

    #[test]
    fn what_looks_secret_is_masked_however_deep_and_the_rest_stays() {
        let mut payload = json!({
            "subscriber": "s-1", "password": "hunter2", "pin": 1234, "has_token": true, "token": null,
            "nas": [{"address": "10.0.0.1", "radius_secret": {"value": "x", "bits": 8}}],
            "note": "see postgres://u:p@h/d",
        });
        let Value::Object(members) = &mut payload else {
            unreachable!("an object")
        };
        mask(members);
        let masked = json!({
            "subscriber": "s-1", "password": "[masked]", "pin": "[masked]", "has_token": true, "token": null,
            "nas": [{"address": "10.0.0.1", "radius_secret": {"value": "[masked]", "bits": "[masked]"}}],
            "note": "[masked]",
        });
        assert_eq!(payload, masked);
    }

    #[test]
    fn names_that_mean_a_secret_are_known() {
        for name in [
            "password",
            "db_pwd",
            "smtpPass",
            "PASS",
            "auth",
            "authHeader",
            "private",
            "privateKey",
            "bearer",
            "jwt",
            "connection_string",
            "ConnectionString",
            "pin",
            "api.key",
            "tls-cert",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "author",
            "bypass_mode",
            "compass",
            "pinned",
            "colour",
            "port",
            "",
            "sessions",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn texts_that_hold_a_secret_are_known() {
        for text in [
            "postgres://u:p@h/d",
            "primary postgres://h/d replica postgres://u@h/d",
            "Server=h;Password = x",
            "https://h/?a=b&token=x",
            "-----BEGIN PRIVATE KEY-----\nMII",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln",
            "Bearer abc",
        ] {
            assert!(is_secret_text(text), "{text}");
        }
        for text in [
            "blue",
            "https://example.org/a@b",
            "see https://example.org a@b.c",
            "a.b.c",
        ] {
            assert!(!is_secret_text(text), "{text}");
        }
    }
}
