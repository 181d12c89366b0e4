//! What a person asks for, and why there was no answer of the State.

use dotmac_domain::Command;
use dotmac_protocol::{digest::Digest, ids::RequestId, time::Timestamp, trace::TraceContext};
use thiserror::Error;

use crate::log::LogError;

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What the request is called; derived from the idempotency key where there is one.
    pub request: RequestId,
    /// Digest of method, path and body.
    pub asked: Digest,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The revision that the asker saw of what he changes.
    pub expected: Option<u64>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// The command it becomes.
    pub command: Command,
}

/// Why a person's request got no answer of the State.
#[derive(Debug, Error)]
pub enum AskError {
    /// Too few controllers vouched for it in time.
    #[error("{found} of the {needed} controllers needed could vouch for the request: {detail}")]
    Attestations {
        found: usize,
        needed: u16,
        detail: String,
    },
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}
