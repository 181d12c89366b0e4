//! `dotmac login`: tries a token, learns where all controllers are, and saves both as a context. The token comes from a
//! file, from standard input or from a silent terminal, and never from an argument, which every process can read.

mod terminal;

use std::{
    io::{self, IsTerminal as _, Read as _},
    net::SocketAddr,
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    client::{Access, Client, check_server},
    cluster,
    contexts::{Contexts, Saved, check_name},
    failure::Failure,
    find::{Context, checked, read_token, trimmed},
    view,
    whoami::who,
};

/// Bytes of standard input at most.
const INPUT_BYTES_MAX: u64 = 8 * 1024;
/// Milliseconds to wait for one controller.
const ATTEMPT_MS: u64 = 5_000;
/// Controllers remembered at most.
const SERVERS_MAX: usize = 15;

#[derive(Args)]
pub(crate) struct Login {
    /// Name of the context [default: the host in --server]
    #[arg(long)]
    name: Option<String>,
    /// Remember where the token is (--token-file) instead of the token
    #[arg(long, requires = "token_file")]
    keep_file: bool,
}

impl Login {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let output = context.output;
        let given = trimmed(&context.flags.servers);
        let Some(first) = given.first() else {
            return Err(Failure::Usage(
                "login to which controller? --server URL".into(),
            ));
        };
        for server in &given {
            check_server(server)?;
        }
        let name = self.name.clone().unwrap_or_else(|| host(first));
        check_name(&name)?;
        let path = Contexts::path()?;
        // What cannot be saved is found out before a token is asked for.
        Contexts::read(&path)?;
        let token = token(context)?;
        let ca_file = context.flags.ca_file.as_deref().map(absolute).transpose()?;
        let access = Access {
            servers: given.clone(),
            token: token.clone(),
            ca_file: ca_file.clone(),
            deadline_ms: context.flags.deadline.saturating_mul(1_000),
            attempt_ms: ATTEMPT_MS,
            voice: None,
        };
        let client = Client::new(access, context.entropy.clone())?;
        let who = who(&client).await?;
        let servers = match client.get::<Value>(cluster::PATH).await {
            Ok(status) => with_others(given, &status),
            Err(Failure::Refused(_)) => {
                output.note(
                    "this role may not see the cluster: only the given controllers are saved",
                );
                given
            }
            Err(other) => return Err(other),
        };
        let token_file = context
            .flags
            .token_file
            .as_deref()
            .filter(|_| self.keep_file);
        let saved = Saved {
            servers: servers.clone(),
            token: Some(token).filter(|_| !self.keep_file),
            token_file: token_file.map(absolute).transpose()?,
            ca_file,
        };
        Contexts::update(&path, |all| {
            all.contexts.insert(name.clone(), saved);
            all.current = Some(name.clone());
            Ok(())
        })?;
        if output.is_data() {
            return output.data(&json!({"context": name, "servers": servers, "caller": who}));
        }
        output.line(&format!("logged in as {}", person(&who)))?;
        output.line(&format!("context {name}: {}", servers.join(", ")))
    }
}

/// Who somebody is, in one line.
pub(crate) fn person(who: &Value) -> String {
    let text = |name: &str| view::text(who, name);
    let tenant = match text("tenant_id") {
        none if none.is_empty() => String::new(),
        tenant => format!(" of {tenant}"),
    };
    let end = match view::time(who, "expires_at") {
        none if none.is_empty() => "does not expire".to_owned(),
        time => format!("expires {time}"),
    };
    format!(
        "{} ({}{tenant}), token {} {end}",
        text("name"),
        text("role"),
        text("token")
    )
}

/// The token, from wherever it was said to be.
fn token(context: &Context) -> Result<String, Failure> {
    if let Some(file) = &context.flags.token_file {
        context.warn_of_exposed(file);
        return read_token(file);
    }
    if io::stdin().is_terminal() {
        let text = terminal::ask("Token (not shown): ")?;
        return checked(&text, "the terminal");
    }
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(INPUT_BYTES_MAX)
        .read_to_string(&mut text);
    read.map_err(|cause| Failure::Failed(format!("cannot read standard input: {cause}")))?;
    checked(&text, "standard input")
}

/// The given controllers, and the others that the API names and a token may be sent to.
fn with_others(mut servers: Vec<String>, status: &Value) -> Vec<String> {
    let is_tls = servers
        .first()
        .is_some_and(|first| first.starts_with("https:"));
    let scheme = if is_tls { "https" } else { "http" };
    for node in view::items(status, "nodes").iter().take(SERVERS_MAX) {
        let address = view::text(node, "address");
        let is_nowhere = address
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.ip().is_unspecified());
        let server = format!("{scheme}://{address}");
        if !is_nowhere && !servers.contains(&server) && check_server(&server).is_ok() {
            servers.push(server);
        }
    }
    servers
}

fn host(server: &str) -> String {
    let url = reqwest::Url::parse(server).ok();
    let host = url
        .as_ref()
        .and_then(reqwest::Url::host_str)
        .unwrap_or("default");
    host.trim_matches(['[', ']']).replace(':', "-")
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|cause| Failure::io("find", path, &cause))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{host, person, with_others};

    #[test]
    fn the_other_controllers_are_learned_and_addresses_that_may_get_no_token_are_not() {
        let node = |address: &str| json!({ "address": address });
        let status = json!({"nodes": [node("10.0.0.1:8000"), node("0.0.0.0:8000"), node("10.0.0.2:8000"),
            node("evil.example/?x="), node("a@b:1")]});
        let servers = with_others(vec!["https://10.0.0.1:8000".into()], &status);
        assert_eq!(servers, ["https://10.0.0.1:8000", "https://10.0.0.2:8000"]);
        let servers = with_others(vec!["http://127.0.0.1:8000".into()], &status);
        assert_eq!(servers, ["http://127.0.0.1:8000"]);
        assert_eq!(
            host("https://controller.example:8000"),
            "controller.example"
        );
    }

    #[test]
    fn somebody_is_named_with_role_tenant_and_end() {
        let who = json!({"token": "0123456789abcdef", "name": "ops", "role": "support", "tenant_id": null});
        assert_eq!(
            person(&who),
            "ops (support), token 0123456789abcdef does not expire"
        );
    }
}
