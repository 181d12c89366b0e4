//! Why a controller does not start: one variant for each part that can fail.

use std::collections::BTreeMap;

use dotmac_protocol::ids::{ClusterId, NodeId};
use dotmac_runtime::quic::EndpointError;
use thiserror::Error;

use crate::{
    api,
    backup::SettingsError,
    bootstrap::BootstrapError,
    identity::CertifyError,
    raft::{StartError, welcome::Unwelcome},
};

/// Why a controller does not start.
#[derive(Debug, Error)]
pub enum AppError {
    /// Its keys or the genesis file are missing or broken.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The genesis file does not name this controller as it is.
    #[error("genesis {path} names controller {node} with another {what}; {advice}")]
    Stranger {
        /// The file.
        path: String,
        /// This controller.
        node: NodeId,
        /// What differs.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The cluster goes on from a backup, and this controller has nothing of it.
    #[error(
        "genesis {genesis} goes on from backup {backup}, and there is nothing of it in {store}: run `dotmac backup restore` \
         here first"
    )]
    NotRestored {
        /// The file.
        genesis: String,
        /// The backup.
        backup: String,
        /// The storage directory.
        store: String,
    },
    /// Its data was founded by another genesis than the file says.
    #[error("the data in {data} is that of cluster {found}, founded otherwise than {genesis} says")]
    OtherCluster {
        /// The storage directory.
        data: String,
        /// The cluster in it.
        found: ClusterId,
        /// The file.
        genesis: String,
    },
    /// It is earlier than anything can be.
    #[error("this machine's clock says {now}, and the cluster was made later, at {made}")]
    Clock {
        /// The clock.
        now: String,
        /// When the cluster was made.
        made: String,
    },
    /// Its certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertifyError),
    /// The UDP address cannot be used.
    #[error("link.listen cannot be used")]
    Link(#[from] EndpointError),
    /// The TCP address cannot be used.
    #[error("api.listen = {address} cannot be used; another process may listen there")]
    Api {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The section `[backup]` cannot be used.
    #[error("the section [backup] of the configuration cannot be used")]
    Backup(#[from] SettingsError),
    /// The API cannot speak TLS as it should.
    #[error("the api cannot speak TLS")]
    Tls(#[from] api::TlsError),
    /// The replicated log cannot be opened.
    #[error(transparent)]
    Raft(#[from] StartError),
    /// The replicated log stopped while the controller ran.
    #[error("the replicated log stopped: {0}")]
    Stopped(String),
    /// Most of the cluster's controllers refuse this one.
    #[error("this is controller {node}, and {}", refusals(by))]
    Refused {
        /// This controller.
        node: NodeId,
        /// Who refuses it, and why.
        by: BTreeMap<NodeId, Unwelcome>,
    },
    /// No thread can be started for the export of spans.
    #[error("spans cannot be exported")]
    Telemetry(#[source] std::io::Error),
}

fn refusals(by: &BTreeMap<NodeId, Unwelcome>) -> String {
    let each = by.iter();
    let each = each.map(|(node, why)| format!("controller {node} refuses it: {why}"));
    each.collect::<Vec<_>>().join("; ")
}
