//! Single-use tokens with which agents join. The caller makes the token and sends its digest; the text never comes here.

use std::ops::Bound;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    command::CreateJoinToken,
    envelope::Actor,
    fleet::{JOIN_TOKEN_LIFETIME_MAX_MS, JoinToken, JoinTokenStatus},
};
use dotmac_protocol::{
    digest::Digest,
    ids::{RegionId, TokenId},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{AGENTS, region};
use crate::api::{
    answer::{page_of, time, time_or_null},
    change::{Change, Entity},
    fields::Fields,
    operation::{Operation, Scope},
    problem::{ALREADY_EXISTS, Problem, WRONG_STATE},
    reading::{Named, Reading},
    schema,
};

/// Milliseconds that a join token counts at least.
const TTL_MIN_MS: u64 = 1_000;
/// Milliseconds that it counts when the caller does not say.
const TTL_MS: u64 = 3_600_000;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let list_path = format!("{AGENTS}/tokens");
    let path = format!("{list_path}/{{id}}");
    let made = "Its single use admits one agent of that region. The caller makes the token and sends its digest.";
    let statuses = schema::one_of(&JoinTokenStatus::ALL.map(JoinTokenStatus::as_str));
    let one = |operation: Operation| {
        operation
            .named("id", schema::token_id(), "the join token's public name")
            .answers(StatusCode::OK, "The join token", schema::of("JoinToken"))
            .with("ETag", "its version, for If-Match")
    };
    vec![
        Operation::read("join_tokens.list", list_path.clone(), list)
            .says(
                "List join tokens",
                "By id, used, revoked and expired ones too until they are forgotten.",
            )
            .needs(&[Permission::AgentRead], Scope::Platform)
            .query("status", statuses, "only those that are so")
            .paged(schema::token_id())
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("JoinToken")),
            ),
        Operation::change(Method::POST, "join_tokens.create", list_path, create)
            .says("Admit a join token", made)
            .needs(&[Permission::AgentWrite], Scope::Platform)
            .body(schema::of("JoinTokenCreate"))
            .problems(&[&ALREADY_EXISTS])
            .answers(
                StatusCode::CREATED,
                "The join token counts",
                schema::of("JoinTokenMade"),
            )
            .with("ETag", "its version, for If-Match")
            .with("Location", "where it is")
            .link("join_tokens.show", &[("id", "$response.body#/id")])
            .link("join_tokens.revoke", &[("id", "$response.body#/id")]),
        one(Operation::read("join_tokens.show", path.clone(), show))
            .says(
                "Show a join token",
                "What it is good for, and which agent used it.",
            )
            .needs(&[Permission::AgentRead], Scope::Platform),
        one(Operation::change(
            Method::DELETE,
            "join_tokens.revoke",
            path,
            revoke,
        ))
        .says("Take a join token back", "Only one that no agent has used.")
        .needs(&[Permission::AgentWrite], Scope::Platform)
        .versioned()
        .problems(&[&WRONG_STATE]),
    ]
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let create = schema::body(
        &[
            ("id", schema::token_id()),
            ("secret_digest", schema::digest()),
            ("region", schema::of("RegionId")),
        ],
        &[(
            "ttl_ms",
            schema::whole(TTL_MIN_MS, JOIN_TOKEN_LIFETIME_MAX_MS),
        )],
    );
    let statuses = JoinTokenStatus::ALL.map(JoinTokenStatus::as_str);
    let shown = || {
        vec![
            ("id", schema::token_id()),
            ("region", schema::region_id()),
            ("status", schema::one_of(&statuses)),
            ("created_at", schema::time()),
            ("created_by", schema::or_null(schema::token_id())),
            ("expires_at", schema::time()),
            ("used_by", schema::or_null(schema::agent_id())),
            ("revoked_at", schema::or_null(schema::time())),
        ]
    };
    let mut made = shown();
    made.push(("trust_root", schema::digest()));
    made.push(("controllers", schema::list(schema::any_text())));
    vec![
        ("JoinTokenCreate", create),
        ("JoinToken", schema::object(&shown(), &[])),
        ("JoinTokenMade", schema::object(&made, &[])),
    ]
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::AgentRead, None)?;
    let (limit, after) = reading.page::<TokenId>();
    let now = reading.now();
    let Reading {
        state, mut query, ..
    } = reading;
    let words = JoinTokenStatus::ALL.map(JoinTokenStatus::as_str);
    let wanted = query.choice("status", &words);
    query.finish()?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .join_tokens
        .range((from, Bound::Unbounded))
        .filter(|(_, one)| wanted.is_none_or(|wanted| one.status(now).as_str() == wanted))
        .map(|(id, one)| (id, item(id, one, now)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::AgentRead, None)?;
    let now = reading.now();
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let id = known(&state, &id)?;
    let entity = entity(&state, &id, now).ok_or_else(|| not_found(id.as_str()))?;
    Ok(entity.answer(StatusCode::OK))
}

async fn create(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::AgentWrite, None)?;
    let token = read(change.fields()?, &change)?;
    let (id, now) = (token.id.clone(), change.received_at());
    let command = Command::CreateJoinToken(token);
    change
        .carry_out(command, StatusCode::CREATED, |state, _| {
            // A retry gets the time of the first request.
            let mut made = entity(state, &id, now)?;
            let controllers = state.signing_controllers();
            let controllers: Vec<&str> = controllers
                .map(|one| one.card.link_address.as_str())
                .collect();
            let newest = state.trust_roots.values().next_back()?;
            made.body["trust_root"] = newest.signed.digest().to_string().into();
            made.body["controllers"] = json!(controllers);
            made.location = Some(format!("{AGENTS}/tokens/{id}"));
            Some(made)
        })
        .await
}

async fn revoke(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::AgentWrite, None)?;
    change.expect_no_fields()?;
    let id = known(&change.state, &id)?;
    let now = change.received_at();
    let command = Command::RevokeJoinToken { token: id.clone() };
    change
        .carry_out(command, StatusCode::OK, |state, _| entity(state, &id, now))
        .await
}

fn read(mut fields: Fields, change: &Change) -> Result<CreateJoinToken, Problem> {
    let id = fields.required("id", "16 hexadecimal digits");
    let secret_digest =
        fields.required::<Digest>("secret_digest", "sha256: and 64 hexadecimal digits");
    let region: Option<RegionId> = region(&mut fields, &change.state, true);
    let ttl_ms = fields
        .number("ttl_ms", TTL_MIN_MS..=JOIN_TOKEN_LIFETIME_MAX_MS)
        .unwrap_or(TTL_MS);
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

/// The join token that a path names.
fn known(state: &State, id: &str) -> Result<TokenId, Problem> {
    let found = id
        .parse()
        .ok()
        .filter(|id| state.join_tokens.contains_key(id));
    found.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Problem {
    Problem::not_found("join token", id)
}

fn entity(state: &State, id: &TokenId, now: Timestamp) -> Option<Entity> {
    let token = state.join_tokens.get(id)?;
    Some(Entity {
        body: item(id, token, now),
        revision: Some(token.revision()),
        location: None,
    })
}

fn item(id: &TokenId, token: &JoinToken, now: Timestamp) -> Value {
    let maker = match &token.warrant.actor {
        Actor::Person(maker) => Some(maker),
        Actor::Agent(_) | Actor::Planner | Actor::Founder => None,
    };
    json!({
        "id": id, "region": token.region, "status": token.status(now).as_str(),
        "created_at": time(token.warrant.at), "created_by": maker, "expires_at": time(token.expires_at),
        "used_by": token.used_by, "revoked_at": time_or_null(token.revoked_at),
    })
}
