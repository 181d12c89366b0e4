//! Access tokens. The caller makes the token and sends its digest; the text never comes here.

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    Command,
    access::{Permission, Role},
    command::CreateToken,
};
use dotmac_protocol::{digest::Digest, ids::TenantId};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    answer::{answer, time_or_null},
    change::Change,
    fields::Fields,
    problem::Problem,
};

/// The names of the roles; `master_admin` is the older name of the first.
const ROLES: &str = "platform_admin, tenant_admin, tenant_user, reseller, support or auditor";

/// `POST /api/v1/tokens`
pub(super) async fn create(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::TokenWrite, None)?;
    let token = read(change.fields()?)?;
    change.ask(Command::CreateToken(token.clone())).await?;
    let state = change.state_after().await;
    let created_at = state.tokens.get(&token.id).map(|token| token.created_at);
    let body = json!({
        "id": token.id, "name": token.name, "role": token.role, "tenant_id": token.tenant,
        "created_at": time_or_null(created_at),
    });
    Ok(answer(StatusCode::CREATED, body))
}

fn read(mut fields: Fields) -> Result<CreateToken, Problem> {
    let id = fields.required("id", "16 hexadecimal digits");
    let secret_digest =
        fields.required::<Digest>("secret_digest", "sha256: and 64 hexadecimal digits");
    let name = fields.required::<String>("name", "1 to 100 characters");
    let role = fields.required::<String>("role", ROLES).and_then(|text| {
        let role = role_of(&text);
        if role.is_none() {
            fields.refuse("role", &text, ROLES);
        }
        role
    });
    let tenant = fields.parsed::<TenantId>("tenant_id", "the id of a tenant");
    let token = (|| {
        let (id, secret_digest) = (id?, secret_digest?);
        Some(CreateToken {
            id,
            secret_digest,
            name: name?,
            role: role?,
            tenant,
        })
    })();
    fields.finish_with(token)
}

fn role_of(text: &str) -> Option<Role> {
    let name = if text == "master_admin" {
        "platform_admin"
    } else {
        text
    };
    Role::deserialize(Value::from(name)).ok()
}
