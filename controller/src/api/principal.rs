//! Who asks, and whether he may: the one place for authentication and for permissions. Only the header
//! `Authorization: Bearer` counts.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use dotmac_domain::{
    State,
    access::{Permission, Token, TokenEnd},
    envelope::Actor,
    reply::{Code, Rejection},
    tenancy::{Deployment, Tenant},
};
use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    time::Timestamp,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    answer::time,
    problem::{NOT_FOUNDED, Problem, TOKEN_ENDED, UNAUTHENTICATED},
};
use crate::node::{Caller, Node, Unrecognised};

/// Bytes of a token's text at most.
const BEARER_MAX: usize = 512;
/// How often it is looked whether the token of an open stream still counts.
const CHECK_EVERY: Duration = Duration::from_millis(500);

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
        let bearer = bearer(&parts.headers)?;
        if node.state().genesis.is_none() {
            let detail = "this controller knows no token yet: its log is empty";
            return Err(Problem::new(&NOT_FOUNDED, detail));
        }
        let (caller, token) = node.recognise(bearer).await.map_err(|why| match why {
            Unrecognised::Unknown => Problem::new(&UNAUTHENTICATED, "the bearer token is unknown"),
            Unrecognised::Ended(end) => ended(end),
        })?;
        node.uses.note(&caller.token, node.clock.now());
        Ok(Self { caller, token })
    }
}

/// The bearer token of a request.
///
/// # Errors
/// When there is none, more than one, or something else.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
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
    /// That the token still counts in this State, which may be newer than the one it was recognised by.
    pub(super) fn still_valid(&self, state: &State, now: Timestamp) -> Result<(), Problem> {
        match state.tokens.get(&self.caller.token) {
            Some(token) => token.ended(now).map_or(Ok(()), |end| Err(ended(end))),
            None => Err(Problem::new(
                &UNAUTHENTICATED,
                "the bearer token is unknown",
            )),
        }
    }

    /// Waits until the token no longer counts, and says why: for whatever outlives the answer to a request.
    pub(super) fn until_ended(
        &self,
        node: &Arc<Node>,
    ) -> impl Future<Output = String> + Send + 'static {
        let (node, id) = (Arc::clone(node), self.caller.token.clone());
        async move {
            let mut check = interval(CHECK_EVERY);
            check.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                check.tick().await;
                let state = node.state();
                let Some(token) = state.tokens.get(&id) else {
                    return "the token is no more".to_owned();
                };
                if let Some(end) = token.ended(node.clock.now()) {
                    return end.to_string();
                }
            }
        }
    }

    /// The token by which the caller is known.
    pub(super) fn token(&self) -> &Token {
        &self.token
    }

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

    /// The tenant that a path names, if it is there and visible; otherwise always the same answer (law 7).
    pub(super) fn visible_tenant<'s>(
        &self,
        state: &'s State,
        id: &str,
    ) -> Result<(TenantId, &'s Tenant), Problem> {
        let found = id.parse::<TenantId>().ok().and_then(|id| {
            let tenant = state.visible_tenant(&self.actor(), &id)?;
            Some((id, tenant))
        });
        found.ok_or_else(|| Problem::not_found("tenant", id))
    }

    /// That a tenant is there and this is permitted for it; otherwise always the same answer (law 7).
    pub(super) fn tenant(
        &self,
        state: &State,
        permission: Permission,
        tenant: &TenantId,
    ) -> Result<(), Problem> {
        self.has(permission)?;
        let is_permitted = state.may(&self.actor(), permission, Some(tenant));
        if is_permitted && state.tenants.contains_key(tenant) {
            return Ok(());
        }
        Err(Problem::not_found("tenant", tenant.as_str()))
    }
}

/// What the holder of an ended token is told, and nobody else.
fn ended(end: TokenEnd) -> Problem {
    let (TokenEnd::Expired(at) | TokenEnd::Revoked(at)) = end;
    Problem::new(&TOKEN_ENDED, format!("{end} at {}", time(at)))
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
