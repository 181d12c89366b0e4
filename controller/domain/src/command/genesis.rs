//! How a cluster begins, and the public side of one controller.

use dotmac_protocol::{
    codec::Format,
    ids::{ClusterId, IncarnationId, NodeId, RegionId},
    keys::PublicKey,
    time::Timestamp,
    trust::SignedTrustRoot,
};
use serde::{Deserialize, Serialize};

use super::CreateToken;

/// How a cluster begins. Every controller has it as a file and refuses a log that begins otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Version 1 of the trust root.
    pub trust_root: SignedTrustRoot,
    /// The first controllers.
    pub nodes: Vec<NodeCard>,
    /// The first access token, a `platform_admin`'s.
    pub admin: CreateToken,
    /// Where workloads may run.
    pub regions: Vec<RegionId>,
    /// The region of a request that names none.
    pub default_region: RegionId,
    /// The release of a request that names no `image_tag` comes from this channel.
    pub default_channel: String,
    /// Milliseconds between a deletion and its tombstone.
    pub grace_ms: u64,
    /// Milliseconds in which a sealed intent may be accepted.
    pub window_ms: u64,
    /// Tombstones an hour at most, in the whole cluster.
    pub removals_per_hour: u32,
    /// Tombstones an hour at most for one tenant.
    pub removals_per_tenant_hour: u32,
}

impl Format for Genesis {
    const KIND: &'static str = "genesis";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 256 * 1024;
}

/// One controller's public side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCard {
    /// Its number.
    pub node: NodeId,
    /// One life of its disk: a wiped node cannot come back as itself.
    pub incarnation: IncarnationId,
    /// `host:port` (UDP) for peers and agents.
    pub link_address: String,
    /// `host:port` of its API.
    pub api_address: String,
    /// The key it signs waves with.
    pub signing_key: PublicKey,
    /// DER of the certificate it issues others with.
    pub issuer: Vec<u8>,
}

impl Genesis {
    /// The card of one controller.
    #[must_use]
    pub fn card(&self, node: NodeId) -> Option<&NodeCard> {
        self.nodes.iter().find(|card| card.node == node)
    }
}
