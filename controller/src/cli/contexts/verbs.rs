//! `dotmac context` and `dotmac logout`: shows and changes the saved contexts. They ask no controller.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Contexts, Saved};
use crate::cli::{failure::Failure, find::Context};

#[derive(Subcommand)]
pub(crate) enum Verbs {
    /// All saved contexts; the current one has a star
    List,
    /// Use this context where nothing else names a cluster
    Use {
        /// Name of the context
        name: String,
    },
    /// One context, without its token
    Show {
        /// Name of the context [default: the current one]
        name: Option<String>,
    },
    /// Forget a context and its token
    Delete {
        /// Name of the context
        name: String,
    },
}

/// Forgets a token; the context stays.
#[derive(Args)]
pub(crate) struct Logout {
    /// Name of the context [default: the current one]
    name: Option<String>,
}

impl Verbs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let path = Contexts::path()?;
        let output = context.output;
        match self {
            Self::List => list(context, &Contexts::read(&path)?),
            Self::Use { name } => {
                Contexts::update(&path, |all| {
                    all.named(&name)?;
                    all.current = Some(name.clone());
                    Ok(())
                })?;
                if let Some(home) = context.home() {
                    let home = home.home().display().to_string();
                    output.note(&format!(
                        "here, the fleet in {home} comes first: --context {name} overrides it"
                    ));
                }
                output.note(&format!("current context: {name}"));
                Ok(())
            }
            Self::Show { name } => {
                let all = Contexts::read(&path)?;
                let name = name_or_current(&all, name)?;
                let item = item(&all, &name, all.named(&name)?);
                if output.is_data() {
                    return output.data(&item);
                }
                for (member, value) in item.as_object().into_iter().flatten() {
                    let value = match value {
                        Value::Array(list) => list
                            .iter()
                            .filter_map(Value::as_str)
                            .collect::<Vec<_>>()
                            .join(", "),
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    output.line(&format!("{member:<12} {value}"))?;
                }
                Ok(())
            }
            Self::Delete { name } => {
                Contexts::update(&path, |all| {
                    all.named(&name)?;
                    all.contexts.remove(&name);
                    all.current.take_if(|current| *current == name);
                    Ok(())
                })?;
                output.note(&format!(
                    "forgot the context {name}; its token still counts until it is revoked"
                ));
                Ok(())
            }
        }
    }
}

impl Logout {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let name = Contexts::update(&Contexts::path()?, |all| {
            let name = name_or_current(all, self.name)?;
            all.named(&name)?;
            if let Some(saved) = all.contexts.get_mut(&name) {
                (saved.token, saved.token_file) = (None, None);
            }
            Ok(name)
        })?;
        context.output.note(&format!(
            "forgot the token of {name}; it still counts until it is revoked (`dotmac tokens delete ID`)"
        ));
        Ok(())
    }
}

fn name_or_current(all: &Contexts, name: Option<String>) -> Result<String, Failure> {
    let none = || Failure::Usage("no context is current: name one, or `dotmac login`".into());
    name.or_else(|| all.current.clone()).ok_or_else(none)
}

fn list(context: &Context, all: &Contexts) -> Result<(), Failure> {
    let output = context.output;
    if output.is_data() {
        let items: Vec<Value> = all
            .contexts
            .iter()
            .map(|(name, saved)| item(all, name, saved))
            .collect();
        return output.data(&json!({ "items": items }));
    }
    let row = |(name, saved): (&String, &Saved)| {
        let mark = if all.current.as_ref() == Some(name) {
            "*"
        } else {
            ""
        };
        vec![
            name.clone(),
            mark.to_owned(),
            token(saved).to_owned(),
            saved.servers.join(", "),
        ]
    };
    let rows = all.contexts.iter().map(row).collect();
    output.table(
        &["name", "current", "token", "servers"],
        rows,
        "no contexts: dotmac login --server URL",
    )
}

/// A context as programs see it: never with its token.
fn item(all: &Contexts, name: &str, saved: &Saved) -> Value {
    json!({
        "id": name,
        "current": all.current.as_deref() == Some(name),
        "servers": saved.servers,
        "token": token(saved),
        "token_file": saved.token_file,
        "ca_file": saved.ca_file,
    })
}

fn token(saved: &Saved) -> &'static str {
    match (&saved.token, &saved.token_file) {
        (Some(_), _) => "saved",
        (None, Some(_)) => "in a file",
        (None, None) => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::{Contexts, Saved, item, name_or_current};

    #[test]
    fn what_is_shown_of_a_context_never_has_its_token() {
        let mut all = Contexts::default();
        let saved = Saved {
            token: Some("canary-3".into()),
            ..Saved::default()
        };
        all.contexts.insert("prod".into(), saved.clone());
        assert!(name_or_current(&all, None).is_err());
        all.current = Some("prod".into());
        assert_eq!(name_or_current(&all, None).unwrap(), "prod");
        let shown = item(&all, "prod", &saved);
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(
            (shown["token"].as_str(), shown["current"].as_bool()),
            (Some("saved"), Some(true))
        );
    }
}
