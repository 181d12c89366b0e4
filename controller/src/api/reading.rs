//! What every read has in common: who asks, the State as it is now (or, if asked for, as this controller last knew
//! it), and the parameters of the query.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use dotmac_domain::{Command, State};
use dotmac_protocol::{
    digest::Digest,
    ids::{RequestId, TenantId},
    time::Timestamp,
};
use serde::de::DeserializeOwned;

use super::{
    fields::Fields,
    principal::Principal,
    problem::{NO_SUCH_PATH, Problem},
    tracking::{Tag, Trace},
};
use crate::node::{Ask, Node};

/// How long a read may wait for the newest State.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(2);
/// How long the record of a read may take.
const NOTE_DEADLINE: Duration = Duration::from_secs(3);
/// Items of a page at most, and when the caller does not say.
const LIMIT: (u64, usize) = (1000, 100);

/// A read that may be answered.
pub(super) struct Reading {
    /// This controller.
    pub(super) node: Arc<Node>,
    /// Who asks.
    pub(super) who: Principal,
    /// What is read.
    pub(super) state: Arc<State>,
    /// Further parameters; the handler reads and finishes them.
    pub(super) query: Fields,
    /// Path and query as they came.
    pub(super) address: String,
    received_at: Timestamp,
    request: RequestId,
    tag: Tag,
}

impl FromRequestParts<Arc<Node>> for Reading {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Problem> {
        let received_at = node.clock.now();
        let who = Principal::from_request_parts(parts, node).await?;
        let mut query = Fields::of_query(parts.uri.query())?;
        let state = match query.text("consistency").as_deref() {
            None | Some("linearizable") => node.read(READ_DEADLINE).await?,
            Some("stale") => node.state(),
            Some(other) => {
                query.refuse("consistency", other, "linearizable or stale");
                node.state()
            }
        };
        who.still_valid(&state, node.clock.now())?;
        let path = parts.uri.path_and_query();
        let address = path.map_or_else(|| "/".to_owned(), ToString::to_string);
        let tag = Tag::of(parts);
        let request = tag.random(&node.entropy);
        Ok(Self {
            node: Arc::clone(node),
            who,
            state,
            query,
            address,
            received_at,
            request,
            tag,
        })
    }
}

impl Reading {
    /// The time that the answer is about: this controller's, and never before the State's.
    pub(super) fn now(&self) -> Timestamp {
        self.node.clock.now().max(self.state.now)
    }

    /// How many items a page may have, and after which key it begins.
    pub(super) fn page<K: FromStr>(&mut self) -> (usize, Option<K>) {
        let limit = self.query.number("limit", 1..=LIMIT.0).unwrap_or(LIMIT.1);
        let cursor = self.query.parsed("cursor", "the next_cursor of a page");
        (limit, cursor)
    }

    /// Writes into the audit that this was looked at. Nothing is shown before that is committed.
    pub(super) async fn note_access(
        &self,
        action: &'static str,
        tenant: Option<TenantId>,
        detail: String,
    ) -> Result<(), Problem> {
        let command = Command::NoteAccess {
            action: action.to_owned(),
            tenant,
            detail,
        };
        let ask = Ask {
            request: self.request.clone(),
            asked: Digest::tagged("dotmac/asked/v1", self.address.as_bytes()),
            received_at: self.received_at,
            expected: None,
            trace: self.tag.context(),
            command,
        };
        self.node
            .ask(&self.who.caller, ask, NOTE_DEADLINE)
            .await??;
        self.tag.leave(Trace::Note(action));
        Ok(())
    }
}

/// The names in a path. What cannot be one leads nowhere, in the words of every other wrong path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |_| Problem::new(&NO_SUCH_PATH, "the address cannot be read");
        let Path(names) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(wrong)?;
        Ok(Self(names))
    }
}
