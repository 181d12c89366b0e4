//! Values to test with, all following from fixed keys and numbers.

use std::collections::BTreeMap;

use dotmac_protocol::{
    clock::{CLOCK_DOMAIN, ClockStatement, DesiredLeaf, SignedClock},
    codec::encode,
    digest::Digest,
    ids::{
        AgentId, DeploymentId, Epoch, Generation, IncarnationId, NodeId, RequestId, Sequence,
        TenantId, TrustVersion, UnitId,
    },
    keys::{PublicKey, Signature},
    license::{GRACE_DEFAULT_MS, License, LicenseStanding, Tier},
    record::{
        ComponentHealth, Event, Hop, RECORD_DOMAIN, Record, SignedRecord,
        reports::{Claim, InstanceEvent, PluginUsage, ProbeMinute, Report, Usage},
    },
    release::Manifest,
    time::{Timestamp, Window},
    trace::TraceContext,
    trust::{ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
    unit::{Instance, Payload, Resources, RunState, Sealed, SealedCredential},
    wave::{Leaf, SignedIntent, Verb, WAVE_DOMAIN, WaveHeader, merkle_paths, merkle_root},
};
use ed25519_dalek::SigningKey;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn agent() -> AgentId {
    "do-fra1-0190a1b2".parse().unwrap()
}

pub(crate) fn incarnation() -> IncarnationId {
    "0123456789abcdef0123456789abcdef".parse().unwrap()
}

pub(crate) fn request() -> RequestId {
    "fedcba9876543210fedcba9876543210".parse().unwrap()
}

pub(crate) fn tenant() -> TenantId {
    "demo-isp-0190a1b2".parse().unwrap()
}

pub(crate) fn unit() -> UnitId {
    UnitId::instance(&DeploymentId::first_of(&tenant()))
}

pub(crate) fn window() -> Window {
    Window {
        not_before: NOW,
        not_after: NOW.plus_millis(600_000),
    }
}

pub(crate) fn hops() -> Vec<Hop> {
    vec![Hop {
        station: "agent.journalled".into(),
        at: NOW,
    }]
}

fn role(threshold: u16, seeds: &[u8]) -> Role {
    let keys = seeds
        .iter()
        .map(|seed| PublicKey::of(&key(*seed)))
        .collect();
    Role { threshold, keys }
}

pub(crate) fn trust_root() -> TrustRoot {
    let controllers = (1..=3).map(|node| ControllerIdentity {
        node: NodeId(node.into()),
        signing_key: PublicKey::of(&key(node)),
        issuer: Digest::of(&[node]),
    });
    TrustRoot {
        cluster: "test".parse().unwrap(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: role(1, &[10]),
        approver: role(1, &[20]),
        controller: role(2, &[1, 2, 3]),
        timestamp: role(2, &[1, 2, 3]),
        controllers: controllers.collect(),
    }
}

pub(crate) fn signed_trust_root() -> SignedTrustRoot {
    let body = encode(&trust_root()).unwrap();
    let signatures = vec![Signature::make(&key(10), TRUST_ROOT_DOMAIN, &body)];
    SignedTrustRoot { body, signatures }
}

pub(crate) fn manifest() -> Manifest {
    let text = r#"{"name": "demo-isp", "version": "1.0.0", "channel": "stable", "description": "A demo",
        "components": {
            "migration": {"kind": "task", "run": {"command": ["true"]}},
            "web": {
                "run": {"pinned": {"command": ["demo-isp", "${port.http}"],
                    "digest": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}},
                "after": ["migration"], "ports": ["http"], "volumes": ["data"],
                "env": {"ENVIRONMENT": "${environment}"},
                "probes": {"ready": {"http": {"port": "http", "path": "/ready", "json_true": "healthy"}}},
                "resources": {"cpu_percent": 50, "memory_percent": 60},
                "stop": {"signal": "SIGINT", "patience_ms": 5000}
            }
        }}"#;
    Manifest::parse(text.as_bytes()).unwrap()
}

pub(crate) fn sealed() -> Sealed {
    Sealed {
        to: Digest::of(b"to"),
        encapsulated: [3; 32],
        ciphertext: vec![1, 2, 3],
    }
}

pub(crate) fn instance() -> Instance {
    Instance {
        tenant: tenant(),
        tenant_name: "Démo ISP".into(),
        deployment: DeploymentId::first_of(&tenant()),
        environment: "production".into(),
        region: "do-fra1".parse().unwrap(),
        domain_name: Some("demo-isp.example".into()),
        manifest: manifest().canonical(),
        release: manifest().digest(),
        resources: Resources {
            cpu_request_millis: 250,
            memory_request_bytes: 1 << 29,
            cpu_limit_millis: 1_000,
            memory_limit_bytes: 1 << 31,
            storage_bytes: 10 << 30,
        },
        replicas: 2,
        restarts: 3,
        run: RunState::Running,
        license: License {
            tier: Tier::Basic,
            max_subscribers: 1_000,
            max_services: 500,
            api_rate_limit: 10_000,
            expires_at: Some(NOW),
            grace_ms: GRACE_DEFAULT_MS,
            standing: LicenseStanding::Valid,
        },
        features: BTreeMap::from([("billing".into(), true), ("voice".into(), false)]),
        custom_config: "{}".into(),
        credentials: vec![SealedCredential {
            name: "database.url".into(),
            sealed: sealed(),
        }],
    }
}

pub(crate) fn payload() -> Payload {
    Payload::Instance(Box::new(instance()))
}

pub(crate) fn trace() -> TraceContext {
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    text.parse().unwrap()
}

pub(crate) fn leaf() -> Leaf {
    Leaf {
        agent: agent(),
        tenant: tenant(),
        unit: unit(),
        verb: Verb::Apply,
        generation: Generation(3),
        sequence: Sequence(7),
        previous: Sequence(6),
        epoch: Epoch(1),
        trust_version: TrustVersion(1),
        window: window(),
        payload: Digest::of(&encode(&payload()).unwrap()),
        request: request(),
        trace: Some(trace()),
    }
}

pub(crate) fn header(leaves: &[Vec<u8>]) -> WaveHeader {
    WaveHeader {
        number: 9,
        root: merkle_root(leaves),
        leaves: u32::try_from(leaves.len()).unwrap(),
        epoch: Epoch(1),
        trust_version: TrustVersion(1),
        sealed_at: NOW,
        window: window(),
    }
}

/// The order as one of five of a wave, signed by these controllers.
pub(crate) fn intent(leaf: &Leaf, payload: &Payload, signers: &[u8]) -> SignedIntent {
    let other = |sequence| {
        Leaf {
            sequence: Sequence(sequence),
            ..leaf.clone()
        }
        .bytes()
    };
    let leaves = vec![other(1), other(2), leaf.bytes(), other(3), other(4)];
    let mut header = header(&leaves);
    (header.epoch, header.trust_version) = (leaf.epoch, leaf.trust_version);
    header.window = leaf.window;
    let header = encode(&header).unwrap();
    let sign = |seed: &u8| Signature::make(&key(*seed), WAVE_DOMAIN, &header);
    SignedIntent {
        signatures: signers.iter().map(sign).collect(),
        leaf: leaf.bytes(),
        index: 2,
        path: merkle_paths(&leaves).swap_remove(2),
        payload: encode(payload).unwrap(),
        header,
    }
}

pub(crate) fn desired_leaf() -> DesiredLeaf {
    DesiredLeaf {
        agent: agent(),
        desired: Digest::of(b"desired"),
    }
}

pub(crate) fn statement(leaves: &[Vec<u8>]) -> ClockStatement {
    ClockStatement {
        number: 12,
        at: NOW,
        root: merkle_root(leaves),
        leaves: u32::try_from(leaves.len()).unwrap(),
        epoch: Epoch(1),
        trust_version: TrustVersion(1),
    }
}

/// A clock that speaks to three agents, of which the second is meant, signed by these controllers.
pub(crate) fn signed_clock(leaf: &DesiredLeaf, signers: &[u8]) -> SignedClock {
    let other = |name: &str| DesiredLeaf {
        agent: name.parse().unwrap(),
        ..desired_leaf()
    };
    let leaves = [other("aws-1"), leaf.clone(), other("gcp-1")].map(|leaf| leaf.bytes());
    let body = encode(&statement(&leaves)).unwrap();
    let sign = |seed: &u8| Signature::make(&key(*seed), CLOCK_DOMAIN, &body);
    SignedClock {
        signatures: signers.iter().map(sign).collect(),
        leaf: leaf.bytes(),
        index: 1,
        path: merkle_paths(&leaves).swap_remove(1),
        body,
    }
}

pub(crate) fn record(event: Event) -> Record {
    Record {
        agent: agent(),
        incarnation: incarnation(),
        sequence: 4,
        previous: Digest::of(b"before"),
        at: NOW,
        tenant: Some(tenant()),
        unit: Some(unit()),
        request: Some(request()),
        event,
    }
}

pub(crate) fn signed_record(event: Event) -> SignedRecord {
    let body = encode(&record(event)).unwrap();
    let signature = Signature::make(&key(5), RECORD_DOMAIN, &body);
    SignedRecord { body, signature }
}

pub(crate) fn component() -> ComponentHealth {
    ComponentHealth {
        name: "web".parse().unwrap(),
        desired: 2,
        ready: 1,
        restarts: 3,
        pids: vec![4_711, 4_712],
        address: Some("127.0.0.1:8101".into()),
    }
}

/// One report of each kind.
pub(crate) fn reports() -> Vec<Report> {
    let usage = Usage {
        reported_at: NOW,
        active_subscribers: 850,
        total_subscribers: 900,
        new_subscribers_today: 5,
        churned_subscribers_today: 1,
        active_sessions: 420,
        sessions_today: 2_000,
        data_usage_kb: 1_234_567,
        active_nas_devices: 3,
        active_olts: 2,
        active_onts: 700,
        revenue_today: Some("1200.50".into()),
        outstanding_invoices: None,
    };
    let event = InstanceEvent {
        event_id: "evt-1".into(),
        event_type: "subscriber.created".into(),
        occurred_at: NOW,
        payload: "{\"subscriber_id\":\"s-1\"}".into(),
    };
    let claim = Claim {
        reported_at: NOW,
        status: "healthy".into(),
        api_status: "healthy".into(),
        radius_status: "healthy".into(),
        database_status: "degraded".into(),
        redis_status: "healthy".into(),
        cpu_usage_basis_points: 1_250,
        memory_usage_basis_points: 4_000,
        disk_usage_basis_points: 9_999,
        app_version: "1.4.2".into(),
        config_version: "00ff".into(),
    };
    let minute = ProbeMinute {
        minute: NOW,
        component: "web".parse().unwrap(),
        probes: 60,
        failed: 2,
        latency_sum_ms: 180,
        latency_max_ms: 40,
    };
    let plugin = PluginUsage {
        plugin_id: "crm".into(),
        metric_name: "api_calls".into(),
        usage_count: 17,
        timestamp: NOW,
    };
    vec![
        Report::Usage(Box::new(usage)),
        Report::Event(event),
        Report::Claim(Box::new(claim)),
        Report::Minute(minute),
        Report::Plugin(plugin),
    ]
}
