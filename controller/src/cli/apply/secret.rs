//! Secrets that a file only points to: `{from_env: NAME}` or `{from_file: PATH}`. What they hold is never shown.

use std::{fs, io::Read as _, path::Path};

use serde_json::{Map, Value};

use super::document::{Fault, Kind, Node};
use crate::cli::failure::Failure;

/// Bytes of a secret at most.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Parts of names whose values are secrets.
const SECRET_NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "private_key",
];
/// Pointers to elsewhere.
const POINTERS: [&str; 2] = ["from_env", "from_file"];

/// The secret that a field points to.
pub(super) fn read(field: &str, node: &Node) -> Result<Value, Fault> {
    match pointer(node) {
        Some((kind, place)) => fetch(field, node.line, kind, place),
        None => {
            let what = format!("{field}: write {{from_env: NAME}} or {{from_file: PATH}}");
            Err(Fault::new(node.line, what))
        }
    }
}

/// A tree with every secret in it that it points to.
pub(super) fn fill_in(path: &str, node: &Node) -> Result<Value, Fault> {
    if let Some((kind, place)) = pointer(node) {
        return fetch(path, node.line, kind, place);
    }
    match &node.kind {
        Kind::Scalar(value) => Ok(value.clone()),
        Kind::List(items) => items.iter().map(|item| fill_in(path, item)).collect(),
        Kind::Map(members) => {
            let mut filled = Map::new();
            for (name, _, inner) in members {
                filled.insert(name.clone(), fill_in(&format!("{path}.{name}"), inner)?);
            }
            Ok(Value::Object(filled))
        }
    }
}

/// Texts in a tree that look like secrets and stand in the file itself, by their line and name.
pub(super) fn open_secrets(path: &str, node: &Node) -> Vec<(u64, String)> {
    if pointer(node).is_some() {
        return Vec::new();
    }
    match &node.kind {
        Kind::Scalar(Value::String(text)) if looks_secret(path, text) => {
            vec![(node.line, path.to_owned())]
        }
        Kind::Scalar(_) => Vec::new(),
        Kind::List(items) => items
            .iter()
            .flat_map(|item| open_secrets(path, item))
            .collect(),
        Kind::Map(members) => members
            .iter()
            .flat_map(|(name, _, inner)| open_secrets(&format!("{path}.{name}"), inner))
            .collect(),
    }
}

/// By the last part of its name, or because it is an address with a password in it.
fn looks_secret(path: &str, text: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    let name = name.to_lowercase().replace('-', "_");
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let user = authority.and_then(|rest| rest.split(['/', '?', '#']).next()?.rsplit_once('@'));
    let has_password = user.is_some_and(|(user, _)| user.contains(':'));
    !text.is_empty() && (has_password || SECRET_NAMES.iter().any(|part| name.contains(part)))
}

/// Where a node points to, if it is a pointer.
fn pointer(node: &Node) -> Option<(&str, &str)> {
    let Kind::Map(members) = &node.kind else {
        return None;
    };
    let [(kind, _, inner)] = &members[..] else {
        return None;
    };
    match &inner.kind {
        Kind::Scalar(Value::String(place)) if POINTERS.contains(&kind.as_str()) => {
            Some((kind, place))
        }
        _ => None,
    }
}

fn fetch(field: &str, line: u64, kind: &str, place: &str) -> Result<Value, Fault> {
    let fault = |what: String| Fault::new(line, format!("{field}: {what}"));
    let text = match kind {
        "from_env" => std::env::var(place)
            .map_err(|_| fault(format!("the variable {place} is not set, or is no text")))?,
        _ => read_file(Path::new(place)).map_err(|failure| fault(failure.to_string()))?,
    };
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(fault(format!("{place} holds nothing"))),
        text => Ok(text.into()),
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let failed = |cause: std::io::Error| Failure::io("read", path, &cause);
    let file = fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let mut limited = file.take(SECRET_BYTES_MAX + 1);
    limited.read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= SECRET_BYTES_MAX) {
        return Ok(text);
    }
    let path = path.display();
    Err(Failure::Usage(format!(
        "{path} has more than {SECRET_BYTES_MAX} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{fill_in, open_secrets, read};

    #[test]
    fn secrets_that_stand_in_the_file_are_noticed_and_not_repeated() {
        let text = "smtp:\n  host: mail.example\n  password: hunter2\n  port: 25\napi-key: {from_env: KEY}\n\
                    hooks:\n- https://a.example/x@y:z\n- https://u:hunter2@a.example/\n";
        let found = open_secrets("custom_config", &document::read(text).unwrap()[0]);
        let expected = [
            (3, "custom_config.smtp.password"),
            (8, "custom_config.hooks"),
        ];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
    }

    use crate::cli::apply::document;

    #[test]
    fn secrets_come_from_where_the_file_points_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let text = format!(
            "smtp: {{host: mail.example, password: {{from_file: {}}}}}\nlist: [{{from_env: PATH}}]\n",
            path.display()
        );
        let node = &document::read(&text).unwrap()[0];
        let filled = fill_in("custom_config", node).unwrap();
        assert_eq!(
            filled["smtp"],
            json!({"host": "mail.example", "password": "hunter2"})
        );
        assert_eq!(filled["list"][0], std::env::var("PATH").unwrap());
    }

    #[test]
    fn a_pointer_to_nothing_is_told_with_its_line() {
        let node = &document::read("{\n from_env: DOTMAC_NO_SUCH_VARIABLE}").unwrap()[0];
        let fault = read("database_url", node).unwrap_err();
        assert_eq!(
            (fault.line, fault.what.as_str()),
            (
                1,
                "database_url: the variable DOTMAC_NO_SUCH_VARIABLE is not set, or is no text"
            )
        );
        let node = &document::read("{from_elsewhere: x}").unwrap()[0];
        assert!(read("database_url", node).is_err());
    }
}
