//! Releases: what instances consist of. A release never changes; it is added, and retired.

use std::str::FromStr;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    release::{Release, ReleaseKey},
    reply::Rejection,
};
use dotmac_protocol::{
    ids::{IdError, ReleaseName, ReleaseVersion},
    release::Manifest,
};
use serde_json::{Value, json};

mod manifest_schema;
mod shapes;

pub(super) use shapes::schemas;

use super::{
    RELEASES,
    answer::{page_of, time},
    change::{Change, Entity},
    operation::{Operation, Scope},
    problem::{ALREADY_EXISTS, Problem},
    reading::{Named, Reading},
    schema, strict_json,
};

/// Where an answer has the names of its release.
const KEY: &[(&str, &str)] = &[
    ("name", "$response.body#/name"),
    ("version", "$response.body#/version"),
];

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let one = format!("{RELEASES}/{{name}}/{{version}}");
    let release = || schema::of("Release");
    let named = |operation: Operation| {
        operation
            .named("name", schema::release_name(), "the release's name")
            .named("version", schema::release_version(), "its version")
    };
    vec![
        Operation::read("releases.list", RELEASES, list)
            .says("List releases", "All releases, by name and version.")
            .needs(&[Permission::ReleaseRead], Scope::Platform)
            .paged(schema::release_key())
            .answers(StatusCode::OK, "One page", schema::page_of(release())),
        Operation::change(Method::POST, "releases.add", RELEASES, add)
            .says(
                "Add a release",
                "The body is its manifest. A release never changes.",
            )
            .needs(&[Permission::ReleaseWrite], Scope::Platform)
            .body(schema::of("Manifest"))
            .problems(&[&ALREADY_EXISTS])
            .answers(StatusCode::CREATED, "It is there", release())
            .with("Location", "where the release is")
            .link("releases.show", KEY)
            .link("releases.retire", KEY),
        Operation::look(
            "releases.schema",
            format!("{RELEASES}/schema"),
            manifest_schema::show,
        )
        .public()
        .says("The schema of manifests", "For editors and people.")
        .answers_as(
            StatusCode::OK,
            "A JSON schema",
            "application/schema+json",
            schema::any_object(),
        ),
        named(Operation::read("releases.show", one.clone(), show))
            .says("Show a release", "With its manifest.")
            .needs(&[Permission::ReleaseRead], Scope::Platform)
            .answers(
                StatusCode::OK,
                "The release",
                schema::of("ReleaseWithManifest"),
            )
            .with("ETag", "its version, for If-Match"),
        named(Operation::change(
            Method::POST,
            "releases.retire",
            format!("{one}/retire"),
            retire,
        ))
        .says(
            "Retire a release",
            "Nothing new is made of it; what runs stays.",
        )
        .needs(&[Permission::ReleaseWrite], Scope::Platform)
        .versioned()
        .optional_body(schema::nothing())
        .answers(StatusCode::OK, "It is retired", release())
        .with("ETag", "its version, for If-Match"),
    ]
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::ReleaseRead, None)?;
    let (limit, after) = reading.page::<Cursor>();
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let items = state
        .releases
        .iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > &after.0))
        .map(|(key, release)| (key.to_string(), item(&state, key, release)));
    Ok(page_of(items, limit))
}

/// A release as a cursor.
struct Cursor(ReleaseKey);

impl FromStr for Cursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (name, version) = text.split_once(':').unwrap_or((text, ""));
        let (name, version) = (name.parse()?, version.parse()?);
        Ok(Self(ReleaseKey { name, version }))
    }
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
    let entity = Entity {
        body,
        revision: Some(release.revision()),
        location: None,
    };
    Ok(entity.answer(StatusCode::OK))
}

async fn add(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::ReleaseWrite, None)?;
    let body = strict_json::parse(&change.body)?;
    manifest_schema::check(&body)?;
    let wrong = |error: dotmac_protocol::release::ManifestError| {
        Rejection::field(&error.field, error.found, error.allowed)
    };
    // Its readers know whole numbers only as they are written without a point.
    let body = strict_json::with_whole_numbers(body).to_string();
    let manifest = Manifest::parse(body.as_bytes()).map_err(wrong)?;
    let key = ReleaseKey {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
    };
    let command = Command::AddRelease {
        manifest: manifest.canonical(),
    };
    change
        .carry_out(command, StatusCode::CREATED, |state, _| {
            let location = Some(format!("{RELEASES}/{}/{}", key.name, key.version));
            shown(state, &key).map(|entity| Entity { location, ..entity })
        })
        .await
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
    let command = Command::RetireRelease { name, version };
    change
        .carry_out(command, StatusCode::OK, |state, _| shown(state, &key))
        .await
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

fn shown(state: &State, key: &ReleaseKey) -> Option<Entity> {
    let release = state.releases.get(key)?;
    Some(Entity {
        body: item(state, key, release),
        revision: Some(release.revision()),
        location: None,
    })
}

/// A release as lists show it.
pub(super) fn item(state: &State, key: &ReleaseKey, release: &Release) -> Value {
    let channel = release.channel.as_ref();
    let is_newest = channel.is_some_and(|channel| state.channels.get(channel) == Some(key));
    json!({
        "name": key.name, "version": key.version, "channel": channel,
        "default": is_newest && !release.retired, "retired": release.retired,
        "digest": release.digest.to_string(), "description": release.description,
        "added_at": time(release.added_at),
    })
}
