//! `dotmac backup`: ask for a backup, see how backups are, list and check them (through the API, or directly at the
//! target, without any controller), make the keys that open them, and restore a cluster from one.
//! Longer than 400 lines: the verbs of one noun, each a few lines.

mod restore;
mod which;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use dotmac_runtime::causes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    client::{Client, elapsed_ms, encode},
    failure::Failure,
    find::Context,
    list::Paging,
    output::{bytes, duration},
    view,
};
use crate::{
    backup::{
        self, began,
        listing::{self, Listed},
        manifest::Manifest,
        origin::Origin,
        read::{self, ReadError},
        recipient::Identity,
        target::{Reach, Target},
    },
    bootstrap,
    config::Config,
};

/// Where backups are in the API.
const PATH: &str = "/api/v1/backups";
/// Where it is told how they are.
const STATUS: &str = "/api/v1/backups/status";
/// What is said when backups were read without a pin.
const UNPROVEN: &str = "their origin is not proven: whoever may write at the target can have put them there; --genesis FILE \
                        names the cluster whose they have to be";
/// Milliseconds that a controller may need to answer for its target: it lists for ten seconds at most, and checks for twenty.
const LISTS_MS: u64 = 12_000;
const CHECKS_MS: u64 = 22_000;
/// How often it is looked whether a backup has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum Backup {
    /// Ask the leader for a backup now
    Create(Create),
    /// The newest good one, the one under way, the last failure and when the next is due
    Status,
    /// All backups at the target
    List(List),
    /// Check one backup: with --identity all that is in it, without it every part's checksum; at a target, --genesis says
    /// whose it has to be
    Verify(Verify),
    /// Make the key that opens backups; keep it offline
    Keygen(Keygen),
    /// Make the genesis of a cluster that goes on from a backup with new controllers
    Plan(Box<restore::Plan>),
    /// Write one new controller's store from a backup
    Restore(Box<restore::Restore>),
}

#[derive(Args)]
pub(crate) struct Create {
    /// Wait until it has ended, and say how it goes
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Name of the backup, or `latest`
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    pin: Pin,
    /// File with a secret key, as `keygen` makes it; needs --target or --config
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// Where the secret key goes; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A target that is asked directly.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Place {
    /// `file:///DIRECTORY` or `s3://BUCKET/PREFIX`: ask it directly instead of a controller. Credentials come from
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    target: Option<String>,
    /// Address of a store that is not Amazon's
    #[arg(long, value_name = "URL", requires = "target")]
    endpoint: Option<String>,
    /// Region of the store
    #[arg(long, requires = "target")]
    region: Option<String>,
    /// A controller's configuration, whose target is asked directly
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whose backups count at a target that is asked directly.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Pin {
    /// Genesis file or join file of the cluster whose backup it has to be; without it that of --config is taken, and
    /// without both nothing proves whose a backup is
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

impl Pin {
    /// The history that backups have to be of, if one is named.
    fn origin(&self, place: &Place) -> Result<Option<Origin>, Failure> {
        let file = match (&self.genesis, &place.config) {
            (Some(file), _) => file.clone(),
            (None, Some(config)) => {
                let genesis = Config::load(config).map_err(|error| usage(&error))?.genesis;
                if !genesis.exists() {
                    return Ok(None);
                }
                genesis
            }
            (None, None) => return Ok(None),
        };
        let beginning = bootstrap::read_beginning(&file).map_err(|error| failed(&error))?;
        Ok(Some(Origin::of_beginning(&beginning)))
    }

    /// That it is not given where controllers decide.
    fn refuse(&self) -> Result<(), Failure> {
        if self.genesis.is_some() {
            let detail = "--genesis needs --target or --config: a controller knows its own history";
            return Err(Failure::Usage(detail.to_owned()));
        }
        Ok(())
    }
}

impl Backup {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Status => status(context).await,
            Self::List(list) => list.run(context).await,
            Self::Verify(verify) => verify.run(context).await,
            Self::Keygen(keygen) => keygen.run(context),
            Self::Plan(plan) => plan.run(context).await,
            Self::Restore(restore) => restore.run(context).await,
        }
    }
}

impl Place {
    /// The target to ask directly, if one is named.
    pub(crate) fn open(&self) -> Result<Option<Target>, Failure> {
        let (address, reach) = match (&self.target, &self.config) {
            (Some(target), _) => {
                let reach = Reach {
                    endpoint: self.endpoint.clone(),
                    region: self.region.clone(),
                    ..Reach::default()
                };
                (target.clone(), reach)
            }
            (None, Some(path)) => {
                let config = Config::load(path).map_err(|error| usage(&error))?;
                let missing =
                    || Failure::Usage(format!("{} names no backup.target", path.display()));
                let target = config.backup.target.clone().ok_or_else(missing)?;
                (
                    target,
                    backup::reach(&config.backup).map_err(|error| failed(&error))?,
                )
            }
            (None, None) => return Ok(None),
        };
        Target::open(&address, &reach)
            .map(Some)
            .map_err(|error| usage(&error))
    }
}

