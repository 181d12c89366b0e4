//! An instance's output: a live question to its agent. That it was asked is in the audit before anything is shown.

use std::fmt::Write as _;

use axum::response::Response;
use dotmac_domain::access::Permission;
use dotmac_protocol::{
    frame::Question,
    ids::{PartName, UnitId},
};

use crate::api::{
    fields::Fields,
    live,
    problem::{Problem, WRONG_STATE},
    reading::{Named, Reading},
};

/// Lines of the past at most, and when the caller does not say.
const LINES: (u64, u32) = (10_000, 100);

/// `GET …/deployments/{id}/logs`
pub(super) async fn logs(
    mut reading: Reading,
    Named(id): Named<String>,
) -> Result<Response, Problem> {
    let (id, deployment) = reading.who.deployment(&reading.state, &id)?;
    let (tenant, agent) = (deployment.tenant.clone(), deployment.agent.clone());
    reading
        .who
        .require(&reading.state, Permission::DeploymentLogs, Some(&tenant))?;
    let question = question(&mut reading.query, UnitId::instance(&id));
    let query = std::mem::replace(&mut reading.query, Fields::of_query(None)?);
    let (question, detail) = query.finish_with(question)?;
    let Some(agent) = agent else {
        let detail = format!("no agent has {id} yet, so it has no output");
        return Err(Problem::new(&WRONG_STATE, detail));
    };
    if let Some(elsewhere) = live::elsewhere(&reading, &agent) {
        return Ok(elsewhere);
    }
    let detail = format!("{id}: {detail}");
    reading
        .note_access("deployment.logs-read", Some(tenant), detail)
        .await?;
    let answers = live::ask(&reading, &agent, question).await?;
    let ended = reading.who.until_ended(&reading.node);
    Ok(live::stream_of(None, answers, ended))
}

/// The question and how the audit tells it.
fn question(query: &mut Fields, unit: UnitId) -> Option<(Question, String)> {
    let lines = query.number("lines", 0..=LINES.0).unwrap_or(LINES.1);
    let follow = query.flag("follow").unwrap_or(false);
    let component = query.parsed::<PartName>("component", "the name of a component");
    let seal_to = live::seal_key(query)?;
    let mut detail = format!("the last {lines} lines");
    if let Some(component) = &component {
        let _ = write!(detail, " of {component}");
    }
    if follow {
        detail.push_str(" and those that follow");
    }
    let question = Question::Logs {
        unit,
        component,
        lines,
        follow,
        seal_to,
    };
    Some((question, detail))
}
