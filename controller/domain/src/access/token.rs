//! Access tokens: made, used, revoked, and forgotten once nothing rests on them any more. An ended token stays known, so
//! that what it had asked for while it was good stays proven.

use std::collections::BTreeSet;

use dotmac_protocol::{
    digest::Digest,
    ids::{TenantId, TokenId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Permission, Role};
use crate::{
    command::{Command, CreateToken},
    envelope::{Actor, Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    signer,
    state::State,
    tenancy::expect_revision,
};

/// Tokens that count at the same time at most.
pub const LIVE_TOKENS_MAX: usize = 10_000;
/// Tokens at most, ended ones too.
pub const TOKENS_MAX: usize = 100_000;
/// Milliseconds that a token with an end may live at most: 10 years.
pub const TOKEN_LIFETIME_MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// Tokens whose use one command notes at most.
pub const TOKEN_USES_MAX: usize = 1_000;
/// The resolution of a token's last use in milliseconds: one minute.
const USE_RESOLUTION_MS: u64 = 60_000;

/// An access token as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Digest of the whole secret text.
    pub secret_digest: Digest,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The only tenant it may touch, if any.
    pub tenant: Option<TenantId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// First moment at which it no longer counts; never, if absent.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Counts what persons decided about it, from 1; its use does not count.
    pub revision: u64,
    /// Who vouches for it; `None` for the founder's.
    pub warrant: Option<Warrant>,
}

/// How a token ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenEnd {
    /// Its time is over.
    #[error("the token expired")]
    Expired(Timestamp),
    /// Somebody revoked it.
    #[error("the token was revoked")]
    Revoked(Timestamp),
}

impl Token {
    /// How it ended, if it no longer counts at `now`.
    #[must_use]
    pub fn ended(&self, now: Timestamp) -> Option<TokenEnd> {
        let expired = self.expires_at.filter(|end| *end <= now);
        self.revoked_at
            .map(TokenEnd::Revoked)
            .or_else(|| expired.map(TokenEnd::Expired))
    }

    /// Whether what was applied at this time was asked for with a good token. What ends it later takes nothing back.
    #[must_use]
    pub fn counted_at(&self, at: Timestamp) -> bool {
        self.revoked_at.is_none_or(|end| at <= end) && self.expires_at.is_none_or(|end| at < end)
    }

    /// Whether it alone keeps the platform from locking everybody out: an administrator's that counts without end.
    fn is_anchor(&self) -> bool {
        self.role == Role::PlatformAdmin && self.revoked_at.is_none() && self.expires_at.is_none()
    }
}

impl State {
    /// The token with this secret, if there is one. Only the digest is compared: how long that takes says nothing of the
    /// secret.
    #[must_use]
    pub fn token_by_secret(&self, secret_digest: Digest) -> Option<(&TokenId, &Token)> {
        let id = self.token_ids.get(&secret_digest)?;
        self.tokens.get_key_value(id)
    }

    /// Nobody asks with a token that has ended by the State's clock.
    pub(crate) fn require_live(&self, actor: &Actor) -> Result<(), Rejection> {
        let Actor::Person(id) = actor else {
            return Ok(());
        };
        match self.tokens.get(id).and_then(|token| token.ended(self.now)) {
            Some(end) => Err(Rejection::new(Code::TokenEnded, end.to_string())),
            None => Ok(()),
        }
    }

    /// Changes of the platform itself count only when they are proven: a controller alone makes no token that honest
    /// ones serve, and locks nobody out. Whoever may not ask for it at all is answered by the command itself.
    pub(crate) fn require_asked(
        &self,
        envelope: &Envelope,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let Some(permission) = envelope.command.changes_platform() else {
            return Ok(());
        };
        let action = match &envelope.command {
            Command::RevokeToken { token } if is_own(envelope, token) => None,
            _ if self.may(&envelope.actor, permission, None) => Some((permission, None)),
            _ => return Ok(()),
        };
        signer::check_request(self, &Warrant::of(envelope, now), action)
            .map_err(|error| Rejection::new(Code::Forbidden, format!("it is not proven: {error}")))
    }

