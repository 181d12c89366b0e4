//! How an agent is let in.

use dotmac_protocol::{
    digest::Digest,
    ids::{IncarnationId, RegionId, TokenId},
    keys::PublicKey,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// A single-use token for an agent of one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateJoinToken {
    /// Its public name.
    pub id: TokenId,
    /// Digest of the 32 secret bytes.
    pub secret_digest: Digest,
    /// The region it is bound to.
    pub region: RegionId,
    /// First moment at which it no longer counts.
    pub expires_at: Timestamp,
}

/// An agent's admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAgent {
    /// The token it showed.
    pub token: TokenId,
    /// Proof that it knows the token's secret: `JoinToken::proof`.
    pub proof: Digest,
    /// Its region.
    pub region: RegionId,
    /// Its present life.
    pub incarnation: IncarnationId,
    /// Signs its records and recovery requests.
    pub identity: PublicKey,
    /// X25519 key that credentials are sealed to.
    pub seal_key: [u8; 32],
    /// Digest of its certificate's public key.
    pub key: Digest,
    /// When the certificate ends.
    pub not_after: Timestamp,
}
