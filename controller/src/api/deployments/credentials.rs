//! Finds what is secret in a request and seals it to the agent that will need it. The clear text has no `Debug`, goes
//! into no command, and leaves this controller only sealed (law 9).

use std::collections::BTreeSet;

use dotmac_domain::{State, reply::FieldError};
use dotmac_protocol::{
    ids::{AgentId, RegionId},
    secrecy::{is_secret_name, is_secret_text},
    unit::SealedCredential,
};
use dotmac_runtime::{entropy::Entropy, seal};
use serde_json::{Map, Value};

use crate::api::{
    fields::Secret,
    problem::{INTERNAL, NO_AGENT, Problem},
};

/// What credentials are sealed for.
const CONTEXT: &str = "dotmac/credential/v1";
/// Credentials of one deployment at most.
const CREDENTIALS_MAX: usize = 64;
/// Bytes of a credential's name at most.
const NAME_MAX: usize = 200;

/// Secrets by the names under which an instance may ask for them.
pub(super) type Secrets = Vec<(String, Secret)>;

/// Takes everything secret-looking out of a configuration.
///
/// # Errors
/// When there are too many, or two of them would get one name.
pub(super) fn take_from(config: &mut Map<String, Value>) -> Result<Secrets, FieldError> {
    let mut found = Vec::new();
    split("config", config, false, &mut found);
    let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let are_sound = names.len() == found.len()
        && found.len() <= CREDENTIALS_MAX - 2
        && names.iter().all(|name| name.len() <= NAME_MAX);
    if are_sound {
        return Ok(found);
    }
    let allowed = format!(
        "at most {} secret members, each with a path of its own of at most {NAME_MAX} bytes",
        CREDENTIALS_MAX - 2
    );
    Err(FieldError {
        field: "custom_config".into(),
        value: String::new(),
        allowed,
    })
}

/// Seals secrets to the agent that would get a new deployment of this region.
///
/// # Errors
/// When the region has no agent yet: there is nobody to whom they could be sealed.
pub(super) fn seal_to_agent(
    secrets: &Secrets,
    state: &State,
    region: &RegionId,
    entropy: &Entropy,
) -> Result<(AgentId, Vec<SealedCredential>), Problem> {
    let agent = state.place(region);
    let found = agent.and_then(|id| Some((state.agents.get(&id)?, id)));
    let Some((agent, id)) = found else {
        let detail = format!(
            "no agent has joined region {region} yet, and the request's credentials can only be \
             sealed to one"
        );
        let next = format!(
            "start an agent there (`dotmac agents token --region {region}`), or leave the credentials out"
        );
        return Err(Problem::new(&NO_AGENT, detail).with_next(next));
    };
    let sealed = secrets.iter().map(|(name, secret)| {
        let sealed = seal::seal(&agent.seal_key, CONTEXT, secret.as_bytes(), entropy)?;
        Ok(SealedCredential {
            name: name.clone(),
            sealed,
        })
    });
    let sealed: Result<_, seal::SealError> = sealed.collect();
    let unusable = |_| Problem::new(&INTERNAL, format!("nothing can be sealed to agent {id}"));
    let sealed = sealed.map_err(unusable)?;
    Ok((id, sealed))
}

fn split(path: &str, members: &mut Map<String, Value>, is_inside: bool, found: &mut Secrets) {
    let names: Vec<String> = members.keys().cloned().collect();
    for name in names {
        let at = format!("{path}.{name}");
        let is_secret = is_inside || is_secret_name(&name);
        if let Some(Value::Object(inner)) = members.get_mut(&name) {
            split(&at, inner, is_secret, found);
        } else if members
            .get(&name)
            .is_some_and(|value| must_hide(value, is_secret))
            && let Some(value) = members.remove(&name)
        {
            found.push((at, Secret::new(text(value))));
        }
    }
}

/// Whether a value that is no object must not stay. A yes or no is no secret, whatever it is called.
fn must_hide(value: &Value, is_secret: bool) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(_) => is_secret,
        Value::String(text) => !text.is_empty() && (is_secret || is_secret_text(text)),
        Value::Array(items) => !items.is_empty() && (is_secret || items.iter().any(holds_secret)),
        Value::Object(_) => holds_secret(value),
    }
}

/// Whether something inside of a list is secret; then the whole list is.
fn holds_secret(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_secret),
        Value::Object(members) => members.iter().any(|(name, value)| match value {
            Value::Object(inner) if is_secret_name(name) => !inner.is_empty(),
            other => must_hide(other, is_secret_name(name)),
        }),
        other => must_hide(other, false),
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::take_from;

    fn taken(config: Value) -> (Value, Vec<(String, String)>) {
        let Value::Object(mut config) = config else {
            panic!("an object")
        };
        let found = take_from(&mut config).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let found = found
            .into_iter()
            .map(|(name, secret)| (name, text(secret.as_bytes())));
        (Value::Object(config), found.collect())
    }

    #[test]
    fn secret_looking_members_are_taken_out_wherever_they_are() {
        let (left, found) = taken(json!({
            "colour": "blue", "SMTP_Password": "a", "pin_token": 7, "use_token": true, "api_key": "",
            "radius": {"secret": "b", "port": 3799, "keys": {"one": "c", "two": ["d"]}},
            "replica": "postgres://u:p@h/d", "plain": "https://example.org/a@b",
            "upstreams": [{"host": "x", "password": "e"}], "names": ["f"],
        }));
        assert_eq!(
            left,
            json!({
                "colour": "blue", "use_token": true, "api_key": "",
                "radius": {"port": 3799, "keys": {}}, "plain": "https://example.org/a@b", "names": ["f"],
            })
        );
        let expected = [
            ("config.SMTP_Password", "a"),
            ("config.pin_token", "7"),
            ("config.radius.keys.one", "c"),
            ("config.radius.keys.two", "[\"d\"]"),
            ("config.radius.secret", "b"),
            ("config.replica", "postgres://u:p@h/d"),
            ("config.upstreams", "[{\"host\":\"x\",\"password\":\"e\"}]"),
        ];
        let mut found: Vec<_> = found
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn no_two_secrets_share_a_name() {
        let Value::Object(mut config) = json!({"a.token": "x", "a": {"token": "y"}}) else {
            panic!()
        };
        assert!(take_from(&mut config).is_err());
        let Value::Object(mut config) = json!({"keys": (0..63).map(|n| (n.to_string(), json!("x")))
            .collect::<serde_json::Map<_, _>>()})
        else {
            panic!()
        };
        assert!(take_from(&mut config).is_err());
    }
}
