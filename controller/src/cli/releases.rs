//! `dotmac releases`: immutable versions of what an instance consists of.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dotmac_protocol::release::Manifest;
use reqwest::Method;
use serde_json::Value;

use super::{
    client::{Client, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    output::clean_lines,
    plan::{Consent, Outcome, Plan, Seen},
    view,
};

/// Where releases live in the API.
pub(crate) const PATH: &str = "/api/v1/releases";

#[derive(Subcommand)]
pub(crate) enum Releases {
    /// Add a release from its manifest; a release never changes afterwards
    Add {
        /// The manifest (JSON, config/release.schema.json); `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        consent: Consent,
    },
    /// All releases
    List(Paging),
    /// One release with its manifest
    Show {
        #[command(flatten)]
        key: Key,
    },
    /// No new deployment uses it from now on
    Retire {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Which release.
#[derive(Args)]
pub(crate) struct Key {
    /// Name of the line, or NAME:VERSION
    name: String,
    /// Version in it
    version: Option<String>,
}

impl Key {
    /// Name and version, however they were written.
    fn pair(&self) -> (&str, &str) {
        match &self.version {
            Some(version) => (&self.name, version),
            None => self.name.split_once(':').unwrap_or((&self.name, "")),
        }
    }

    fn path(&self) -> Result<String, Failure> {
        match self.pair() {
            (name, "") => Err(Failure::Usage(format!(
                "which version of {name}? NAME VERSION or NAME:VERSION"
            ))),
            (name, version) => Ok(format!("{PATH}/{}/{}", encode(name), encode(version))),
        }
    }
}

impl Releases {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (client, output) = (context.client()?, context.output);
        match self {
            Self::Add { file, consent } => {
                let manifest = checked(&read(&file)?)?;
                let (name, version) = (
                    view::text(&manifest, "name"),
                    view::text(&manifest, "version"),
                );
                let plan = Plan::create(format!("add release {name} {version}"), PATH, manifest);
                change(context, &client, &plan, (consent, "added")).await
            }
            Self::List(paging) => {
                let header = [
                    "name",
                    "version",
                    "channel",
                    "state",
                    "digest",
                    "description",
                ];
                let empty = "no releases: dotmac releases add FILE";
                paging
                    .show(context, &client, (PATH, &[]), (&header, &row), empty)
                    .await
            }
            Self::Show { key } => {
                let release = client.thing(&key.path()?).await?;
                if output.is_data() {
                    return output.data(&release);
                }
                let text = serde_json::to_string_pretty(&release).map_err(Failure::answer)?;
                output.line(&clean_lines(&text))
            }
            Self::Retire { key, consent } => {
                let seen = Seen::read(&client, key.path()?).await?;
                let (name, version) = key.pair();
                let title = format!("retire release {name} {version}");
                let path = format!("{}/retire", key.path()?);
                let plan = Plan::change(title, Method::POST, path, seen);
                change(context, &client, &plan, (consent, "retired")).await
            }
        }
    }
}

async fn change(
    context: &Context,
    client: &Client,
    plan: &Plan,
    (consent, word): (Consent, &str),
) -> Result<(), Failure> {
    let (release, word) = match plan.run(context, client, consent).await? {
        Outcome::Shown => return Ok(()),
        Outcome::Done(release) => (release, word),
        Outcome::Same(release) => (release, "unchanged"),
    };
    if context.output.is_data() {
        return context.output.data(&release);
    }
    let text = |name: &str| view::text(&release, name);
    let line = format!(
        "{word} {} {} {}",
        text("name"),
        text("version"),
        text("digest")
    );
    context.output.line(line.trim_end())
}

/// A manifest that keeps the rules, as JSON; wrong ones are refused here already, with the field's name.
pub(crate) fn checked(text: &[u8]) -> Result<Value, Failure> {
    let manifest =
        Manifest::parse(text).map_err(|error| Failure::Usage(clean_lines(&error.to_string())))?;
    serde_json::from_slice(&manifest.canonical()).map_err(Failure::answer)
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let read = if file == std::path::Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut text).map(|_| text)
    } else {
        std::fs::read(file)
    };
    read.map_err(|cause| Failure::io("read", file, &cause))
}

fn row(release: &Value) -> Vec<String> {
    let text = |name: &str| view::text(release, name);
    let is = |name: &str| release[name].as_bool().unwrap_or_default();
    let state = match (is("retired"), is("default")) {
        (true, _) => "retired",
        (false, true) => "default",
        (false, false) => "usable",
    };
    let digest = text("digest").chars().take(19).collect();
    vec![
        text("name"),
        text("version"),
        text("channel"),
        state.to_owned(),
        digest,
        text("description"),
    ]
}

#[cfg(test)]
mod tests {
    use super::checked;

    const DEMO: &[u8] = include_bytes!("../../../tests/releases/demo-isp.json");
    const PYTHON: &[u8] = include_bytes!("../../../tests/releases/python-http.json");
    const SCHEMA: &str = include_str!("../../../config/release.schema.json");

    fn schema_allows(manifest: &serde_json::Value) -> bool {
        let schema = serde_json::from_str(SCHEMA).unwrap();
        jsonschema::draft202012::new(&schema)
            .unwrap()
            .is_valid(manifest)
    }

    #[test]
    fn the_shipped_manifests_keep_the_rules_and_the_published_schema() {
        for text in [DEMO, PYTHON] {
            let manifest = checked(text).unwrap();
            assert!(schema_allows(&manifest));
            assert!(schema_allows(&serde_json::from_slice(text).unwrap()));
        }
    }

    /// Changes one place of the demo manifest; both the schema and the program must agree on it.
    #[test]
    fn schema_and_program_agree_on_what_is_wrong() {
        let wrong: [(&str, serde_json::Value); 16] = [
            ("/name", "Demo".into()),
            ("/version", "".into()),
            ("/channel", "-x".into()),
            ("/components", serde_json::json!({})),
            ("/components/web/kind", "cron".into()),
            ("/components/web/run", serde_json::json!({"command": []})),
            ("/components/web/run", serde_json::json!({"command": [""]})),
            (
                "/components/web/run",
                serde_json::json!({"image": "demo:latest"}),
            ),
            (
                "/components/web/run",
                serde_json::json!({"pinned": {"command": ["x"], "digest": "sha256:1"}}),
            ),
            ("/components/web/env", serde_json::json!({"TENANT_ID": "x"})),
            ("/components/web/env", serde_json::json!({"1X": "x"})),
            (
                "/components/web/env",
                serde_json::json!({"X": "${unknown}"}),
            ),
            (
                "/components/web/env",
                serde_json::json!({"X": "a${port.http"}),
            ),
            (
                "/components/web/resources",
                serde_json::json!({"cpu_percent": 0, "memory_percent": 5}),
            ),
            ("/components/web/probes/ready/http/path", "health".into()),
            (
                "/components/web/stop",
                serde_json::json!({"signal": "SIGKILL"}),
            ),
        ];
        for (place, value) in wrong {
            let mut manifest: serde_json::Value = serde_json::from_slice(DEMO).unwrap();
            let (parent, member) = place.rsplit_once('/').unwrap();
            manifest.pointer_mut(parent).unwrap()[member] = value.clone();
            let text = manifest.to_string();
            assert!(
                checked(text.as_bytes()).is_err(),
                "the program takes {place} = {value}"
            );
            assert!(
                !schema_allows(&manifest),
                "the schema takes {place} = {value}"
            );
        }
    }
}
