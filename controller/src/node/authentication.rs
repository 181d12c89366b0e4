//! Whose token a request carries: by its digest alone, by this node's State and clock.

use std::time::Duration;

use dotmac_domain::{
    access::{Token, TokenEnd},
    envelope::Actor,
};
use dotmac_protocol::ids::TokenId;
use thiserror::Error;

use super::Node;
use crate::access_token::bearer_digest;

/// How long a node may take to catch up before a token counts as unknown; below what a peer may take to attest.
const RECOGNISE_DEADLINE: Duration = Duration::from_millis(500);

/// A person whose token was checked against this node's State.
#[derive(Clone)]
pub struct Caller {
    /// The token's public name.
    pub token: TokenId,
    /// The token's whole text, for the peers that check it, too.
    pub(super) bearer: String,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Caller({})", self.token)
    }
}

impl Caller {
    /// The caller as an actor.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Person(self.token.clone())
    }
}

/// Why a bearer token names nobody.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Unrecognised {
    /// This controller does not know it.
    #[error("this controller does not know the token")]
    Unknown,
    /// It counted once. Only whoever holds it is told so.
    #[error(transparent)]
    Ended(#[from] TokenEnd),
}

impl Node {
    /// Whose token this is, by this node's State and clock; nobody's, if it has ended.
    #[must_use]
    pub fn authenticate(&self, bearer: &str) -> Option<(Caller, Token)> {
        self.look_up(bearer).ok()
    }

    /// Whose token this is. A token that this node does not know may be newer than its State: then it catches up first.
    ///
    /// # Errors
    /// When it is nobody's, or has ended.
    pub async fn recognise(&self, bearer: &str) -> Result<(Caller, Token), Unrecognised> {
        match self.look_up(bearer) {
            Err(Unrecognised::Unknown) => {
                // Without a majority nothing newer can be known.
                let read = self.read(RECOGNISE_DEADLINE).await;
                read.map_err(|_| Unrecognised::Unknown)?;
                self.look_up(bearer)
            }
            found => found,
        }
    }

    /// Whose token this is, by this node's State and clock.
    ///
    /// # Errors
    /// When it is nobody's, or has ended.
    pub(crate) fn look_up(&self, bearer: &str) -> Result<(Caller, Token), Unrecognised> {
        let state = self.state();
        let found = state.token_by_secret(bearer_digest(bearer));
        let (token, entry) = found.ok_or(Unrecognised::Unknown)?;
        if let Some(end) = entry.ended(self.clock.now()) {
            return Err(end.into());
        }
        let caller = Caller {
            token: token.clone(),
            bearer: bearer.to_owned(),
        };
        Ok((caller, entry.clone()))
    }
}
