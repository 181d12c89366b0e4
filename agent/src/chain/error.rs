//! Why a record chain cannot be opened, grow or be acknowledged.

use std::{io, path::PathBuf};

use dotmac_protocol::{
    codec,
    ids::{AgentId, IncarnationId},
};
use thiserror::Error;

use super::BadRecord;

/// Why a chain cannot be continued.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A record that the controllers may not hold yet is damaged.
    #[error("the record chain is damaged where controllers have not acknowledged it yet")]
    Bad(#[from] BadRecord),
    /// The files belong to another agent or another life of it.
    #[error("the record chain in {} belongs to agent {agent}, incarnation {incarnation}", directory.display())]
    Owner {
        directory: PathBuf,
        agent: AgentId,
        incarnation: IncarnationId,
    },
    /// The disk fails.
    #[error("the record chain in {} cannot be opened", directory.display())]
    Disk {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Why a record was not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Too much waits for acknowledgement.
    #[error("{waiting_bytes} bytes of records wait for acknowledgement; no more are taken")]
    Full { waiting_bytes: u64 },
    /// The event exceeds what one record may hold.
    #[error("the event is too large for a record")]
    TooLarge(#[source] codec::EncodeError),
    /// The disk refuses the record; the chain is as it was.
    #[error("the record cannot be written")]
    Write(#[source] io::Error),
    /// A sync failed: nothing may be appended until the chain was opened again.
    #[error("the record chain failed: {0}")]
    Failed(String),
}

/// Controllers acknowledge more than this chain holds: its disk is older than they know.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("controllers hold records up to {acknowledged}, this agent's chain ends at {last}")]
pub struct Ahead {
    /// What they acknowledge.
    pub acknowledged: u64,
    /// What there is.
    pub last: u64,
}
