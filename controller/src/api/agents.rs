//! Agents, and the single-use tokens with which they join. The caller makes the token and sends its digest.

use std::ops::Bound;

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    Command, State,
    access::Permission,
    command::CreateJoinToken,
    fleet::{Agent, JOIN_TOKEN_LIFETIME_MAX_MS, Presence},
};
use dotmac_protocol::{
    digest::Digest,
    ids::{AgentId, RegionId},
};
use serde_json::{Value, json};

use super::{
    answer::{answer, page_of, time, time_or_null},
    change::Change,
    fields::Fields,
    problem::Problem,
    reading::Reading,
};

/// `GET /api/v1/agents`
pub(super) async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::AgentRead, None)?;
    let (limit, cursor) = reading.page();
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let items = state
        .agents
        .iter()
        .filter(|(id, _)| cursor.as_deref().is_none_or(|cursor| id.as_str() > cursor))
        .map(|(id, agent)| (id.to_string(), item(&state, id, agent)));
    Ok(page_of(items, limit))
}

/// `POST /api/v1/agents/tokens`
pub(super) async fn create_join_token(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::AgentWrite, None)?;
    let token = read(change.fields()?, &change)?;
    let (id, region) = (token.id.clone(), token.region.clone());
    change.ask(Command::CreateJoinToken(token)).await?;
    let state = change.state_after().await;
    // A retry gets the time of the first request.
    let expires_at = state.join_tokens.get(&id).map(|token| token.expires_at);
    let genesis = &change.node.genesis;
    let controllers: Vec<&str> = genesis
        .nodes
        .iter()
        .map(|card| card.link_address.as_str())
        .collect();
    let body = json!({
        "id": id, "region": region, "expires_at": time_or_null(expires_at),
        "trust_root": genesis.trust_root.digest().to_string(), "controllers": controllers,
    });
    Ok(answer(StatusCode::CREATED, body))
}

fn read(mut fields: Fields, change: &Change) -> Result<CreateJoinToken, Problem> {
    let id = fields.required("id", "16 hexadecimal digits");
    let secret_digest =
        fields.required::<Digest>("secret_digest", "sha256: and 64 hexadecimal digits");
    let region = region(&mut fields, &change.state, true);
    let ttl_ms = fields
        .number("ttl_ms", 1..=JOIN_TOKEN_LIFETIME_MAX_MS)
        .unwrap_or(3_600_000);
    let expires_at = change.received_at().plus_millis(ttl_ms);
    let token = (|| {
        let (id, secret_digest) = (id?, secret_digest?);
        Some(CreateJoinToken {
            id,
            secret_digest,
            region: region?,
            expires_at,
        })
    })();
    fields.finish_with(token)
}

/// The member `region`; a wrong one is answered with all that there are.
pub(super) fn region(fields: &mut Fields, state: &State, is_required: bool) -> Option<RegionId> {
    let regions = state
        .genesis
        .as_ref()
        .map_or(&[][..], |genesis| &genesis.regions);
    let names: Vec<&str> = regions.iter().map(RegionId::as_str).collect();
    let allowed = format!("one of {}", names.join(", "));
    let text: String = if is_required {
        fields.required("region", &allowed)?
    } else {
        fields.text("region")?
    };
    let found = regions
        .iter()
        .find(|region| region.as_str() == text)
        .cloned();
    if found.is_none() {
        fields.refuse("region", &text, allowed);
    }
    found
}

fn item(state: &State, id: &AgentId, agent: &Agent) -> Value {
    let (status, since, node, software) = match &agent.presence {
        Presence::Unknown => ("unknown", None, None, None),
        Presence::Connected {
            node,
            software,
            since,
        } => (
            "connected",
            Some(*since),
            Some(*node),
            Some(software.as_str()),
        ),
        Presence::Disconnected { since } => ("disconnected", Some(*since), None, None),
    };
    json!({
        "id": id, "region": agent.region, "status": status, "since": time_or_null(since),
        "node": node, "software": software, "incarnation": agent.incarnation,
        "units": units(state, id), "certificate_not_after": time(agent.not_after),
        "enrolled_at": time(agent.enrolled_at),
    })
}

/// Units that the agent has to keep true.
fn units(state: &State, id: &AgentId) -> usize {
    let first: dotmac_protocol::ids::UnitId = "a/0".parse().expect("a kind, a slash and a name");
    let start = (id.clone(), first);
    let from = (Bound::Included(start), Bound::Unbounded);
    state
        .units
        .range(from)
        .take_while(|((agent, _), _)| agent == id)
        .count()
}
