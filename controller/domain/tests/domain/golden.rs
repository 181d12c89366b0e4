//! Golden files of everything the core stores or signs: an old log and an old snapshot read as they were written.

use dotmac_domain::{
    Accepted, Command, Envelope, State,
    access::Role,
    audit::{AuditRecord, Entry, Fact, Link, ReportRecord, Stream},
    command::NodeCard,
    envelope::{Actor, Attestation, Evidence, command_digest},
    fleet::Presence,
    reply::{Code, Rejection, Replies},
    state::v1,
};
use dotmac_protocol::{
    digest::Digest,
    ids::{NodeId, RequestId},
    keys::Signature,
    record::{HealthStatus, Hop, Outcome},
    time::Timestamp,
};

use crate::{
    fixture::{
        GRACE_MS, START, TestAgent, World, admin, attest, attest_together, create, deployment,
        genesis, join_token, key, token, token_id,
    },
    hexfile::Golden,
    random::audit_event,
};

mod commands;
mod platform;

use commands::commands;

fn request(number: u8) -> RequestId {
    format!("{number:032x}").parse().unwrap()
}

fn envelope(actor: Actor) -> Envelope {
    let command = create("Demo ISP");
    Envelope {
        at: Timestamp(START),
        rules: 1,
        request: request(7),
        asked: command_digest(&command),
        actor,
        evidence: Evidence::None,
        expected: None,
        hops: vec![Hop {
            station: "api.received".into(),
            at: Timestamp(START - 3),
        }],
        trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            .parse()
            .ok(),
        command,
    }
}

/// A State under these rules, in which nearly every kind of entity is in nearly every stage.
fn state(rules: u16) -> State {
    let (mut world, mut agent, active) = World::with_active_under(rules);
    let tenant = world.state.deployments.get(&active).unwrap().tenant.clone();
    world
        .ask(Command::CreateToken(token(
            2,
            Role::TenantUser,
            Some(&tenant),
        )))
        .unwrap();
    world.ask(Command::CreateJoinToken(join_token(5))).unwrap();
    let removed = world.create("Removed ISP");
    world.make_active(&mut agent, &removed);
    world.destroy(&mut agent, &removed);
    let failed = world.create("Failed ISP");
    world.carry_on();
    let leaf = world.leaf(&failed);
    let records = vec![
        agent.receipt(&leaf, Outcome::Accepted),
        agent.health(&leaf, HealthStatus::Failed, "exit status 7"),
    ];
    world.report(&agent, records).unwrap();
    let mut elsewhere = deployment("Waiting ISP");
    elsewhere.region = Some("lab-2".parse().unwrap());
    elsewhere.domain_name = Some("isp.example".into());
    world
        .ask(Command::CreateDeployment(Box::new(elsewhere)))
        .unwrap();
    let deleted = world.create("Deleted ISP");
    world.carry_on();
    world
        .ask(Command::DeleteDeployment {
            deployment: deleted,
        })
        .unwrap();
    let leaving = world.create("Leaving ISP");
    world
        .ask(Command::DeleteDeployment {
            deployment: leaving.clone(),
        })
        .unwrap();
    world.now += GRACE_MS;
    world
        .plan(Command::RemoveDeployment {
            deployment: leaving,
        })
        .unwrap();
    let since = Timestamp(world.now);
    let presence = Presence::Connected {
        node: NodeId(2),
        software: "0.1.0".into(),
        since,
    };
    world
        .plan(Command::NotePresence {
            changes: vec![(agent.id.clone(), presence)],
        })
        .unwrap();
    let record = agent.reports(&active, crate::reports::one_of_each(1));
    world.report(&agent, vec![record]).unwrap();
    world.ask(crate::licenses::suspend(&active)).unwrap();
    platform::populate(&mut world);
    if rules >= 2 {
        let learner = Box::new(crate::cluster::card(4));
        world.ask(Command::AdmitController(learner)).unwrap();
        for (name, command) in commands::of_backups() {
            match name {
                "request-backup" => world.ask(command).unwrap(),
                "note-backup" => world.plan(command).unwrap(),
                _ => Accepted::Done,
            };
        }
    }
    let (name, version) = ("demo-isp".parse().unwrap(), "1.0.0".parse().unwrap());
    world.ask(Command::RetireRelease { name, version }).unwrap();
    assert!(world.ask(create("Nobody's ISP")).is_err());
    world.state
}

fn replies() -> Replies {
    let codes = [
        Code::Invalid,
        Code::Forbidden,
        Code::NotFound,
        Code::DomainInUse,
        Code::AlreadyExists,
        Code::WrongState,
        Code::IdempotencyKeyReused,
        Code::JoinTokenRefused,
        Code::BudgetExhausted,
        Code::NotFounded,
        Code::OutOfOrder,
        Code::PreconditionFailed,
        Code::UnknownRelease,
        Code::TokenEnded,
        Code::LimitReached,
    ];
    let accepted = [
        Accepted::Done,
        Accepted::Deployment {
            tenant: "demo-isp-0190a1b2".parse().unwrap(),
            deployment: "demo-isp-0190a1b2-staging".parse().unwrap(),
        },
        Accepted::Agent(TestAgent::new(40).id),
        Accepted::Wave(9),
        Accepted::Through(300),
        Accepted::Tenant("demo-isp-0190a1b2".parse().unwrap()),
    ];
    let mut replies: Vec<_> = accepted.into_iter().map(Ok).collect();
    replies.extend(codes.map(|code| Err(Rejection::new(code, code.as_str()))));
    replies.push(Err(Rejection::field(
        "region",
        "mars",
        "one of lab-1, lab-2",
    )));
    Replies(replies)
}

