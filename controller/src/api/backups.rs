//! Backups: ask for one, see how far it is, list those at the target, and check one without its key. It makes none itself:
//! that is the leader's keeper.

use std::{str::FromStr, time::Duration};

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    backups::{Asked, Failed, Made, Running, is_name},
};
use serde_json::{Value, json};

use super::{
    answer::{answer, page_of, time},
    change::{Change, Entity},
    operation::{Operation, Scope},
    problem::{BACKUP_TARGET, Problem, TIMED_OUT, WRONG_STATE},
    reading::{Named, Reading},
    schema,
};
use crate::{
    backup::{began, keeper::VerifyError, listing::Listed, manifest::Manifest, read::ReadError},
    node::Node,
};

/// Where backups are.
const BACKUPS: &str = "/api/v1/backups";
/// Where it is told how the one under way is.
const STATUS: &str = "/api/v1/backups/status";
/// How long a target may take to list what it holds.
const LIST_DEADLINE: Duration = Duration::from_secs(10);
/// How long the check of one backup may take; larger ones are checked at the target.
const VERIFY_DEADLINE: Duration = Duration::from_secs(20);
/// What a backup in a list can be.
const STATES: [&str; 4] = ["whole", "unfinished", "damaged", "foreign"];

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let path = format!("{BACKUPS}/{{id}}");
    let check = format!("{path}/verification");
    let name = || schema::pattern("^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$");
    let of_target: [&'static super::problem::Kind; 2] = [&WRONG_STATE, &BACKUP_TARGET];
    let checked = "Every part is there with its length and SHA-256, and a controller of this cluster signed the manifest. \
                   What is sealed in the parts is checked by `dotmac backup verify --identity`.";
    vec![
        Operation::read("backups.list", BACKUPS, list)
            .says(
                "List backups",
                "Those at the target, by name, which is by time.",
            )
            .needs(&[Permission::BackupRead], Scope::Platform)
            .paged(name())
            .problems(&of_target)
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("Backup")),
            ),
        Operation::change(Method::POST, "backups.create", BACKUPS, create)
            .says(
                "Ask for a backup now",
                "The leader makes it; `backups.status` tells how far it is.",
            )
            .needs(&[Permission::BackupCreate], Scope::Platform)
            .problems(&[&WRONG_STATE])
            .answers(
                StatusCode::ACCEPTED,
                "It is asked for",
                schema::of("BackupStatus"),
            ),
        Operation::read("backups.status", STATUS, status)
            .says(
                "How backups are",
                "The one asked for, the one under way, the newest good one and the last failure.",
            )
            .needs(&[Permission::BackupRead], Scope::Platform)
            .answers(StatusCode::OK, "How they are", schema::of("BackupStatus")),
        Operation::read("backups.show", path, show)
            .says("Show a backup", "What its manifest says.")
            .needs(&[Permission::BackupRead], Scope::Platform)
            .named("id", name(), "the backup's name")
            .problems(&of_target)
            .answers(StatusCode::OK, "The backup", schema::of("Backup")),
        Operation::read("backups.verify", check, verify)
            .says("Check a backup without its key", checked)
            .needs(&[Permission::BackupRead], Scope::Platform)
            .named("id", name(), "the backup's name")
            .problems(&of_target)
            .problems(&[&TIMED_OUT])
            .answers(
                StatusCode::OK,
                "What was found",
                schema::of("BackupVerification"),
            ),
    ]
}

