//! Why an agent does not run, or stopped running: one variant for each part that can fail.

use std::path::PathBuf;

use dotmac_runtime::{keyfile::KeyFileError, quic};
use thiserror::Error;

use super::DataDirError;
use crate::{
    chain, instance_api, journal,
    link::{enrol::EnrolError, identity::IdentityStoreError},
    reconcile::ReconcileError,
    trust::TrustStoreError,
};

/// Why an agent does not run, or stopped running.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data directory is not usable.
    #[error("the data directory cannot be used")]
    DataDir(#[from] DataDirError),
    /// Keys or certificate are not usable.
    #[error("the agent's identity cannot be used")]
    Identity(#[from] IdentityStoreError),
    /// The certificate on disk cannot be shown.
    #[error("the agent's certificate cannot be used")]
    Certificate(#[from] dotmac_runtime::tls::IdentityError),
    /// The agent is not enrolled and has no token to enrol with.
    #[error(
        "the agent is not enrolled yet: set join_token_file to a file with a token of `dotmac agents token`"
    )]
    NoToken,
    /// The token file cannot be read.
    #[error("the join token cannot be read")]
    TokenFile(#[from] KeyFileError),
    /// The token file holds something else.
    #[error("join_token_file {}: this is no join token", .0.display())]
    Token(PathBuf),
    /// The token is for another region.
    #[error("region = {configured:?} is not the join token's region {token:?}")]
    Region { configured: String, token: String },
    /// The controllers do not admit the agent.
    #[error("the agent was not admitted")]
    Enrol(#[source] Box<EnrolError>),
    /// No UDP socket.
    #[error("no connection can be made from this host")]
    Endpoint(#[from] quic::EndpointError),
    /// The trust root is not usable.
    #[error("the trust root cannot be used")]
    Trust(#[from] TrustStoreError),
    /// There is a certificate but no trust root.
    #[error("the pinned trust root is missing from the data directory")]
    NoTrust,
    /// The record chain is not usable.
    #[error("the record chain cannot be used")]
    Chain(#[from] chain::OpenError),
    /// The record chain failed while running.
    #[error("the record chain failed: {0}")]
    ChainFailed(String),
    /// What is remembered of reports is not usable.
    #[error("what is remembered of instances' reports cannot be read")]
    Reports(#[source] std::io::Error),
    /// The journal is not usable.
    #[error("the journal cannot be used")]
    Journal(#[from] journal::OpenError),
    /// The first records cannot be written.
    #[error("the start of the agent cannot be recorded")]
    Record(#[from] chain::AppendError),
    /// The instance API is not usable.
    #[error("the instance API cannot be served")]
    InstanceApi(#[from] instance_api::BindError),
    /// The platform's secrets are not usable.
    #[error("the directory of instances' secrets cannot be used")]
    Platform(#[source] std::io::Error),
    /// It cannot be told how the agent is.
    #[error("the status of the agent cannot be served")]
    Status(#[source] instance_api::BindError),
    /// Nothing can be reconciled.
    #[error("the reconciler cannot be started")]
    Reconcile(#[from] ReconcileError),
    /// No thread can be started for the export of spans.
    #[error("spans cannot be exported")]
    Telemetry(#[source] std::io::Error),
    /// A task panicked.
    #[error("a task of the agent failed")]
    Task(#[from] tokio::task::JoinError),
}
