//! What a tenant's instance is started with, its secrets too: a live question to its agent, for those alone who may know.
//! That it was asked is in the audit before anything is shown; the values pass through sealed and are kept nowhere.

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    State,
    access::Permission,
    tenancy::{Deployment, Status},
};
use dotmac_protocol::{
    frame::Question,
    ids::{DeploymentId, PartName, TenantId, UnitId},
};

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
/// The environments that a deployment can have.
const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];
/// The one that is meant when there are several and none is named.
const USUAL: &str = "production";

/// What can be asked.
pub(super) fn operation(path: String) -> Operation {
    let about = "A live question to the agent that runs it: every variable by name and value, secrets included. Each line \
        holds one piece, sealed to `seal_to`; opened and joined they are one line of JSON a copy.";
    let usual = "which of its deployments: its only one, or `production`, if not given";
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
        .query("environment", schema::one_of(&ENVIRONMENTS), usual)
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
    let environment = environment(&mut query);
    let component = query.parsed::<PartName>("component", "the name of a component");
    let seal_to = live::seal_key(&mut query);
    let seal_to = query.finish_with(seal_to)?;
    let (deployment, agent) = {
        let (id, deployment) = choose(&reading.state, &tenant, environment)?;
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

fn environment(query: &mut Fields) -> Option<&'static str> {
    let text = query.text("environment")?;
    let known = ENVIRONMENTS.into_iter().find(|known| *known == text);
    if known.is_none() {
        query.refuse("environment", &text, "development, staging or production");
    }
    known
}

/// The deployment of that environment; of none, the only one or that of production.
fn choose<'s>(
    state: &'s State,
    tenant: &TenantId,
    environment: Option<&str>,
) -> Result<(&'s DeploymentId, &'s Deployment), Problem> {
    let deployments: Vec<_> = state
        .deployments_of(tenant)
        .filter(|(_, one)| one.status != Status::Destroyed)
        .collect();
    let of = |wanted: &str| {
        let mut found = deployments.iter();
        found.find(|(_, one)| one.environment == wanted).copied()
    };
    let found = match (environment, deployments.as_slice()) {
        (Some(wanted), _) => of(wanted),
        (None, [only]) => Some(*only),
        (None, _) => of(USUAL),
    };
    found.ok_or_else(|| match (environment, deployments.is_empty()) {
        (Some(wanted), _) => Problem::not_found("deployment", &format!("{tenant} ({wanted})")),
        (None, true) => Problem::new(&WRONG_STATE, format!("tenant {tenant} has no deployment")),
        (None, false) => {
            let environments: Vec<&str> = deployments
                .iter()
                .map(|(_, one)| one.environment.as_str())
                .collect();
            let detail = format!(
                "tenant {tenant} has several deployments: say which environment, {}",
                environments.join(" or ")
            );
            Problem::new(&WRONG_STATE, detail)
        }
    })
}
