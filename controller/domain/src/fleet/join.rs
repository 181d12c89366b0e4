//! Join tokens: one use, one region, a few hours. A used, revoked or expired one is shown until its time is over.

use dotmac_protocol::{
    digest::Digest,
    ids::{AgentId, RegionId, TokenId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    command::CreateJoinToken,
    envelope::{Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::expect_revision,
};

/// Milliseconds that a join token may live at most: 7 days.
pub const JOIN_TOKEN_LIFETIME_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Join tokens kept at most.
pub const JOIN_TOKENS_MAX: usize = 10_000;

/// A join token as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Digest of the secret.
    pub secret_digest: Digest,
    /// The region it is bound to.
    pub region: RegionId,
    /// First moment at which it no longer counts.
    pub expires_at: Timestamp,
    /// The agent that used it.
    pub used_by: Option<AgentId>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// Who vouches for it.
    pub warrant: Warrant,
}

/// What a join token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinTokenStatus {
    /// An agent may use it.
    Waiting,
    /// An agent has used it.
    Used,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

impl JoinTokenStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Used, Self::Revoked, Self::Expired];

    /// The status as answers write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Used => "used",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl JoinToken {
    /// What it is good for at `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> JoinTokenStatus {
        if self.used_by.is_some() {
            JoinTokenStatus::Used
        } else if self.revoked_at.is_some() {
            JoinTokenStatus::Revoked
        } else if self.expires_at <= now {
            JoinTokenStatus::Expired
        } else {
            JoinTokenStatus::Waiting
        }
    }

    /// Its revision: 1, and 2 once it was taken back.
    #[must_use]
    pub fn revision(&self) -> u64 {
        1 + u64::from(self.revoked_at.is_some())
    }
}

impl State {
    pub(crate) fn create_join_token(
        &mut self,
        envelope: &Envelope,
        token: &CreateJoinToken,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::AgentWrite, None)?;
        self.check_region(&token.region)?;
        let lifetime = token.expires_at.millis_since(now);
        if lifetime == 0 || lifetime > JOIN_TOKEN_LIFETIME_MAX_MS {
            let allowed = format!("1 to {JOIN_TOKEN_LIFETIME_MAX_MS} ms from now");
            return Err(Rejection::field("ttl_ms", lifetime, allowed));
        }
        if self.join_tokens.contains_key(&token.id) {
            let detail = format!("join token {} exists already", token.id);
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        self.forget_join_tokens(now);
        if self.join_tokens.size() >= JOIN_TOKENS_MAX {
            let detail = format!("{JOIN_TOKENS_MAX} join tokens are kept until they expire");
            return Err(Rejection::new(Code::BudgetExhausted, detail));
        }
        let entry = JoinToken {
            secret_digest: token.secret_digest,
            region: token.region.clone(),
            expires_at: token.expires_at,
            used_by: None,
            revoked_at: None,
            warrant: Warrant::of(envelope, now),
        };
        self.join_tokens.insert_mut(token.id.clone(), entry);
        Ok(Accepted::Done)
    }

    fn forget_join_tokens(&mut self, now: Timestamp) {
        let expired: Vec<TokenId> = self
            .join_tokens
            .iter()
            .filter(|(_, token)| token.expires_at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.join_tokens.remove_mut(&id);
        }
    }

    pub(crate) fn revoke_join_token(
        &mut self,
        envelope: &Envelope,
        id: &TokenId,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::AgentWrite, None)?;
        let Some(token) = self.join_tokens.get(id) else {
            return Err(Rejection::not_found("join token", id));
        };
        expect_revision(envelope, "join token", token.revision())?;
        if let Some(agent) = &token.used_by {
            let detail =
                format!("join token {id} was used by agent {agent}: revoke the agent instead");
            return Err(Rejection::new(Code::WrongState, detail));
        }
        if token.revoked_at.is_none() {
            let entry = JoinToken {
                revoked_at: Some(now),
                ..token.clone()
            };
            self.join_tokens.insert_mut(id.clone(), entry);
        }
        Ok(Accepted::Done)
    }
}
