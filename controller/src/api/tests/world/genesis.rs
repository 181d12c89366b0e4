//! How the cluster of the tests began: two controllers, of which one signs, and two regions.

use dotmac_domain::{
    access::Role as AccessRole,
    command::{CreateToken, Genesis, NodeCard},
};
use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{Epoch, NodeId, TrustVersion},
    keys::{PublicKey, Signature},
    time::Timestamp,
    trust::{ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};
use ed25519_dalek::SigningKey;

use super::{ADMIN, EMPTY_REGION, REGION};
use crate::node::bearer_digest;

/// The genesis of a cluster whose waves this key signs.
pub(super) fn genesis(key: &SigningKey) -> Genesis {
    let role = |key: &SigningKey| Role {
        threshold: 1,
        keys: vec![PublicKey::of(key)],
    };
    let root = SigningKey::from_bytes(&[2; 32]);
    let card = |node: u64, signing_key: PublicKey| NodeCard {
        node: NodeId(node),
        incarnation: format!("{node:032x}").parse().unwrap(),
        link_address: format!("127.0.0.1:{}", 7000 + node),
        api_address: format!("127.0.0.1:{}", 8000 + node),
        signing_key,
        issuer: node.to_be_bytes().to_vec(),
    };
    let trust = TrustRoot {
        cluster: "test".parse().unwrap(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: role(&root),
        approver: role(&SigningKey::from_bytes(&[3; 32])),
        controller: role(key),
        timestamp: role(key),
        controllers: vec![ControllerIdentity {
            node: NodeId(1),
            signing_key: PublicKey::of(key),
            issuer: Digest::of(&1_u64.to_be_bytes()),
        }],
    };
    let body = codec::encode(&trust).unwrap();
    let signatures = vec![Signature::make(&root, TRUST_ROOT_DOMAIN, &body)];
    let other = PublicKey::of(&SigningKey::from_bytes(&[4; 32]));
    Genesis {
        cluster: "test".parse().unwrap(),
        created_at: Timestamp(1_700_000_000_000),
        trust_root: SignedTrustRoot { body, signatures },
        nodes: vec![card(1, PublicKey::of(key)), card(2, other)],
        admin: CreateToken {
            id: "00000000000000ad".parse().unwrap(),
            secret_digest: bearer_digest(ADMIN),
            name: "admin".into(),
            role: AccessRole::PlatformAdmin,
            tenant: None,
            expires_at: None,
        },
        regions: vec![REGION.parse().unwrap(), EMPTY_REGION.parse().unwrap()],
        default_region: REGION.parse().unwrap(),
        default_channel: "stable".into(),
        grace_ms: 1_000,
        window_ms: 60_000,
        removals_per_hour: 10,
        removals_per_tenant_hour: 10,
    }
}