/// What their answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let text = schema::any_text;
    let backup = schema::object(
        &[
            ("id", text()),
            ("state", schema::one_of(&STATES)),
            ("problem", schema::text_or_null()),
            ("began_at", schema::or_null(schema::time())),
            ("cluster", schema::text_or_null()),
            ("made_by", schema::count_or_null()),
            ("program", schema::text_or_null()),
            ("index", schema::count_or_null()),
            ("term", schema::count_or_null()),
            ("epoch", schema::count_or_null()),
            ("trust_version", schema::count_or_null()),
            ("state_digest", schema::text_or_null()),
            ("facts", schema::count_or_null()),
            ("parts", schema::count_or_null()),
            ("bytes", schema::count_or_null()),
            ("recipients", schema::list(text())),
        ],
        &[],
    );
    let asked = schema::object(&[("id", text()), ("at", schema::time())], &[]);
    let running = schema::object(
        &[
            ("id", text()),
            ("since", schema::time()),
            ("bytes", schema::count()),
        ],
        &[],
    );
    let good = schema::object(
        &[
            ("id", text()),
            ("at", schema::time()),
            ("index", schema::count()),
            ("bytes", schema::count()),
            ("took_ms", schema::count()),
        ],
        &[],
    );
    let failed = schema::object(
        &[
            ("at", schema::time()),
            ("reason", text()),
            ("in_a_row", schema::count()),
            ("again_at", schema::time()),
        ],
        &[],
    );
    let answered = schema::object(&[("id", text()), ("made", schema::flag())], &[]);
    let status = schema::object(
        &[
            (
                "is_configured",
                schema::about("On the controller that answers", schema::flag()),
            ),
            ("asked", schema::or_null(asked)),
            ("running", schema::or_null(running)),
            ("good", schema::or_null(good)),
            ("failed", schema::or_null(failed)),
            ("answered", schema::or_null(answered)),
            ("next_at", schema::or_null(schema::time())),
        ],
        &[],
    );
    let verification = schema::object(
        &[
            ("id", text()),
            ("is_whole", schema::flag()),
            ("problem", schema::text_or_null()),
            ("parts", schema::count_or_null()),
            ("bytes", schema::count_or_null()),
        ],
        &[],
    );
    vec![
        ("Backup", backup),
        ("BackupStatus", status),
        ("BackupVerification", verification),
    ]
}

/// The name of a backup, behind which a page begins.
struct Cursor(String);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        is_name(text).then(|| Self(text.to_owned())).ok_or(())
    }
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::BackupRead, None)?;
    let (limit, after) = reading.page::<Cursor>();
    let Reading {
        node, state, query, ..
    } = reading;
    query.finish()?;
    let listed = shelf(&node, &state).await?;
    let items = listed
        .iter()
        .filter(|one| after.as_ref().is_none_or(|after| one.name > after.0))
        .map(|one| (&one.name, item(one)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::BackupRead, None)?;
    let Reading {
        node, state, query, ..
    } = reading;
    query.finish()?;
    let listed = shelf(&node, &state).await?;
    let found = listed.iter().find(|one| one.name == id);
    let found = found.ok_or_else(|| Problem::not_found("backup", &id))?;
    Ok(answer(StatusCode::OK, item(found)))
}

async fn verify(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::BackupRead, None)?;
    let Reading { node, query, .. } = reading;
    query.finish()?;
    let checking = tokio::time::timeout(VERIFY_DEADLINE, node.shelf.verify(&node, &id)).await;
    let checked = checking.map_err(|_| {
        let next = "check it at the target: `dotmac backup verify NAME --target URL`";
        Problem::new(&TIMED_OUT, "the backup is too large to be checked here").with_next(next)
    })?;
    let (problem, manifest) = match checked {
        Ok(manifest) => (None, Some(manifest)),
        Err(VerifyError::Wrong(detail)) => (Some(detail), None),
        Err(VerifyError::Missing) => return Err(Problem::not_found("backup", &id)),
        Err(VerifyError::NoTarget) => return Err(no_target(&node)),
        Err(VerifyError::Target(detail)) => return Err(Problem::new(&BACKUP_TARGET, detail)),
    };
    let parts = manifest.as_ref().map(|one| one.parts.len());
    let bytes = manifest.as_ref().map(Manifest::bytes);
    let body = json!({
        "id": id, "is_whole": problem.is_none(), "problem": problem, "parts": parts, "bytes": bytes,
    });
    Ok(answer(StatusCode::OK, body))
}

async fn status(reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::BackupRead, None)?;
    let Reading {
        node, state, query, ..
    } = reading;
    query.finish()?;
    Ok(answer(StatusCode::OK, status_of(&node, &state)))
}

