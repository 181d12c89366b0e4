//! Agents: who works where, who is connected, and how one is shut out.

use std::ops::Bound;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    fleet::{Agent, Presence, RevokedAgent},
};
use dotmac_protocol::ids::{AgentId, RegionId};
use serde_json::{Value, json};

use super::{
    answer::{page_of, time, time_or_null},
    change::{Change, Entity},
    fields::Fields,
    operation::{Operation, Scope},
    problem::{Problem, WRONG_STATE},
    reading::{Named, Reading},
    schema,
};

mod join_tokens;

/// Where agents live.
const AGENTS: &str = "/api/v1/agents";
/// What an agent can be.
const STATUSES: [&str; 4] = ["unknown", "connected", "disconnected", REVOKED];
/// What one is that was shut out.
const REVOKED: &str = "revoked";

/// Quarantined units that are shown of one agent at most.
const QUARANTINED_MAX: usize = 100;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let path = format!("{AGENTS}/{{id}}");
    let one = |operation: Operation| {
        operation
            .named("id", schema::agent_id(), "the agent's id")
            .answers(StatusCode::OK, "The agent", schema::of("Agent"))
            .with("ETag", "its version, for If-Match")
    };
    let revoked = "Its session is cut and its certificates count no more, for good. Only one that keeps nothing: delete \
                   its deployments first, and wait until they are destroyed.";
    let mut operations = vec![
        Operation::read("agents.list", AGENTS, list)
            .says("List agents", "By id; revoked ones only when asked for.")
            .needs(&[Permission::AgentRead], Scope::Platform)
            .query("region", schema::region_id(), "only those of this region")
            .query(
                "status",
                schema::one_of(&STATUSES),
                "only those that are so",
            )
            .paged(schema::agent_id())
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("Agent")),
            ),
        one(Operation::read("agents.show", path.clone(), show))
            .says(
                "Show an agent",
                "Where it works, and whether it is connected.",
            )
            .needs(&[Permission::AgentRead], Scope::Platform),
        one(Operation::change(
            Method::DELETE,
            "agents.revoke",
            path,
            revoke,
        ))
        .says("Shut an agent out", revoked)
        .needs(&[Permission::AgentDelete], Scope::Platform)
        .versioned()
        .problems(&[&WRONG_STATE]),
    ];
    operations.extend(join_tokens::operations());
    operations
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let quarantined = schema::object(
        &[
            ("unit", schema::any_text()),
            ("deployment", schema::or_null(schema::deployment_id())),
            ("generation", schema::count()),
            ("sequence", schema::count()),
            ("health", schema::any_text()),
            ("since", schema::time()),
        ],
        &[],
    );
    let agent = schema::object(
        &[
            ("id", schema::agent_id()),
            ("region", schema::region_id()),
            ("status", schema::one_of(&STATUSES)),
            ("since", schema::or_null(schema::time())),
            ("node", schema::count_or_null()),
            ("software", schema::text_or_null()),
            ("incarnation", schema::text_or_null()),
            (
                "units",
                schema::about(
                    "What it keeps true, or has not removed yet",
                    schema::count(),
                ),
            ),
            ("certificate_not_after", schema::or_null(schema::time())),
            ("enrolled_at", schema::time()),
            ("revoked_at", schema::or_null(schema::time())),
            (
                "awaited",
                schema::about(
                    "After a restore: whether nothing is ordered of it before it has told all",
                    schema::flag(),
                ),
            ),
            (
                "quarantined",
                schema::about(
                    "What it keeps otherwise than a restored backup knows, 100 at most",
                    schema::list(quarantined),
                ),
            ),
        ],
        &[],
    );
    let mut schemas = vec![("Agent", agent)];
    schemas.extend(join_tokens::schemas());
    schemas
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::AgentRead, None)?;
    let (limit, after) = reading.page::<AgentId>();
    let Reading {
        state, mut query, ..
    } = reading;
    let wanted = query.choice("status", &STATUSES);
    let region = query.parsed::<RegionId>("region", "the name of a region");
    query.finish()?;
    let from = || {
        (
            after.as_ref().map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        )
    };
    let is_there = |one: &RegionId| region.as_ref().is_none_or(|region| region == one);
    if wanted == Some(REVOKED) {
        let revoked = state.revoked_agents.range::<AgentId, _>(from());
        let items = revoked
            .filter(|(_, one)| is_there(&one.region))
            .map(|(id, one)| (id, revoked_item(id, one)));
        return Ok(page_of(items, limit));
    }
    let items = state
        .agents
        .range::<AgentId, _>(from())
        .filter(|(_, one)| is_there(&one.region))
        .filter(|(_, one)| wanted.is_none_or(|wanted| status(one) == wanted))
        .map(|(id, one)| (id, item(&state, id, one)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::AgentRead, None)?;
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let (_, entity) = known(&state, &id)?;
    Ok(entity.answer(StatusCode::OK))
}

