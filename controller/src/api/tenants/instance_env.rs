//! What a tenant's instance is started with, its secrets too: a live question to its agent, for those alone who may know.
//! That it was asked is in the audit before anything is shown; the values pass through sealed and are kept nowhere.

use axum::{http::StatusCode, response::Response};
use dotmac_domain::access::Permission;
use dotmac_protocol::{
    frame::Question,
    ids::{PartName, TenantId, UnitId},
};

use super::environment;
use crate::api::{
    fields::Fields,
    live,
    operation::{Operation, Scope},
    problem::{AGENT_DISCONNECTED, NOT_FOUND, Problem, WRONG_STATE},
    reading::{Named, Reading},
    schema,
};

/// What the audit calls it.
const NOTE: &str = "tenant.instance-env-read";

/// What can be asked.
pub(super) fn operation(path: String) -> Operation {
    let about = "A live question to the agent that runs it: every variable by name and value, secrets included. Each line \
        holds one piece, sealed to `seal_to`; opened and joined they are one line of JSON a copy.";
    Operation::read("tenants.instance-env", path, instance_env)
        .says("Read what an instance is started with", about)
        .needs(&[Permission::TenantInstanceEnv], Scope::Tenant)
        .noted(NOTE)
        .named("id", schema::tenant_id(), "the tenant's id")
        .required(
            "seal_to",
            schema::pattern("^[0-9a-fA-F]{64}$"),
            "an X25519 public key of the asker, hexadecimal",
        )
        .query(
            "environment",
            schema::one_of(&environment::ENVIRONMENTS),
            environment::USUALLY,
        )
        .query(
            "component",
            schema::pattern("^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$"),
            "of this component only",
        )
        .problems(&[&NOT_FOUND, &WRONG_STATE, &AGENT_DISCONNECTED])
        .answers_as(
            StatusCode::OK,
            "Sealed pieces, one a line",
            "application/x-ndjson",
            schema::any_text(),
        )
        .answers_empty(
            StatusCode::TEMPORARY_REDIRECT,
            "Another controller has the agent's session",
        )
        .with("Location", "where to ask")
}

/// `GET …/tenants/{id}/instance-env`
async fn instance_env(mut reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    let permission = Permission::TenantInstanceEnv;
    reading.who.has(permission)?;
    let missing = |_| Problem::not_found("tenant", &id);
    let tenant: TenantId = id.parse().map_err(missing)?;
    reading.who.tenant(&reading.state, permission, &tenant)?;
    let mut query = std::mem::replace(&mut reading.query, Fields::of_query(None)?);
    let environment = environment::read(&mut query);
    let component = query.parsed::<PartName>("component", "the name of a component");
    let seal_to = live::seal_key(&mut query);
    let seal_to = query.finish_with(seal_to)?;
    let (deployment, agent) = {
        let (id, deployment) = environment::choose(&reading.state, &tenant, environment)?;
        let agent = deployment.agent.clone();
        let nobody = || {
            let detail = format!("no agent has {id} yet, so it is started with nothing");
            Problem::new(&WRONG_STATE, detail)
        };
        (id.clone(), agent.ok_or_else(nobody)?)
    };
    if let Some(elsewhere) = live::elsewhere(&reading, &agent) {
        return Ok(elsewhere);
    }
    let of = component
        .as_ref()
        .map_or_else(|| "all components".to_owned(), ToString::to_string);
    let detail = format!("{deployment}: the environment of {of}, with its secrets");
    reading.note_access(NOTE, Some(tenant), detail).await?;
    let question = Question::Environment {
        unit: UnitId::instance(&deployment),
        component,
        seal_to,
    };
    let mut answers = live::ask(&reading, &agent, question).await?;
    let first = live::first(&agent, &mut answers).await?;
    let ended = reading.who.until_ended(&reading.node);
    Ok(live::stream_of(Some(first), answers, ended))
}
