//! Access tokens. The caller makes the token and sends its digest; the text never comes here, and nothing shows it again.

use std::ops::Bound;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::{Permission, Role, TOKEN_LIFETIME_MAX_MS, Token, TokenEnd},
    command::CreateToken,
    envelope::Actor,
};
use dotmac_protocol::{
    digest::Digest,
    ids::{TenantId, TokenId},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{
    answer::{answer, page_of, time, time_or_null},
    change::{Change, Entity},
    fields::Fields,
    operation::{Operation, Scope},
    problem::{ALREADY_EXISTS, LIMIT_REACHED, Problem, WRONG_STATE},
    reading::{Named, Reading},
    schema,
};

/// Where tokens live.
const TOKENS: &str = "/api/v1/tokens";
/// The names of the roles; `master_admin` is the older name of the first.
const ROLES: &str = "platform_admin, tenant_admin, tenant_user, reseller, support or auditor";
/// Milliseconds that a token counts at least.
const TTL_MIN_MS: u64 = 10_000;
/// What a token is good for.
const STATUSES: [&str; 3] = ["active", "expired", "revoked"];

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let path = format!("{TOKENS}/{{id}}");
    let made = "The caller makes the token and sends its digest: the text never comes here. It may do no more than the \
                token that asks, and ends with it at the latest.";
    let revoked = "It counts on no controller any more within a second, and streams that are open with it end. What it \
                   had asked for stands. Whoever holds a token may always revoke it; the last platform_admin token \
                   without an end stays.";
    let one = |operation: Operation| {
        operation
            .named("id", schema::token_id(), "the token's public name")
            .answers(StatusCode::OK, "The token", schema::of("Token"))
            .with("ETag", "its version, for If-Match")
    };
    vec![
        Operation::read("tokens.list", TOKENS, list)
            .says(
                "List access tokens",
                "By id, ended ones too; without their secrets, which nobody here has.",
            )
            .needs(&[Permission::TokenRead], Scope::Platform)
            .query(
                "tenant_id",
                schema::tenant_id(),
                "only those bound to this tenant",
            )
            .query(
                "status",
                schema::one_of(&STATUSES),
                "only those that are so",
            )
            .paged(schema::token_id())
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("Token")),
            ),
        Operation::change(Method::POST, "tokens.create", TOKENS, create)
            .says("Admit an access token", made)
            .needs(&[Permission::TokenWrite], Scope::Platform)
            .body(schema::of("TokenCreate"))
            .problems(&[&ALREADY_EXISTS, &super::problem::NOT_FOUND, &LIMIT_REACHED])
            .answers(StatusCode::CREATED, "The token counts", schema::of("Token"))
            .with("ETag", "its version, for If-Match")
            .with("Location", "where it is")
            .link("tokens.show", &[("id", "$response.body#/id")])
            .link("tokens.revoke", &[("id", "$response.body#/id")]),
        one(Operation::read("tokens.show", path.clone(), show))
            .says(
                "Show an access token",
                "Who it is for, what it may do, when it was used last.",
            )
            .needs(&[Permission::TokenRead], Scope::Platform),
        one(Operation::change(
            Method::DELETE,
            "tokens.revoke",
            path,
            revoke,
        ))
        .says("Revoke an access token", revoked)
        .needs(&[Permission::TokenWrite], Scope::Platform)
        .versioned()
        .problems(&[&WRONG_STATE]),
        Operation::read("whoami.show", "/api/v1/whoami", whoami)
            .says(
                "Show whose token is used",
                "What it may do, and until when.",
            )
            .answers(StatusCode::OK, "The caller", schema::of("WhoAmI")),
    ]
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let roles = Role::ALL.map(Role::as_str);
    let asked = roles.into_iter().chain(["master_admin"]);
    let asked: Vec<&str> = asked.collect();
    let ttl = "Milliseconds until it ends; never, if not given";
    let mut create = schema::body(
        &[
            ("id", schema::token_id()),
            ("secret_digest", schema::digest()),
            ("name", schema::line(100)),
            ("role", schema::one_of(&asked)),
        ],
        &[
            ("tenant_id", schema::tenant_id()),
            (
                "ttl_ms",
                schema::about(ttl, schema::whole(TTL_MIN_MS, TOKEN_LIFETIME_MAX_MS)),
            ),
        ],
    );
    // A tenant comes with the roles that are bound to one, and with no other.
    let bound = Role::ALL.into_iter().filter(|role| role.is_tenant_bound());
    let bound: Vec<&str> = bound.map(Role::as_str).collect();
    create["if"] = json!({"properties": {"role": {"enum": bound}}});
    create["then"] =
        json!({"properties": {"tenant_id": {"type": "string"}}, "required": ["tenant_id"]});
    create["else"] = json!({"properties": {"tenant_id": {"type": "null"}}});
    let or_never = || schema::or_null(schema::time());
    let token = schema::object(
        &[
            ("id", schema::token_id()),
            ("name", schema::any_text()),
            ("role", schema::one_of(&roles)),
            ("tenant_id", schema::or_null(schema::tenant_id())),
            ("status", schema::one_of(&STATUSES)),
            ("created_at", schema::time()),
            (
                "created_by",
                schema::about(
                    "The token that made it; null: it came with the cluster",
                    schema::or_null(schema::token_id()),
                ),
            ),
            ("expires_at", or_never()),
            ("revoked_at", or_never()),
            (
                "last_used_at",
                schema::about("To the minute, and up to a minute late", or_never()),
            ),
        ],
        &[],
    );
    let permissions = Permission::ALL.map(Permission::as_str);
    let who = schema::object(
        &[
            ("token", schema::token_id()),
            ("name", schema::any_text()),
            ("role", schema::one_of(&roles)),
            ("tenant_id", schema::or_null(schema::tenant_id())),
            ("expires_at", or_never()),
            ("permissions", schema::list(schema::one_of(&permissions))),
        ],
        &[],
    );
    vec![("TokenCreate", create), ("Token", token), ("WhoAmI", who)]
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::TokenRead, None)?;
    let (limit, after) = reading.page::<TokenId>();
    let now = reading.now();
    let Reading {
        state, mut query, ..
    } = reading;
    let tenant = query.parsed::<TenantId>("tenant_id", "the id of a tenant");
    let wanted = query.choice("status", &STATUSES);
    query.finish()?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .tokens
        .range((from, Bound::Unbounded))
        .filter(|(_, token)| tenant.is_none() || token.tenant == tenant)
        .filter(|(_, token)| wanted.is_none_or(|wanted| status(token, now) == wanted))
        .map(|(id, token)| (id, item(id, token, now)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading
        .who
        .require(&reading.state, Permission::TokenRead, None)?;
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
        .require(&change.state, Permission::TokenWrite, None)?;
    let token = read(change.fields()?, change.received_at())?;
    let (id, now) = (token.id.clone(), change.received_at());
    change
        .carry_out(
            Command::CreateToken(token),
            StatusCode::CREATED,
            |state, _| {
                Some(Entity {
                    location: Some(format!("{TOKENS}/{id}")),
                    ..entity(state, &id, now)?
                })
            },
        )
        .await
}

async fn revoke(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    if change.who.caller.token.as_str() != id {
        change
            .who
            .require(&change.state, Permission::TokenWrite, None)?;
    }
    change.expect_no_fields()?;
    let id = known(&change.state, &id)?;
    let now = change.received_at();
    let command = Command::RevokeToken { token: id.clone() };
    change
        .carry_out(command, StatusCode::OK, |state, _| entity(state, &id, now))
        .await
}

async fn whoami(reading: Reading) -> Result<Response, Problem> {
    let Reading { who, query, .. } = reading;
    query.finish()?;
    let token = who.token();
    let granted = Permission::ALL
        .into_iter()
        .filter(|one| token.role.grants(*one));
    let granted: Vec<&str> = granted.map(Permission::as_str).collect();
    let body = json!({
        "token": who.caller.token, "name": token.name, "role": token.role.as_str(), "tenant_id": token.tenant,
        "expires_at": time_or_null(token.expires_at), "permissions": granted,
    });
    Ok(answer(StatusCode::OK, body))
}

fn read(mut fields: Fields, received_at: Timestamp) -> Result<CreateToken, Problem> {
    let id = fields.required("id", "16 hexadecimal digits");
    let secret_digest =
        fields.required::<Digest>("secret_digest", "sha256: and 64 hexadecimal digits");
    let name = fields.required_line("name", 100);
    let role = fields.required::<String>("role", ROLES).and_then(|text| {
        let role = role_of(&text);
        if role.is_none() {
            fields.refuse("role", &text, ROLES);
        }
        role
    });
    let tenant = fields.parsed::<TenantId>("tenant_id", "the id of a tenant");
    let ttl_ms = fields.number::<u64>("ttl_ms", TTL_MIN_MS..=TOKEN_LIFETIME_MAX_MS);
    let token = (|| {
        let (id, secret_digest) = (id?, secret_digest?);
        Some(CreateToken {
            id,
            secret_digest,
            name: name?,
            role: role?,
            tenant,
            expires_at: ttl_ms.map(|ttl_ms| received_at.plus_millis(ttl_ms)),
        })
    })();
    fields.finish_with(token)
}

fn role_of(text: &str) -> Option<Role> {
    let name = match text {
        "master_admin" => "platform_admin",
        name => name,
    };
    Role::ALL.into_iter().find(|role| role.as_str() == name)
}

/// The token that a path names.
fn known(state: &State, id: &str) -> Result<TokenId, Problem> {
    let found = id.parse().ok().filter(|id| state.tokens.contains_key(id));
    found.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Problem {
    Problem::not_found("token", id)
}

fn entity(state: &State, id: &TokenId, now: Timestamp) -> Option<Entity> {
    let token = state.tokens.get(id)?;
    Some(Entity {
        body: item(id, token, now),
        revision: Some(token.revision),
        location: None,
    })
}

fn status(token: &Token, now: Timestamp) -> &'static str {
    match token.ended(now) {
        None => "active",
        Some(TokenEnd::Expired(_)) => "expired",
        Some(TokenEnd::Revoked(_)) => "revoked",
    }
}

/// A token as GET shows it at a time.
pub(super) fn item(id: &TokenId, token: &Token, now: Timestamp) -> Value {
    let maker = token
        .warrant
        .as_ref()
        .and_then(|warrant| match &warrant.actor {
            Actor::Person(maker) => Some(maker),
            Actor::Agent(_) | Actor::Planner | Actor::Founder => None,
        });
    json!({
        "id": id, "name": token.name, "role": token.role.as_str(), "tenant_id": token.tenant,
        "status": status(token, now), "created_at": time(token.created_at), "created_by": maker,
        "expires_at": time_or_null(token.expires_at), "revoked_at": time_or_null(token.revoked_at),
        "last_used_at": time_or_null(token.last_used_at),
    })
}