#[test]
fn what_is_stored_and_signed_keeps_its_bytes() {
    let mut golden = Golden::new();
    golden.check_variants("command", &commands());
    golden.check("genesis", &genesis());
    let card: &NodeCard = &genesis().nodes[0];
    assert_eq!(genesis().card(NodeId(1)), Some(card));
    let attested = attest(envelope(admin()), &[1, 2], START + 30_000);
    golden.check("envelope-attested", &attested);
    golden.check("envelope-planner", &envelope(Actor::Planner));
    golden.check("envelope-founder", &envelope(Actor::Founder));
    let mut signed = envelope(Actor::Agent(TestAgent::new(40).id));
    signed.evidence = Evidence::RequestSigned {
        signature_base: b"\"@method\": POST".to_vec(),
        signature: Signature::make(&key(9), "request", b"\"@method\": POST"),
    };
    golden.check("envelope-request-signed", &signed);
    let mut batch = [admin(), Actor::Person(token_id(2))].map(envelope);
    attest_together(&mut batch, &[1, 2], START + 30_000);
    golden.check("envelope-attested-in-batch", &batch[1]);
    let Evidence::AttestedInBatch(place) = &batch[1].evidence else {
        panic!("in a batch");
    };
    golden.check("attestation-batch", &place.batch);
    golden.check(
        "attestation",
        &Attestation {
            request: request(7),
            command: command_digest(&create("Demo ISP")),
            actor: admin(),
            expires_at: Timestamp(START + 30_000),
        },
    );
    let record = AuditRecord {
        sequence: 3,
        previous: Digest::of(b"before"),
        at: Timestamp(START),
        entry: Entry {
            actor: admin(),
            action: "deployment.created".into(),
            tenant: Some("demo-isp-0190a1b2".parse().unwrap()),
            unit: Some("instance/demo-isp-0190a1b2".parse().unwrap()),
            request: request(7),
            detail: "demo-isp-0190a1b2".into(),
            warrant: Some(dotmac_domain::envelope::Warrant::of(
                &attested,
                Timestamp(START),
            )),
        },
    };
    golden.check("audit-record", &record);
    let entry = Link::Entry(dotmac_protocol::codec::encode(&record).unwrap());
    let mut agent = TestAgent::new(40);
    let link = Link::Record(agent.record(None, audit_event("agent.started")));
    let tenant = Stream::Tenant("demo-isp-0190a1b2".parse().unwrap());
    golden.check(
        "fact-platform",
        &Fact {
            stream: Stream::Platform,
            sequence: 1,
            link: entry.clone(),
        },
    );
    golden.check(
        "fact-tenant",
        &Fact {
            stream: tenant,
            sequence: 3,
            link: entry,
        },
    );
    let stream = Stream::Agent(agent.id, agent.incarnation);
    golden.check(
        "fact-agent",
        &Fact {
            stream,
            sequence: 1,
            link,
        },
    );
    check_series(&mut golden);
    golden.check("replies", &replies());
    golden.check("state", &v1::State::of(&state(1)));
    golden.check("state-empty", &v1::State::of(&State::default()));
    golden.check("state-2", &state(2));
    golden.done();
}

/// The links of a deployment's series.
fn check_series(golden: &mut Golden) {
    let report = ReportRecord {
        sequence: 4,
        previous: Digest::of(b"before"),
        at: Timestamp(START),
        agent: TestAgent::new(40).id,
        incarnation: TestAgent::new(40).incarnation,
        record: 9,
        report: crate::reports::usage(START, 80),
    };
    golden.check("report-record", &report);
    let link = Link::Report(dotmac_protocol::codec::encode(&report).unwrap());
    let series = [Stream::Usage, Stream::Events, Stream::Minutes];
    for (name, stream) in ["usage", "events", "minutes"].into_iter().zip(series) {
        let fact = Fact {
            stream: stream("demo-isp-0190a1b2".parse().unwrap()),
            sequence: 4,
            link: link.clone(),
        };
        golden.check(&format!("fact-{name}"), &fact);
    }
}

#[test]
fn names_and_digests_that_others_rest_on_are_known() {
    let command = create("Demo ISP");
    let bytes = dotmac_protocol::codec::encode(&command).unwrap();
    assert_eq!(
        command_digest(&command),
        Digest::tagged("dotmac/command/v1", &bytes)
    );
    for rules in [1, 2] {
        let bytes = state(rules).to_bytes().unwrap();
        assert_eq!(bytes[0], u8::try_from(rules).unwrap());
        let digest = Digest::tagged("dotmac/state/v1", &bytes);
        assert_eq!(state(rules).digest(), digest);
    }
    let tenant = dotmac_domain::tenancy::tenant_id("Demo ISP", &request(7));
    assert_eq!(tenant.as_str(), "demo-isp-13af0fb9");
    assert_eq!(TestAgent::new(40).id.as_str(), "lab-1-744507fb");
}
