//! Law 8: every fact once. Reports and requests arrive at least once, in any order, and count exactly once.

use dotmac_domain::{
    Accepted, Command,
    access::Role,
    audit::{Fact, Link, ReportRecord, Stream},
    envelope::Actor,
    reply::Code,
    state::ANSWER_KEPT_MS,
    tenancy::Status,
};
use dotmac_protocol::{
    codec::decode,
    digest::Digest,
    ids::UnitId,
    record::{ChainHead, HealthStatus, Limits, Outcome, Record, SignedRecord},
    time::Timestamp,
};
use proptest::prelude::*;

use crate::{
    fixture::{
        HOUR_MS, TestAgent, World, code_of, create, deployment_of, join_token, token, token_id,
    },
    random::audit_event,
};

/// A world in which an order was sealed, and twelve records about it that were not reported yet.
fn with_records() -> (World, TestAgent, Vec<SignedRecord>) {
    let (mut world, mut agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    let leaf = world.leaf(&id);
    let limits = Limits::Enforced {
        by: "cgroup v2".into(),
    };
    let mut records = vec![
        agent.receipt(&leaf, Outcome::Accepted),
        agent.receipt(&leaf, Outcome::Applied { limits }),
        agent.health(&leaf, HealthStatus::Starting, ""),
        agent.health(&leaf, HealthStatus::Healthy, ""),
    ];
    for number in 0..4 {
        records.push(agent.record(Some(&leaf.unit), audit_event("instance.wrote")));
        let status = [HealthStatus::Degraded, HealthStatus::Healthy][number % 2];
        records.push(agent.health(&leaf, status, "slow"));
    }
    (world, agent, records)
}

fn of_agent(facts: &[Fact]) -> Vec<u64> {
    let records = facts
        .iter()
        .filter(|fact| matches!(fact.link, Link::Record(_)));
    records.map(|fact| fact.sequence).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn law_8_every_fact_once_however_batches_repeat_overlap_and_swap(
        batches in prop::collection::vec((0..12_usize, 1..13_usize), 0..24)
    ) {
        let (mut world, agent, records) = with_records();
        let (mut once, once_agent) = (world.clone(), agent.clone());
        once.report(&once_agent, records.clone()).unwrap();
        let mut known = 0;
        for (start, length) in batches {
            let end = (start + length).min(records.len());
            let before = world.state.clone();
            let reply = world.report(&agent, records[start..end].to_vec());
            if start > known {
                prop_assert_eq!(code_of(reply), Code::OutOfOrder);
                prop_assert_eq!(&world.state, &before);
            } else {
                known = known.max(end);
                prop_assert_eq!(reply, Ok(Accepted::Through(known as u64)));
            }
        }
        world.report(&agent, records.clone()).unwrap();
        prop_assert_eq!(of_agent(&world.facts()), (1..=12).collect::<Vec<u64>>());
        prop_assert_eq!(world.facts(), once.facts());
        prop_assert_eq!(world.state, once.state);
    }
}

#[test]
fn law_8_the_ledger_holds_what_the_state_says_link_by_link() {
    let (mut world, mut agent, records) = with_records();
    world.report(&agent, records).unwrap();
    let id = world.state.deployments.keys().next().unwrap().clone();
    for number in 0..3 {
        let record = agent.reports(&id, crate::reports::one_of_each(number));
        world.report(&agent, vec![record]).unwrap();
    }
    let mut heads = std::collections::BTreeMap::new();
    for fact in world.facts() {
        let head = heads.entry(fact.stream.clone()).or_insert(ChainHead::START);
        assert_eq!(fact.sequence, head.sequence + 1);
        let previous = match &fact.link {
            Link::Entry(bytes) => {
                decode::<dotmac_domain::audit::AuditRecord>(bytes)
                    .unwrap()
                    .previous
            }
            Link::Record(signed) => decode::<Record>(&signed.body).unwrap().previous,
            Link::Report(bytes) => decode::<ReportRecord>(bytes).unwrap().previous,
        };
        assert_eq!(previous, head.digest);
        (head.sequence, head.digest) = (fact.sequence, fact.link.digest());
    }
    let streams = world.state.streams.iter();
    let streams: std::collections::BTreeMap<_, _> = streams
        .map(|(stream, head)| (stream.clone(), *head))
        .collect();
    assert_eq!(heads, streams);
    let agents = Stream::Agent(agent.id.clone(), agent.incarnation.clone());
    assert_eq!(heads.get(&agents).unwrap().sequence, 15);
    let series = [
        (Stream::Usage(id.clone()), 6),
        (Stream::Events(id.clone()), 3),
        (Stream::Minutes(id), 3),
    ];
    for (stream, length) in series {
        assert_eq!(heads.get(&stream).unwrap().sequence, length);
        assert_eq!(stream.to_string().parse(), Ok(stream));
    }
    assert_eq!(agents.to_string().parse(), Ok(agents));
}

#[test]
fn law_8_a_request_that_is_sent_again_gets_its_first_answer_and_changes_nothing() {
    let (mut world, _) = World::with_agent();
    let envelope = world.proven(crate::fixture::admin(), create("Demo ISP"));
    let first = world.apply(&envelope);
    let after = world.state.clone();
    for minutes in 0..3 {
        let mut again = envelope.clone();
        // Through another controller: another time, another evidence, even another command behind the same question.
        again.at.0 += minutes * 60_000;
        again.evidence = dotmac_domain::envelope::Evidence::None;
        let facts = world.facts().len();
        assert_eq!(world.apply(&again), first);
        assert_eq!(world.facts().len(), facts);
        world.state.now = after.now;
        assert_eq!(world.state, after);
    }
    let mut other = envelope;
    other.asked = Digest::of(b"another body");
    assert_eq!(code_of(world.apply(&other)), Code::IdempotencyKeyReused);
}

#[test]
fn law_8_a_refusal_is_remembered_as_well_and_both_for_a_day() {
    let (mut world, _) = World::with_agent();
    let mut invalid = crate::fixture::deployment("Demo ISP");
    invalid.resource_tier = "gigantic".into();
    let command = Command::CreateDeployment(Box::new(invalid));
    let envelope = world.proven(crate::fixture::admin(), command);
    let first = world.apply(&envelope);
    assert_eq!(code_of(first.clone()), Code::Invalid);
    assert_eq!(world.apply(&envelope), first);
    assert!(world.state.answers.contains_key(&envelope.request));
    world.now += ANSWER_KEPT_MS + 1;
    world.create("Second ISP");
    assert!(!world.state.answers.contains_key(&envelope.request));
    assert_eq!(world.state.answers.size(), 1);
}

#[test]
fn law_8_a_used_join_token_admits_its_agent_again_and_nobody_else() {
    let (mut world, agent) = World::with_agent();
    let token = 0x1000 + 40;
    let agents = world.state.agents.clone();
    let actor = Actor::Agent(agent.id.clone());
    let again = world.envelope(actor, Command::EnrolAgent(agent.enrol(token)));
    assert_eq!(world.apply(&again), Ok(Accepted::Agent(agent.id)));
    assert_eq!(world.state.agents, agents);
    let other = TestAgent::new(41);
    let actor = Actor::Agent(other.id.clone());
    let envelope = world.envelope(actor, Command::EnrolAgent(other.enrol(token)));
    assert_eq!(code_of(world.apply(&envelope)), Code::JoinTokenRefused);
}

#[test]
fn law_3_a_token_that_nobody_proved_does_not_replace_the_admission_of_a_known_agent() {
    let (mut world, agent) = World::with_agent();
    let mut forged = join_token(0x300);
    forged.expires_at = Timestamp(world.now + HOUR_MS);
    world.forge(Command::CreateJoinToken(forged)).unwrap();
    let agents = world.state.agents.clone();
    let actor = Actor::Agent(agent.id.clone());
    let again = world.envelope(actor, Command::EnrolAgent(agent.enrol(0x300)));
    assert_eq!(world.apply(&again), Ok(Accepted::Agent(agent.id)));
    assert_eq!(world.state.agents, agents);
}

#[test]
fn law_4_a_report_counts_for_its_agent_alone() {
    let (mut world, _, records) = with_records();
    let mut stranger = world.join(41);
    // Another agent's records, under one's own name.
    assert_eq!(
        code_of(world.report(&stranger, records.clone())),
        Code::OutOfOrder
    );
    // One's own record that names another agent.
    let owner = world.state.units.keys().next().unwrap().0.clone();
    let signed = stranger.record(None, audit_event("agent.started"));
    let mut record: Record = decode(&signed.body).unwrap();
    record.agent = owner;
    let forged = stranger.sign(&record);
    assert_eq!(
        code_of(world.report(&stranger, vec![forged])),
        Code::Forbidden
    );
    // Or another life of oneself.
    stranger.rewind(ChainHead::START);
    let mut reborn = stranger.clone();
    reborn.incarnation = "ab".repeat(16).parse().unwrap();
    let record = reborn.record(None, audit_event("agent.started"));
    assert_eq!(
        code_of(world.report(&reborn, vec![record])),
        Code::Forbidden
    );
    assert_eq!(of_agent(&world.facts()), Vec::<u64>::new());
}

#[test]
fn law_4_an_agent_changes_nothing_of_another_agents_unit() {
    let (mut world, mut owner) = World::with_agent();
    let mut stranger = world.join(41);
    let id = world.create("Demo ISP");
    world.carry_on();
    let leaf = world.leaf(&id);
    let (owner, stranger) = if leaf.agent == owner.id {
        (&mut owner, &mut stranger)
    } else {
        (&mut stranger, &mut owner)
    };
    let (units, deployments) = (world.state.units.clone(), world.state.deployments.clone());
    let records = vec![
        stranger.receipt(&leaf, Outcome::Accepted),
        stranger.receipt(&leaf, Outcome::Removed),
        stranger.health(&leaf, HealthStatus::Failed, "it is mine"),
    ];
    world.report(stranger, records).unwrap();
    assert_eq!(
        (&world.state.units, &world.state.deployments),
        (&units, &deployments)
    );
    let record = owner.receipt(&leaf, Outcome::Accepted);
    world.report(owner, vec![record]).unwrap();
    assert_ne!(world.state.units, units);
}

#[test]
fn law_4_the_tenant_of_a_record_is_whose_unit_it_is_and_not_what_it_claims() {
    let (mut world, mut agent, id) = World::with_active();
    let other = world.create("Other ISP");
    let other = world.state.deployments.get(&other).unwrap().tenant.clone();
    let own = world.state.deployments.get(&id).unwrap().tenant.clone();
    let head = agent.head();
    let signed = agent.record(
        Some(&UnitId::instance(&id)),
        audit_event("instance.restarted"),
    );
    let mut record: Record = decode(&signed.body).unwrap();
    record.tenant = Some(other.clone());
    agent.rewind(head);
    let signed = agent.sign(&record);
    let sequence = |world: &World, tenant| {
        let stream = Stream::Tenant(tenant);
        world
            .state
            .streams
            .get(&stream)
            .map_or(0, |head| head.sequence)
    };
    let before = (
        sequence(&world, own.clone()),
        sequence(&world, other.clone()),
    );
    world.report(&agent, vec![signed]).unwrap();
    assert_eq!(
        (sequence(&world, own), sequence(&world, other)),
        (before.0 + 1, before.1)
    );
}

#[test]
fn law_4_an_agent_that_claims_a_later_generation_still_gets_its_tombstone() {
    let (mut world, mut agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    let mut leaf = world.leaf(&id);
    leaf.generation.0 = u64::MAX;
    let record = agent.receipt(&leaf, Outcome::Accepted);
    world.report(&agent, vec![record]).unwrap();
    world
        .ask(Command::DeleteDeployment {
            deployment: id.clone(),
        })
        .unwrap();
    world.now += crate::fixture::GRACE_MS;
    world.carry_on();
    assert_eq!(world.leaf(&id).verb, dotmac_protocol::wave::Verb::Remove);
}

#[test]
fn tokens_and_deployments_are_made_once() {
    let (mut world, _, id) = World::with_active();
    assert_eq!(
        world.state.deployments.get(&id).unwrap().status,
        Status::Active
    );
    let second = token(2, Role::Support, None);
    world.ask(Command::CreateToken(second.clone())).unwrap();
    assert_eq!(
        code_of(world.ask(Command::CreateToken(second.clone()))),
        Code::AlreadyExists
    );
    let mut same_secret = token(3, Role::Support, None);
    same_secret.secret_digest = second.secret_digest;
    assert_eq!(
        code_of(world.ask(Command::CreateToken(same_secret))),
        Code::AlreadyExists
    );
    let found = world.state.token_by_secret(second.secret_digest).unwrap();
    assert_eq!(found.0, &token_id(2));
    // Two requests with one name are two tenants.
    assert_ne!(deployment_of(world.ask(create("Demo ISP"))), id);
}