async fn create(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::BackupCreate, None)?;
    change.expect_no_fields()?;
    if change.node.backup.is_none() {
        return Err(no_target(&change.node));
    }
    let node = std::sync::Arc::clone(&change.node);
    change
        .carry_out(Command::RequestBackup, StatusCode::ACCEPTED, |state, _| {
            Some(Entity {
                body: status_of(&node, state),
                revision: None,
                location: Some(STATUS.to_owned()),
            })
        })
        .await
}

async fn shelf(node: &Node, state: &State) -> Result<std::sync::Arc<Vec<Listed>>, Problem> {
    if node.backup.is_none() {
        return Err(no_target(node));
    }
    match tokio::time::timeout(LIST_DEADLINE, node.shelf.list(node, state)).await {
        Ok(Ok(listed)) => Ok(listed),
        Ok(Err(detail)) => Err(Problem::new(&BACKUP_TARGET, detail)),
        Err(_) => {
            let detail = format!("the backup target does not answer within {LIST_DEADLINE:?}");
            Err(Problem::new(&BACKUP_TARGET, detail))
        }
    }
}

fn no_target(node: &Node) -> Problem {
    let detail = format!(
        "controller {} has no backup.target in its configuration",
        node.card.node
    );
    let next = "set backup.target and backup.recipients in controller.toml of every controller: docs/operations/backup.md";
    Problem::new(&WRONG_STATE, detail).with_next(next)
}

/// How backups are.
pub(super) fn status_of(node: &Node, state: &State) -> Value {
    let backups = &state.backups;
    let schedule = node.backup.as_ref().and_then(|one| one.schedule.as_ref());
    let next = backups.due(schedule).filter(|_| backups.running.is_none());
    let asked = |one: &Asked| json!({"id": one.request, "at": time(one.at)});
    let running =
        |one: &Running| json!({"id": one.name, "since": time(one.since), "bytes": one.bytes});
    let good = |one: &Made| {
        json!({
            "id": one.name, "at": time(one.at), "index": one.index, "bytes": one.bytes, "took_ms": one.took_ms,
        })
    };
    let failed = |one: &Failed| {
        json!({
            "at": time(one.at), "reason": one.reason, "in_a_row": one.in_a_row, "again_at": time(one.again_at()),
        })
    };
    let answered = backups.answered.as_ref();
    json!({
        "is_configured": node.backup.is_some(),
        "asked": backups.asked.as_ref().map(asked),
        "running": backups.running.as_ref().map(running),
        "good": backups.good.as_ref().map(good),
        "failed": backups.failed.as_ref().map(failed),
        "answered": answered.map(|(id, made)| json!({"id": id, "made": made})),
        "next_at": next.map(|at| time(at.max(state.now))),
    })
}

/// A backup as GET shows it.
fn item(listed: &Listed) -> Value {
    let began = began(&listed.name).map(time);
    match &listed.manifest {
        Ok(one) => {
            let recipients: Vec<String> = one.keys.iter().map(|key| key.to.to_string()).collect();
            json!({
                "id": listed.name, "state": STATES[0], "problem": null, "began_at": began,
                "cluster": one.cluster, "made_by": one.node, "program": one.program, "index": one.index,
                "term": one.term, "epoch": one.epoch, "trust_version": one.trust_version,
                "state_digest": one.state_digest.to_string(), "facts": one.facts, "parts": one.parts.len(),
                "bytes": one.bytes(), "recipients": recipients,
            })
        }
        Err(error) => {
            let state = match error {
                ReadError::Unfinished(_) => STATES[1],
                ReadError::Foreign { .. } => STATES[3],
                _ => STATES[2],
            };
            json!({
                "id": listed.name, "state": state, "problem": dotmac_runtime::causes::in_full(error),
                "began_at": began, "cluster": null, "made_by": null, "program": null, "index": null, "term": null,
                "epoch": null, "trust_version": null, "state_digest": null, "facts": null, "parts": null,
                "bytes": null, "recipients": [],
            })
        }
    }
}
