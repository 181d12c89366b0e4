//! Fixtures for unit tests: trust roots, signed waves and records from fixed keys.

use std::collections::BTreeMap;

use dotmac_protocol::{
    clock::{CLOCK_DOMAIN, ClockStatement, DesiredLeaf, SignedClock, desired_digest},
    codec::encode,
    digest::Digest,
    ids::{
        AgentId, DeploymentId, Epoch, Generation, NodeId, Sequence, TenantId, TrustVersion, UnitId,
    },
    keys::{PublicKey, Signature},
    license::{GRACE_DEFAULT_MS, License, LicenseStanding, Tier},
    time::{Timestamp, Window},
    trust::{ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
    unit::{Instance, Payload, Resources, RunState},
    wave::{Leaf, SignedIntent, Verb, WAVE_DOMAIN, WaveHeader, merkle_paths, merkle_root},
};
use ed25519_dalek::SigningKey;

/// The time at which fixtures happen.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

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

/// Controllers 1, 2 and 3 with keys of those seeds, 2 of 3; root key 10.
pub(crate) fn trust_root(version: u64) -> TrustRoot {
    trust_root_with(version, [1, 2, 3].map(|node| Digest::of(&[node])))
}

pub(crate) fn trust_root_with(version: u64, issuers: [Digest; 3]) -> TrustRoot {
    let controllers = [1_u8, 2, 3].into_iter().zip(issuers);
    TrustRoot {
        cluster: "test".parse().unwrap(),
        version: TrustVersion(version),
        epoch: Epoch(1),
        root: role(1, &[10]),
        approver: role(1, &[20]),
        controller: role(2, &[1, 2, 3]),
        timestamp: role(2, &[1, 2, 3]),
        controllers: controllers
            .map(|(node, issuer)| ControllerIdentity {
                node: NodeId(u64::from(node)),
                signing_key: PublicKey::of(&key(node)),
                issuer,
            })
            .collect(),
    }
}

pub(crate) fn sign_trust(trust: &TrustRoot, seeds: &[u8]) -> SignedTrustRoot {
    let body = encode(trust).unwrap();
    let sign = |seed: &u8| Signature::make(&key(*seed), TRUST_ROOT_DOMAIN, &body);
    let signatures = seeds.iter().map(sign).collect();
    SignedTrustRoot { body, signatures }
}

pub(crate) fn agent() -> AgentId {
    "byov-lagos-1".parse().unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantId {
    format!("{name}-0190a1b2").parse().unwrap()
}

pub(crate) fn unit(name: &str) -> UnitId {
    UnitId::instance(&DeploymentId::first_of(&tenant(name)))
}

pub(crate) fn instance(name: &str) -> Instance {
    let manifest = br#"{"name":"demo"}"#.to_vec();
    Instance {
        tenant: tenant(name),
        tenant_name: "Demo ISP".into(),
        deployment: DeploymentId::first_of(&tenant(name)),
        environment: "production".into(),
        region: "byov-lagos".parse().unwrap(),
        domain_name: None,
        release: Digest::of(&manifest),
        manifest,
        resources: Resources {
            cpu_request_millis: 250,
            memory_request_bytes: 1,
            cpu_limit_millis: 1000,
            memory_limit_bytes: 2,
            storage_bytes: 3,
        },
        replicas: 1,
        restarts: 0,
        run: RunState::Running,
        license: License {
            tier: Tier::Premium,
            max_subscribers: 1000,
            max_services: 500,
            api_rate_limit: 1000,
            expires_at: None,
            grace_ms: GRACE_DEFAULT_MS,
            standing: LicenseStanding::Valid,
        },
        features: BTreeMap::from([("billing".into(), true)]),
        custom_config: String::new(),
        credentials: vec![],
    }
}

/// An order of one generation and sequence for the unit of `name`; change what a test needs changed.
pub(crate) fn leaf(name: &str, verb: Verb, generation: u64, sequence: u64) -> Leaf {
    Leaf {
        agent: agent(),
        tenant: tenant(name),
        unit: unit(name),
        verb,
        generation: Generation(generation),
        sequence: Sequence(sequence),
        previous: Sequence(sequence - 1),
        epoch: Epoch(1),
        trust_version: TrustVersion(1),
        window: Window {
            not_before: NOW,
            not_after: NOW.plus_millis(600_000),
        },
        payload: Digest::ZERO,
        request: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        trace: None,
    }
}

pub(crate) fn apply(name: &str, generation: u64, sequence: u64) -> SignedIntent {
    let payload = Payload::Instance(Box::new(instance(name)));
    sign_intent(
        leaf(name, Verb::Apply, generation, sequence),
        &payload,
        &[1, 2],
    )
}

pub(crate) fn remove(name: &str, generation: u64, sequence: u64) -> SignedIntent {
    let leaf = leaf(name, Verb::Remove, generation, sequence);
    sign_intent(leaf, &Payload::Nothing, &[1, 2])
}

/// A wave of two leaves, of which the first is wanted, signed by the controllers of these seeds.
pub(crate) fn sign_intent(mut leaf: Leaf, payload: &Payload, seeds: &[u8]) -> SignedIntent {
    let payload = encode(payload).unwrap();
    leaf.payload = Digest::of(&payload);
    let mut other = leaf.clone();
    other.agent = "another".parse().unwrap();
    let leaves = vec![leaf.bytes(), other.bytes()];
    let header = encode(&WaveHeader {
        number: leaf.sequence.0,
        root: merkle_root(&leaves),
        leaves: 2,
        epoch: leaf.epoch,
        trust_version: leaf.trust_version,
        sealed_at: leaf.window.not_before,
        window: leaf.window,
    })
    .unwrap();
    let sign = |seed: &u8| Signature::make(&key(*seed), WAVE_DOMAIN, &header);
    SignedIntent {
        signatures: seeds.iter().map(sign).collect(),
        leaf: leaf.bytes(),
        index: 0,
        path: merkle_paths(&leaves).swap_remove(0),
        payload,
        header,
    }
}

/// A signed clock that says that nothing is to be kept.
pub(crate) fn clock(number: u64, at: Timestamp) -> SignedClock {
    sign_clock(number, at, desired_digest([]), &[1, 2])
}

/// A statement to this agent and another one, signed by the controllers of these seeds.
pub(crate) fn sign_clock(number: u64, at: Timestamp, desired: Digest, seeds: &[u8]) -> SignedClock {
    let agents = ["another".parse().unwrap(), agent()];
    let leaves = agents.map(|agent| DesiredLeaf { agent, desired }.bytes());
    let body = encode(&ClockStatement {
        number,
        at,
        root: merkle_root(&leaves),
        leaves: 2,
        epoch: Epoch(1),
        trust_version: TrustVersion(1),
    })
    .unwrap();
    let sign = |seed: &u8| Signature::make(&key(*seed), CLOCK_DOMAIN, &body);
    SignedClock {
        signatures: seeds.iter().map(sign).collect(),
        leaf: leaves[1].clone(),
        index: 1,
        path: merkle_paths(&leaves).swap_remove(1),
        body,
    }
}
