//! Releases: what instances consist of. A release never changes; it is added, and retired.

use std::sync::Arc;

use axum::{
    Router,
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    release::{Release, ReleaseKey},
    reply::Rejection,
};
use dotmac_protocol::{
    ids::{ReleaseName, ReleaseVersion},
    release::Manifest,
};
use serde_json::{Value, json};

mod schema;

use super::{
    RELEASES,
    answer::{answer, created, page_of, time},
    change::Change,
    problem::{Problem, TIMED_OUT},
    reading::{Named, Reading},
    strict_json,
};
use crate::node::Node;

/// The paths.
pub(super) fn routes() -> Router<Arc<Node>> {
    let one = format!("{RELEASES}/{{name}}/{{version}}");
    Router::new()
        .route(RELEASES, get(list).post(add))
        .route(&format!("{RELEASES}/schema"), get(schema::show))
        .route(&one, get(show))
        .route(&format!("{one}/retire"), post(retire))
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::ReleaseRead, None)?;
    let (limit, cursor) = reading.page();
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let after = cursor.as_deref().and_then(|cursor| cursor.split_once(':'));
    let items = state
        .releases
        .iter()
        .filter(|(key, _)| {
            after.is_none_or(|after| (key.name.as_str(), key.version.as_str()) > after)
        })
        .map(|(key, release)| (key.to_string(), item(&state, key, release)));
    Ok(page_of(items, limit))
}

async fn show(
    reading: Reading,
    Named(names): Named<(String, String)>,
) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::ReleaseRead, None)?;
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let (key, release) = find(&state, &names)?;
    let mut body = item(&state, &key, release);
    body["manifest"] = serde_json::from_slice(&release.manifest).unwrap_or_default();
    Ok(answer(StatusCode::OK, body))
}

async fn add(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::ReleaseWrite, None)?;
    schema::check(&strict_json::parse(&change.body)?)?;
    let wrong = |error: dotmac_protocol::release::ManifestError| {
        Rejection::field(&error.field, error.found, error.allowed)
    };
    let manifest = Manifest::parse(&change.body).map_err(wrong)?;
    let key = ReleaseKey {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
    };
    change
        .ask(Command::AddRelease {
            manifest: manifest.canonical(),
        })
        .await?;
    let body = item_after(&change, &key).await?;
    Ok(created(
        &format!("{RELEASES}/{}/{}", key.name, key.version),
        body,
    ))
}

async fn retire(
    Named(names): Named<(String, String)>,
    change: Change,
) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::ReleaseWrite, None)?;
    change.expect_no_fields()?;
    let (ReleaseKey { name, version }, _) = find(&change.state, &names)?;
    let key = ReleaseKey {
        name: name.clone(),
        version: version.clone(),
    };
    change.ask(Command::RetireRelease { name, version }).await?;
    Ok(answer(StatusCode::OK, item_after(&change, &key).await?))
}

fn find<'s>(
    state: &'s State,
    (name, version): &(String, String),
) -> Result<(ReleaseKey, &'s Release), Problem> {
    let key = name
        .parse::<ReleaseName>()
        .ok()
        .zip(version.parse::<ReleaseVersion>().ok());
    let found = key.and_then(|(name, version)| {
        let key = ReleaseKey { name, version };
        let release = state.releases.get(&key)?;
        Some((key, release))
    });
    found.ok_or_else(|| Problem::not_found("release", &format!("{name}:{version}")))
}

async fn item_after(change: &Change, key: &ReleaseKey) -> Result<Value, Problem> {
    let state = change.state_after().await;
    let release = state.releases.get(key);
    let late = || {
        Problem::new(
            &TIMED_OUT,
            format!("release {key} is accepted and not seen here yet"),
        )
    };
    release
        .map(|release| item(&state, key, release))
        .ok_or_else(late)
}

fn item(state: &State, key: &ReleaseKey, release: &Release) -> Value {
    let channel = release.channel.as_ref();
    let is_newest = channel.is_some_and(|channel| state.channels.get(channel) == Some(key));
    json!({
        "name": key.name, "version": key.version, "channel": channel,
        "default": is_newest && !release.retired, "retired": release.retired,
        "digest": release.digest.to_string(), "description": release.description,
        "added_at": time(release.added_at),
    })
}