    pub(crate) fn create_token(
        &mut self,
        envelope: &Envelope,
        token: &CreateToken,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::TokenWrite, None)?;
        if token.role.is_tenant_bound() != token.tenant.is_some() {
            let allowed = "a tenant with the tenant roles, none with the others";
            let found = token.tenant.as_ref().map_or("", TenantId::as_str);
            return Err(Rejection::field("tenant_id", found, allowed));
        }
        if let Some(tenant) = &token.tenant
            && !self.tenants.get(tenant).is_some_and(|one| one.is_served())
        {
            return Err(Rejection::not_found("tenant", tenant));
        }
        let length = token.name.chars().count();
        if !(1..=100).contains(&length) || token.name.chars().any(char::is_control) {
            let allowed = "1 to 100 characters, no control characters";
            return Err(Rejection::field("name", &token.name, allowed));
        }
        self.check_rights(&envelope.actor, token)?;
        self.check_lifetime(&envelope.actor, token, now)?;
        self.check_chain(&envelope.actor)?;
        self.make_room_for_token(now)?;
        self.insert_token(token, now, Some(Warrant::of(envelope, now)))?;
        Ok(Accepted::Done)
    }

    /// Nobody gives what he has not.
    fn check_rights(&self, actor: &Actor, token: &CreateToken) -> Result<(), Rejection> {
        let mut granted = Permission::ALL
            .into_iter()
            .filter(|permission| token.role.grants(*permission));
        match granted.find(|permission| !self.may(actor, *permission, token.tenant.as_ref())) {
            Some(permission) => self.require(actor, permission, token.tenant.as_ref()),
            None => Ok(()),
        }
    }

    /// A token ends at the latest when the one that made it does.
    fn check_lifetime(
        &self,
        actor: &Actor,
        token: &CreateToken,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let lifetime = token.expires_at.map(|end| end.millis_since(now));
        if lifetime.is_some_and(|one| one == 0 || one > TOKEN_LIFETIME_MAX_MS) {
            let allowed = format!("1 to {TOKEN_LIFETIME_MAX_MS} ms from now");
            return Err(Rejection::field(
                "ttl_ms",
                lifetime.unwrap_or_default(),
                allowed,
            ));
        }
        let Actor::Person(maker) = actor else {
            return Ok(());
        };
        let end_of_maker = self.tokens.get(maker).and_then(|maker| maker.expires_at);
        let Some(end_of_maker) = end_of_maker else {
            return Ok(());
        };
        if token.expires_at.is_some_and(|end| end <= end_of_maker) {
            return Ok(());
        }
        let left = end_of_maker.millis_since(now);
        let allowed = format!("at most {left}: then the token that asks ends itself");
        let found = lifetime.map_or_else(|| "none".to_owned(), |one| one.to_string());
        Err(Rejection::field("ttl_ms", found, allowed))
    }

    /// Signers follow a token back to the founder's; a way that is too long would make it worthless.
    fn check_chain(&self, maker: &Actor) -> Result<(), Rejection> {
        let mut maker = Some(maker);
        for _ in 1..signer::TOKEN_CHAIN_MAX {
            let Some(Actor::Person(id)) = maker else {
                return Ok(());
            };
            let warrant = self.tokens.get(id).and_then(|token| token.warrant.as_ref());
            maker = warrant.map(|warrant| &warrant.actor);
        }
        if maker.is_none() {
            return Ok(());
        }
        let max = signer::TOKEN_CHAIN_MAX;
        let detail = format!(
            "this token is {max} tokens away from the founder's: ask with an older administrator's token"
        );
        Err(Rejection::new(Code::LimitReached, detail))
    }

    fn make_room_for_token(&mut self, now: Timestamp) -> Result<(), Rejection> {
        let live = self
            .tokens
            .values()
            .filter(|token| token.ended(now).is_none());
        if live.count() >= LIVE_TOKENS_MAX {
            let detail =
                format!("{LIVE_TOKENS_MAX} tokens count at the same time: revoke some first");
            return Err(Rejection::new(Code::LimitReached, detail));
        }
        if self.tokens.size() >= TOKENS_MAX {
            self.forget_ended_tokens(now);
        }
        if self.tokens.size() >= TOKENS_MAX {
            let detail = format!(
                "{TOKENS_MAX} tokens are kept, because what they asked for still stands: delete some of that first"
            );
            return Err(Rejection::new(Code::LimitReached, detail));
        }
        Ok(())
    }

    /// Forgets the ended tokens that no warrant in the State names.
    fn forget_ended_tokens(&mut self, now: Timestamp) {
        let named: BTreeSet<&TokenId> = self
            .warrants()
            .filter_map(|warrant| match &warrant.actor {
                Actor::Person(id) => Some(id),
                Actor::Agent(_) | Actor::Planner | Actor::Founder => None,
            })
            .collect();
        let idle: Vec<(TokenId, Digest)> = self
            .tokens
            .iter()
            .filter(|(id, token)| token.ended(now).is_some() && !named.contains(id))
            .map(|(id, token)| (id.clone(), token.secret_digest))
            .collect();
        for (id, digest) in idle {
            self.tokens.remove_mut(&id);
            self.token_ids.remove_mut(&digest);
        }
    }

    /// Every warrant that something in the State rests on.
    fn warrants(&self) -> impl Iterator<Item = &Warrant> {
        let deployments = self.deployments.values();
        let deployments =
            deployments.flat_map(|one| [Some(&one.warrant), one.removal.as_ref()].into_iter());
        deployments
            .flatten()
            .chain(self.releases.values().map(|one| &one.warrant))
            .chain(self.agents.values().map(|one| &one.warrant))
            .chain(self.join_tokens.values().map(|one| &one.warrant))
            .chain(self.tokens.values().filter_map(|one| one.warrant.as_ref()))
    }

    pub(crate) fn insert_token(
        &mut self,
        token: &CreateToken,
        now: Timestamp,
        warrant: Option<Warrant>,
    ) -> Result<(), Rejection> {
        let known = self.tokens.contains_key(&token.id);
        if known || self.token_ids.contains_key(&token.secret_digest) {
            let detail = format!("token {} exists already", token.id);
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        self.token_ids
            .insert_mut(token.secret_digest, token.id.clone());
        let entry = Token {
            secret_digest: token.secret_digest,
            name: token.name.clone(),
            role: token.role,
            tenant: token.tenant.clone(),
            created_at: now,
            expires_at: token.expires_at,
            revoked_at: None,
            last_used_at: None,
            revision: 1,
            warrant,
        };
        self.tokens.insert_mut(token.id.clone(), entry);
        Ok(())
    }

    /// Ends a token. Whoever holds it may always do that.
    pub(crate) fn revoke_token(
        &mut self,
        envelope: &Envelope,
        id: &TokenId,
        now: Timestamp,
    ) -> Reply {
        if !is_own(envelope, id) {
            self.require(&envelope.actor, Permission::TokenWrite, None)?;
        }
        let Some(token) = self.tokens.get(id) else {
            return Err(Rejection::not_found("token", id));
        };
        expect_revision(envelope, "token", token.revision)?;
        if token.revoked_at.is_some() {
            return Ok(Accepted::Done);
        }
        let mut others = self.tokens.iter().filter(|(other, _)| *other != id);
        if token.is_anchor() && !others.any(|(_, other)| other.is_anchor()) {
            let detail = format!(
                "token {id} is the last platform_admin token that counts without end: without it nobody could \
                 administer the platform any more; make another one without an end first"
            );
            return Err(Rejection::new(Code::WrongState, detail));
        }
        self.end_token(id, now);
        Ok(Accepted::Done)
    }

    /// Ends the tokens that are bound to a tenant.
    pub(crate) fn end_tokens_of(&mut self, tenant: &TenantId, now: Timestamp) {
        let bound: Vec<TokenId> = self
            .tokens
            .iter()
            .filter(|(_, token)| {
                token.tenant.as_ref() == Some(tenant) && token.revoked_at.is_none()
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in bound {
            self.end_token(&id, now);
        }
    }

    fn end_token(&mut self, id: &TokenId, now: Timestamp) {
        let token = self.tokens.get(id).expect("the caller found it");
        let entry = Token {
            revoked_at: Some(now),
            revision: token.revision.saturating_add(1),
            ..token.clone()
        };
        self.tokens.insert_mut(id.clone(), entry);
    }

    pub(crate) fn note_token_use(
        &mut self,
        envelope: &Envelope,
        uses: &[(TokenId, Timestamp)],
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        if uses.len() > TOKEN_USES_MAX {
            let allowed = format!("at most {TOKEN_USES_MAX}");
            return Err(Rejection::field("uses", uses.len(), allowed));
        }
        for (id, at) in uses {
            let minute = minute_of((*at).min(now));
            let token = self.tokens.get(id);
            let Some(token) = token.filter(|token| token.last_used_at < Some(minute)) else {
                continue;
            };
            let entry = Token {
                last_used_at: Some(minute),
                ..token.clone()
            };
            self.tokens.insert_mut(id.clone(), entry);
        }
        Ok(Accepted::Done)
    }
}

/// The minute that a moment is in.
#[must_use]
pub fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0 % USE_RESOLUTION_MS)
}

fn is_own(envelope: &Envelope, token: &TokenId) -> bool {
    matches!(&envelope.actor, Actor::Person(id) if id == token)
}
