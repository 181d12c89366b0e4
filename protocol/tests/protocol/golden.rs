//! Golden files of everything that is signed or sent, every variant of every frame.

use dotmac_protocol::{
    digest::Digest,
    frame::{
        AgentFrame, Answer, ControllerFrame, ControllerNews, Delivery, EnrolGreeting, EnrolReply,
        EnrolRequest, Hello, InventoryItem, JoinToken, Question, RECOVER_DOMAIN, Report, Welcome,
    },
    ids::{Generation, NodeId, Sequence, TrustVersion},
    keys::{PublicKey, Signature},
    record::{Event, Health, HealthStatus, Limits, Outcome, Receipt},
    unit::{Payload, RunState},
    wave::Verb,
};

use crate::{
    hexfile::Golden,
    samples::{
        NOW, agent, component, desired_leaf, header, hops, incarnation, instance, intent, key,
        leaf, payload, record, reports, sealed, signed_clock, signed_record, signed_trust_root,
        statement, trust_root, unit,
    },
};

fn receipt(outcome: Outcome) -> Event {
    Event::Receipt(Receipt {
        leaf: Digest::of(&leaf().bytes()),
        generation: Generation(3),
        sequence: Sequence(7),
        outcome,
        hops: hops(),
    })
}

fn events() -> Vec<(&'static str, Event)> {
    let reason = || "no port is free".to_owned();
    let enforced = Limits::Enforced {
        by: "cgroup v2".into(),
    };
    let mut events = vec![
        ("receipt-accepted", receipt(Outcome::Accepted)),
        (
            "receipt-refused",
            receipt(Outcome::Refused { reason: reason() }),
        ),
        (
            "receipt-applied",
            receipt(Outcome::Applied { limits: enforced }),
        ),
        (
            "receipt-applied-unlimited",
            receipt(Outcome::Applied {
                limits: Limits::NotEnforced { reason: reason() },
            }),
        ),
        (
            "receipt-failing",
            receipt(Outcome::Failing { reason: reason() }),
        ),
        ("receipt-removed", receipt(Outcome::Removed)),
        (
            "audit",
            Event::Audit {
                action: "instance.restarted".into(),
                detail: "exit status 7".into(),
            },
        ),
        ("reports", Event::Reports(reports())),
    ];
    let statuses = [
        ("health-unknown", HealthStatus::Unknown),
        ("health-starting", HealthStatus::Starting),
        ("health-healthy", HealthStatus::Healthy),
        ("health-degraded", HealthStatus::Degraded),
        ("health-failed", HealthStatus::Failed),
        ("health-stopped", HealthStatus::Stopped),
    ];
    events.extend(statuses.map(|(name, status)| {
        let health = Health {
            generation: Generation(3),
            status,
            reason: reason(),
            components: vec![component()],
            hops: hops(),
        };
        (name, Event::Health(health))
    }));
    events
}

fn agent_frames() -> Vec<(&'static str, AgentFrame)> {
    let hello = Hello {
        agent: agent(),
        incarnation: incarnation(),
        software: "0.1.0".into(),
        trust_version: TrustVersion(1),
        now: NOW,
        inventory: vec![InventoryItem {
            unit: unit(),
            generation: Generation(3),
            sequence: Sequence(7),
            removed: false,
            health: HealthStatus::Healthy,
        }],
        outbox: (4, 12),
    };
    vec![
        ("hello", AgentFrame::Hello(hello)),
        (
            "renew",
            AgentFrame::Renew {
                request: vec![48, 3, 2, 1, 0],
            },
        ),
        ("beat", AgentFrame::Beat { now: NOW }),
    ]
}

fn controller_frames() -> Vec<(&'static str, ControllerFrame)> {
    let welcome = Welcome {
        node: NodeId(2),
        now: NOW,
        trust_roots: vec![signed_trust_root()],
        controllers: vec!["127.0.0.1:7443".into()],
        acknowledged: 11,
    };
    vec![
        ("welcome", ControllerFrame::Welcome(welcome)),
        (
            "acknowledged",
            ControllerFrame::Acknowledged {
                incarnation: incarnation(),
                through: 12,
            },
        ),
        (
            "renewed",
            ControllerFrame::Renewed {
                chain: vec![vec![48, 1], vec![48, 2]],
            },
        ),
        ("beat", ControllerFrame::Beat { now: NOW }),
        (
            "refused",
            ControllerFrame::Refused {
                reason: "another key is in use".into(),
            },
        ),
        (
            "goodbye",
            ControllerFrame::Goodbye {
                reason: "the controller stops".into(),
            },
        ),
        (
            "clock",
            ControllerFrame::Clock(signed_clock(&desired_leaf(), &[1, 3])),
        ),
        (
            "controllers",
            ControllerFrame::Controllers(ControllerNews {
                trust_roots: vec![signed_trust_root()],
                controllers: vec!["127.0.0.1:7443".into()],
            }),
        ),
    ]
}