/// A failure with all its causes.
pub(crate) fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::Failed(causes::in_full(error))
}

fn usage(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::Usage(causes::in_full(error))
}

impl Create {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let answer = client.post(PATH, None).await?;
        let request = answer["asked"]["id"].as_str().map(str::to_owned);
        if !self.wait {
            if context.output.is_data() {
                return context.output.data(&answer);
            }
            return context
                .output
                .line("a backup is asked for: `dotmac backup status` tells how far it is");
        }
        let request = request.unwrap_or_default();
        let status = self.wait_for(context, &client, &request).await?;
        if context.output.is_data() {
            return context.output.data(&status["good"]);
        }
        let good = &status["good"];
        let took = duration(good["took_ms"].as_u64().unwrap_or_default());
        context.output.line(&format!(
            "backup {} is whole: {} up to index {}, made in {took}",
            view::text(good, "id"),
            bytes(good["bytes"].as_u64().unwrap_or_default()),
            view::text(good, "index"),
        ))
    }

    async fn wait_for(
        &self,
        context: &Context,
        client: &Client,
        request: &str,
    ) -> Result<Value, Failure> {
        let (started, mut told) = (Instant::now(), String::new());
        loop {
            let status: Value = client.get(STATUS).await?;
            let is_open = status["asked"]["id"].as_str() == Some(request);
            if !is_open {
                let is_made = status["answered"]["id"].as_str() == Some(request)
                    && status["answered"]["made"] == true;
                if is_made {
                    return Ok(status);
                }
                let reason = view::text(&status["failed"], "reason");
                return Err(Failure::Failed(format!("no backup was made: {reason}")));
            }
            let line = progress(&status);
            if line != told {
                context.output.note(&line);
                told = line;
            }
            if elapsed_ms(started) > self.timeout.saturating_mul(1_000) {
                return Err(Failure::TimedOut(format!(
                    "the backup has not ended: {told}"
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How far it is, in one line.
fn progress(status: &Value) -> String {
    let running = &status["running"];
    if running.is_object() {
        let written = bytes(running["bytes"].as_u64().unwrap_or_default());
        return format!("{}: {written} written", view::text(running, "id"));
    }
    let failed = &status["failed"];
    if failed.is_object() {
        let (reason, again) = (view::text(failed, "reason"), view::time(failed, "again_at"));
        return format!("failed: {reason}; tried again at {again}");
    }
    "waiting for the leader".to_owned()
}

/// A client that waits for what a controller says of its target, so that a target that hangs is not taken for a controller
/// that does.
fn patient(context: &Context, attempt_ms: u64) -> Result<Client, Failure> {
    let deadline_ms = context.flags.deadline.saturating_mul(1_000);
    context.client_within(deadline_ms.max(attempt_ms), attempt_ms)
}

async fn status(context: &Context) -> Result<(), Failure> {
    let status: Value = context.client()?.get(STATUS).await?;
    if context.output.is_data() {
        return context.output.data(&status);
    }
    let good = &status["good"];
    let newest = if good.is_object() {
        let size = bytes(good["bytes"].as_u64().unwrap_or_default());
        format!(
            "{} of {}, {size}, index {}",
            view::text(good, "id"),
            view::time(good, "at"),
            view::text(good, "index")
        )
    } else {
        "none".to_owned()
    };
    context.output.line(&format!("newest good   {newest}"))?;
    if status["running"].is_object() || status["asked"].is_object() || status["failed"].is_object()
    {
        context
            .output
            .line(&format!("now           {}", progress(&status)))?;
    }
    let next = match status["is_configured"].as_bool() {
        Some(false) => "none: the controller that answered has no backup.target".to_owned(),
        _ if status["next_at"].is_null() => "on request only".to_owned(),
        _ => view::time(&status, "next_at"),
    };
    context.output.line(&format!("next          {next}"))
}

impl List {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let header = [
            "backup", "state", "size", "index", "epoch", "cluster", "problem",
        ];
        let empty = "no backups: dotmac backup create --wait";
        let Some(target) = self.place.open()? else {
            self.pin.refuse()?;
            let client = patient(context, LISTS_MS)?;
            let shown = self
                .paging
                .show(context, &client, (PATH, &[]), (&header, &row), empty);
            return shown.await;
        };
        let origin = self.pin.origin(&self.place)?;
        let listed = listing::list(&target, origin.as_ref())
            .await
            .map_err(|error| failed(&error))?;
        if origin.is_none() && !listed.is_empty() {
            context.output.note(UNPROVEN);
        }
        let items: Vec<Value> = listed.iter().map(item).collect();
        if context.output.is_data() {
            return context
                .output
                .data(&json!({"items": items, "next_cursor": null}));
        }
        context
            .output
            .table(&header, items.iter().map(row).collect(), empty)
    }
}

fn row(backup: &Value) -> Vec<String> {
    let text = |name: &str| view::text(backup, name);
    let size = backup["bytes"].as_u64().map_or_else(String::new, bytes);
    vec![
        text("id"),
        text("state"),
        size,
        text("index"),
        text("epoch"),
        text("cluster"),
        text("problem"),
    ]
}

fn item(listed: &Listed) -> Value {
    let began_at = began(&listed.name).map(|at| at.0);
    match &listed.manifest {
        Ok(one) => json!({
            "id": listed.name, "state": "whole", "began_at": began_at, "bytes": one.bytes(), "index": one.index,
            "epoch": one.epoch, "cluster": one.cluster, "program": one.program, "problem": null,
            "origin_is_proven": listed.is_proven,
        }),
        Err(error) => {
            let state = match error {
                ReadError::Unfinished(_) => "unfinished",
                ReadError::Foreign { .. } => "foreign",
                _ => "damaged",
            };
            json!({
                "id": listed.name, "state": state, "began_at": began_at, "bytes": null, "index": null, "epoch": null,
                "cluster": null, "program": null, "problem": causes::in_full(error),
                "origin_is_proven": false,
            })
        }
    }
}

impl Verify {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        which::check(&self.name)?;
        let Some(target) = self.place.open()? else {
            self.pin.refuse()?;
            if self.identity.is_some() {
                let detail =
                    "--identity needs --target or --config: no secret key is sent to a controller";
                return Err(Failure::Usage(detail.to_owned()));
            }
            return self.ask(context).await;
        };
        let origin = self.pin.origin(&self.place)?;
        let name = which::at_target(context, (&target, origin.as_ref()), &self.name).await?;
        let (manifest, depth) = match &self.identity {
            None => {
                let checked = read::verify(&target, &name).await;
                (
                    checked.map_err(|error| failed(&error))?,
                    "every part's checksum and the signature",
                )
            }
            Some(path) => {
                let identity = Identity::read(path).map_err(|error| failed(&error))?;
                let opened = read::open(&target, &name, &identity, |_| Ok(())).await;
                let opened = opened.map_err(|error| failed(&error))?;
                (
                    opened.manifest,
                    "the state's digest and every chain of facts",
                )
            }
        };
        let manifest = match &origin {
            Some(origin) => origin.check(manifest).map_err(|error| failed(&error))?,
            None => manifest,
        };
        told(context, &manifest, depth, origin.is_some())
    }

    async fn ask(self, context: &Context) -> Result<(), Failure> {
        let client = patient(context, CHECKS_MS)?;
        let name = which::at_controller(context, &client, &self.name).await?;
        let path = format!("{PATH}/{}/verification", encode(&name));
        let found: Value = client.get(&path).await?;
        if found["is_whole"] != true {
            let problem = view::text(&found, "problem");
            return Err(Failure::Failed(problem));
        }
        if context.output.is_data() {
            return context.output.data(&found);
        }
        let (name, parts) = (view::text(&found, "id"), view::text(&found, "parts"));
        context.output.line(&format!(
            "backup {name} is whole: {parts} parts, every checksum and the signature"
        ))
    }
}

fn told(
    context: &Context,
    manifest: &Manifest,
    depth: &str,
    is_proven: bool,
) -> Result<(), Failure> {
    if context.output.is_data() {
        let mut shown = serde_json::to_value(manifest).map_err(|error| failed(&error))?;
        shown["origin_is_proven"] = is_proven.into();
        return context.output.data(&shown);
    }
    let whose = if is_proven {
        "the cluster of the genesis"
    } else {
        context.output.note(UNPROVEN);
        "not proven"
    };
    context.output.line(&format!(
        "backup {} is whole: {} parts, {}, {} facts, index {}, epoch {}; proven: {depth}; origin: {whose}",
        manifest.name,
        manifest.parts.len(),
        bytes(manifest.bytes()),
        manifest.facts,
        manifest.index,
        manifest.epoch,
    ))
}

impl Keygen {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let identity =
            Identity::create(&self.out, &context.entropy).map_err(|error| failed(&error))?;
        let recipient = identity.recipient();
        let digest = recipient.digest().to_string();
        let recipient = recipient.to_string();
        if context.output.is_data() {
            return context.output.data(
                &json!({"id": recipient, "digest": digest, "file": self.out.display().to_string()}),
            );
        }
        context.output.note(&format!(
            "{} opens backups: keep it offline, twice. The line below goes into backup.recipients of every controller; \
             backups that are sealed to it name it {digest}",
            self.out.display()
        ));
        context.output.line(&recipient)
    }
}
