//! Who asks, and whether he may: the one place for authentication and for permissions. Only the header
//! `Authorization: Bearer` counts.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use dotmac_domain::{
    State,
    access::{Permission, Token},
    envelope::Actor,
    reply::{Code, Rejection},
    tenancy::Deployment,
};
use dotmac_protocol::ids::{DeploymentId, TenantId};

use super::{
    fields::Fields,
    problem::{NOT_FOUNDED, Problem, TOKEN_IN_QUERY, UNAUTHENTICATED},
};
use crate::node::{Caller, Node};

/// Bytes of a token's text at most.
const BEARER_MAX: usize = 512;
/// Parameters in which people try to pass a token.
const TOKEN_PARAMETERS: [&str; 6] = [
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "bearer",
    "token",
];

/// Whoever holds the token of a request.
#[derive(Debug)]
pub(super) struct Principal {
    /// For evidence.
    pub(super) caller: Caller,
    token: Token,
}

impl FromRequestParts<Arc<Node>> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Problem> {
        let query = Fields::of_query(parts.uri.query())?;
        if let Some(name) = TOKEN_PARAMETERS.iter().find(|name| query.has(name)) {
            let detail = format!("the address has a parameter {name}");
            return Err(Problem::new(&TOKEN_IN_QUERY, detail));
        }
        let bearer = bearer(&parts.headers)?;
        if node.state().genesis.is_none() {
            let detail = "this controller knows no token yet: its log is empty";
            return Err(Problem::new(&NOT_FOUNDED, detail));
        }
        let unknown = || Problem::new(&UNAUTHENTICATED, "the bearer token is unknown");
        let (caller, token) = node.recognise(bearer).await.ok_or_else(unknown)?;
        Ok(Self { caller, token })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let refuse = |detail: &str| Err(Problem::new(&UNAUTHENTICATED, detail));
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, rest) = (values.next(), values.next());
    let Some(value) = value else {
        return refuse("the header Authorization is missing");
    };
    if rest.is_some() {
        return refuse("the header Authorization is given more than once");
    }
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => match token.trim() {
            token if (1..=BEARER_MAX).contains(&token.len()) => Ok(token),
            _ => refuse("the bearer token is empty or too long"),
        },
        _ => refuse("the header Authorization has another scheme than Bearer"),
    }
}

impl Principal {
    /// As an actor of the domain.
    pub(super) fn actor(&self) -> Actor {
        self.caller.actor()
    }

    /// The only tenant this token may touch, if any.
    pub(super) fn own_tenant(&self) -> Option<&TenantId> {
        self.token.tenant.as_ref()
    }

    /// Whether the role includes a permission, wherever.
    pub(super) fn has(&self, permission: Permission) -> Result<(), Problem> {
        if self.token.role.grants(permission) {
            Ok(())
        } else {
            Err(forbidden(permission))
        }
    }

    /// Whether this is permitted for something of `tenant` (`None`: of the platform).
    pub(super) fn require(
        &self,
        state: &State,
        permission: Permission,
        tenant: Option<&TenantId>,
    ) -> Result<(), Problem> {
        if state.may(&self.actor(), permission, tenant) {
            Ok(())
        } else {
            Err(forbidden(permission))
        }
    }

    /// The deployment that a path names, if it is there and visible; otherwise always the same answer (law 7).
    pub(super) fn deployment<'s>(
        &self,
        state: &'s State,
        id: &str,
    ) -> Result<(DeploymentId, &'s Deployment), Problem> {
        let found = id.parse::<DeploymentId>().ok().and_then(|id| {
            let deployment = state.visible_deployment(&self.actor(), &id)?;
            Some((id, deployment))
        });
        found.ok_or_else(|| Problem::not_found("deployment", id))
    }

    /// That a tenant is there and this is permitted for it; otherwise always the same answer (law 7).
    pub(super) fn tenant(
        &self,
        state: &State,
        permission: Permission,
        tenant: &TenantId,
    ) -> Result<(), Problem> {
        self.has(permission)?;
        let is_visible = state.may(&self.actor(), permission, Some(tenant));
        if is_visible && state.tenants.contains_key(tenant) {
            return Ok(());
        }
        Err(Problem::not_found("tenant", tenant.as_str()))
    }
}

fn forbidden(permission: Permission) -> Problem {
    let detail = format!("this needs the permission {}", permission.as_str());
    Rejection::new(Code::Forbidden, detail).into()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::bearer;

    fn headers(values: &[&str]) -> HeaderMap {
        let pairs = values
            .iter()
            .map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
        pairs.collect()
    }

    #[test]
    fn only_one_bearer_token_counts() {
        assert_eq!(bearer(&headers(&["Bearer abc"])).unwrap(), "abc");
        assert_eq!(bearer(&headers(&["bearer  abc"])).unwrap(), "abc");
        for wrong in [
            &[][..],
            &["Basic abc"],
            &["abc"],
            &["Bearer "],
            &["Bearer a", "Bearer a"],
        ] {
            assert!(bearer(&headers(wrong)).is_err(), "{wrong:?}");
        }
    }
}