fn enrol_requests() -> Vec<(&'static str, EnrolRequest)> {
    let request = vec![48, 3, 2, 1, 0];
    let join = EnrolRequest::Join {
        token: "0123456789abcdef".parse().unwrap(),
        secret: [9; 32],
        region: "do-fra1".parse().unwrap(),
        request: request.clone(),
        identity: PublicKey::of(&key(5)),
        seal_key: [8; 32],
        incarnation: incarnation(),
    };
    let signed = [&NOW.0.to_be_bytes()[..], &request].concat();
    let signature = Signature::make(&key(5), RECOVER_DOMAIN, &signed);
    let recover = EnrolRequest::Recover {
        agent: agent(),
        request,
        now: NOW,
        signature,
    };
    vec![("join", join), ("recover", recover)]
}

fn enrol_replies() -> Vec<(&'static str, EnrolReply)> {
    let admitted = EnrolReply::Admitted {
        agent: agent(),
        chain: vec![vec![48, 1], vec![48, 2]],
        controllers: vec!["127.0.0.1:7443".into()],
    };
    let refused = EnrolReply::Refused {
        code: "join-token-refused".into(),
        reason: "the join token was used already".into(),
        retry: false,
    };
    vec![("admitted", admitted), ("refused", refused)]
}

fn join_token() -> JoinToken {
    JoinToken {
        id: "0123456789abcdef".parse().unwrap(),
        secret: [9; 32],
        region: "do-fra1".parse().unwrap(),
        trust_root: signed_trust_root().digest(),
        controllers: vec!["127.0.0.1:7443".into(), "[::1]:7443".into()],
    }
}

fn check_frames(golden: &mut Golden) {
    golden.check_variants("agent-frame", &agent_frames());
    golden.check_variants("controller-frame", &controller_frames());
    golden.check_variants("enrol-request", &enrol_requests());
    golden.check_variants("enrol-reply", &enrol_replies());
    golden.check(
        "enrol-greeting",
        &EnrolGreeting {
            trust_roots: vec![signed_trust_root()],
        },
    );
    let logs = Question::Logs {
        unit: unit(),
        component: Some("web".parse().unwrap()),
        lines: 200,
        follow: true,
        seal_to: [7; 32],
    };
    let environment = Question::Environment {
        unit: unit(),
        component: None,
        seal_to: [7; 32],
    };
    let questions = [("logs", logs), ("environment", environment)];
    golden.check_variants("question", &questions);
    let answers = [
        ("piece", Answer::Piece(sealed())),
        (
            "refused",
            Answer::Refused {
                reason: "there is no such unit".into(),
            },
        ),
    ];
    golden.check_variants("answer", &answers);
    let signed = intent(&leaf(), &payload(), &[1, 2]);
    golden.check(
        "delivery",
        &Delivery {
            intent: signed,
            hops: hops(),
        },
    );
    let records = vec![signed_record(receipt(Outcome::Accepted))];
    golden.check(
        "report",
        &Report {
            incarnation: incarnation(),
            records,
        },
    );
    golden.check("join-token", &join_token());
}

#[test]
fn what_is_signed_or_sent_keeps_its_bytes() {
    let mut golden = Golden::new();
    golden.check("leaf", &leaf());
    let mut removal = leaf();
    removal.verb = Verb::Remove;
    golden.check("leaf-remove", &removal);
    golden.check("wave-header", &header(&[leaf().bytes()]));
    golden.check("signed-intent", &intent(&leaf(), &payload(), &[1, 2]));
    golden.check_variants(
        "payload",
        &[("instance", payload()), ("nothing", Payload::Nothing)],
    );
    let mut suspended = instance();
    suspended.run = RunState::Suspended;
    golden.check("payload-suspended", &Payload::Instance(Box::new(suspended)));
    golden.check("clock-statement", &statement(&[desired_leaf().bytes()]));
    golden.check("desired-leaf", &desired_leaf());
    golden.check("signed-clock", &signed_clock(&desired_leaf(), &[1, 3]));
    golden.check("trust-root", &trust_root());
    golden.check("signed-trust-root", &signed_trust_root());
    for (name, event) in events() {
        golden.check(&format!("record-{name}"), &record(event));
    }
    golden.check("signed-record", &signed_record(receipt(Outcome::Accepted)));
    check_frames(&mut golden);
    golden.done();
}

#[test]
fn names_and_digests_that_others_rest_on_are_known() {
    let text = join_token().to_text();
    assert_eq!(JoinToken::from_text(&text), Some(join_token()));
    assert!(text.starts_with("dotmac-join-1.AR"), "{text}");
    assert_eq!(JoinToken::from_text(&text[1..]), None);
    assert_eq!(JoinToken::from_text(&format!("{text}A")), None);
    assert_eq!(PublicKey::of(&key(1)).id().to_string(), "13257cb4a5431a00");
    let digests = [
        ("sha256:", Digest::of(b"abc")),
        ("tagged", Digest::tagged("domain", b"abc")),
        (
            "merkle",
            header(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]).root,
        ),
        ("join-token", JoinToken::secret_digest(&[9; 32])),
    ];
    // Computed with another implementation of SHA-256 and of RFC 9162.
    let expected = [
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "aa3b4bf62ee4c31e8d84f53e855cc78db56831fb3274bd5579369479a5f02db9",
        "36642e73c2540ab121e3a6bf9545b0a24982cd830eb13d3cd19de3ce6c021ec1",
        "1e351a1ac9d7805fa8ae897e04ab88bcef0e3c2d4c0bf34abffcdc850af13328",
    ];
    for ((name, digest), expected) in digests.into_iter().zip(expected) {
        assert_eq!(digest.hex(), expected, "{name}");
    }
}