async fn revoke(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::AgentDelete, None)?;
    change.expect_no_fields()?;
    let (id, _) = known(&change.state, &id)?;
    let command = Command::RevokeAgent { agent: id.clone() };
    change
        .carry_out(command, StatusCode::OK, |state, _| entity(state, &id))
        .await
}

/// The agent that a path names.
fn known(state: &State, id: &str) -> Result<(AgentId, Entity), Problem> {
    let found = id.parse::<AgentId>().ok();
    let found = found.and_then(|id| Some((id.clone(), entity(state, &id)?)));
    found.ok_or_else(|| Problem::not_found("agent", id))
}

fn entity(state: &State, id: &AgentId) -> Option<Entity> {
    let (body, revision) = match (state.agents.get(id), state.revoked_agents.get(id)) {
        (Some(agent), _) => (item(state, id, agent), agent.revision()),
        (None, Some(agent)) => (revoked_item(id, agent), agent.revision()),
        (None, None) => return None,
    };
    Some(Entity {
        body,
        revision: Some(revision),
        location: None,
    })
}

/// The member `region`; a wrong one is answered with all that there are.
pub(super) fn region(fields: &mut Fields, state: &State, is_required: bool) -> Option<RegionId> {
    let names: Vec<&str> = state.regions.keys().map(RegionId::as_str).collect();
    let allowed = format!("one of {}", names.join(", "));
    let text: String = if is_required {
        fields.required("region", &allowed)?
    } else {
        fields.text("region")?
    };
    let found = text.parse().ok();
    let found = found.filter(|region| state.regions.contains_key(region));
    if found.is_none() {
        fields.refuse("region", &text, allowed);
    }
    found
}

fn status(agent: &Agent) -> &'static str {
    match &agent.presence {
        Presence::Unknown => "unknown",
        Presence::Connected { .. } => "connected",
        Presence::Disconnected { .. } => "disconnected",
    }
}

/// An agent as GET shows it.
pub(super) fn item(state: &State, id: &AgentId, agent: &Agent) -> Value {
    let (since, node, software) = match &agent.presence {
        Presence::Unknown => (None, None, None),
        Presence::Connected {
            node,
            software,
            since,
        } => (Some(*since), Some(*node), Some(software.as_str())),
        Presence::Disconnected { since } => (Some(*since), None, None),
    };
    json!({
        "id": id, "region": agent.region, "status": status(agent), "since": time_or_null(since),
        "node": node, "software": software, "incarnation": agent.incarnation,
        "units": state.units_kept_by(id), "certificate_not_after": time(agent.not_after),
        "enrolled_at": time(agent.enrolled_at), "revoked_at": null,
        "awaited": state.awaits(id), "quarantined": quarantined(state, id),
    })
}

/// What an agent keeps otherwise than a restored State knows, 100 units at most.
fn quarantined(state: &State, id: &AgentId) -> Vec<Value> {
    let all = state.quarantined_of(id).take(QUARANTINED_MAX);
    all.map(|(unit, one)| {
        json!({
            "unit": unit, "deployment": one.deployment, "generation": one.generation,
            "sequence": one.sequence, "health": one.health.as_str(), "since": time(one.since),
        })
    })
    .collect()
}

/// A revoked agent as GET shows it.
pub(super) fn revoked_item(id: &AgentId, agent: &RevokedAgent) -> Value {
    json!({
        "id": id, "region": agent.region, "status": REVOKED, "since": time(agent.revoked_at), "node": null,
        "software": null, "incarnation": null, "units": 0, "certificate_not_after": null,
        "enrolled_at": time(agent.enrolled_at), "revoked_at": time(agent.revoked_at),
        "awaited": false, "quarantined": [],
    })
}
