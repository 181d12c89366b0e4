//! How every simulated cluster begins: fixed keys, fixed names, three controllers of which two sign.

use dotmac_controller::node::bearer_digest;
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

/// The administrator's token.
pub(crate) const ADMIN: &str = "dotmac-simulated-admin";
/// When every world begins, in milliseconds since 1970.
pub(crate) const START: u64 = 1_700_000_000_000;
/// Where the agents are, one each.
pub(crate) const REGIONS: [&str; 2] = ["lab-1", "lab-2"];
/// Milliseconds between a deletion and its tombstone.
pub(crate) const GRACE_MS: u64 = 1_500;
/// Milliseconds in which an order may be accepted.
const WINDOW_MS: u64 = 8_000;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn role(threshold: u16, seeds: &[u8]) -> Role {
    let keys = seeds.iter().map(|seed| PublicKey::of(&key(*seed)));
    Role {
        threshold,
        keys: keys.collect(),
    }
}

pub(crate) fn genesis() -> Genesis {
    let controllers = (1..=3_u8).map(|node| ControllerIdentity {
        node: NodeId(node.into()),
        signing_key: PublicKey::of(&key(node)),
        issuer: Digest::of(&[node]),
    });
    let trust = TrustRoot {
        cluster: "simulated".parse().unwrap(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: role(1, &[10]),
        approver: role(1, &[20]),
        controller: role(2, &[1, 2, 3]),
        timestamp: role(2, &[1, 2, 3]),
        controllers: controllers.collect(),
    };
    let body = codec::encode(&trust).unwrap();
    let signatures = vec![Signature::make(&key(10), TRUST_ROOT_DOMAIN, &body)];
    let nodes = (1..=3_u8).map(|node| NodeCard {
        node: NodeId(node.into()),
        incarnation: format!("{node:032x}").parse().unwrap(),
        link_address: format!("127.0.0.1:{}", 7000 + u16::from(node)),
        api_address: format!("127.0.0.1:{}", 8000 + u16::from(node)),
        signing_key: PublicKey::of(&key(node)),
        issuer: vec![node],
    });
    Genesis {
        cluster: trust.cluster.clone(),
        created_at: Timestamp(START),
        trust_root: SignedTrustRoot { body, signatures },
        nodes: nodes.collect(),
        admin: CreateToken {
            id: "00000000000000ad".parse().unwrap(),
            secret_digest: bearer_digest(ADMIN),
            name: "admin".into(),
            role: AccessRole::PlatformAdmin,
            tenant: None,
            expires_at: None,
        },
        regions: REGIONS.iter().map(|name| name.parse().unwrap()).collect(),
        default_region: REGIONS[0].parse().unwrap(),
        default_channel: "stable".into(),
        grace_ms: GRACE_MS,
        window_ms: WINDOW_MS,
        removals_per_hour: 100,
        removals_per_tenant_hour: 100,
    }
}
