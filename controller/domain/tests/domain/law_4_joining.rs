//! Law 4: one agent is worth one agent. What a join token admits, and which certificates count.

use dotmac_domain::{Accepted, Command, Reply, command::EnrolAgent, envelope::Actor, reply::Code};
use dotmac_protocol::{digest::Digest, time::Timestamp};

use crate::fixture::{HOUR_MS, START, TestAgent, World, admin, code_of, join_token};

const TOKEN: u64 = 5;

fn with_token() -> (World, TestAgent) {
    let mut world = World::founded();
    world
        .ask(Command::CreateJoinToken(join_token(TOKEN)))
        .unwrap();
    (world, TestAgent::new(40))
}

fn enrol(world: &mut World, agent: &TestAgent, enrol: EnrolAgent) -> Reply {
    let actor = Actor::Agent(agent.id.clone());
    let envelope = world.envelope(actor, Command::EnrolAgent(enrol));
    world.apply(&envelope)
}

#[test]
fn law_4_a_join_token_counts_with_its_secret_in_its_region_and_in_its_time_alone() {
    let (world, agent) = with_token();
    let right = agent.enrol(TOKEN);
    let wrong_secret = EnrolAgent {
        proof: Digest::of(b"guessed"),
        ..right.clone()
    };
    let other_region = EnrolAgent {
        region: "lab-2".parse().unwrap(),
        ..right.clone()
    };
    // Whoever reads the log, a controller too, knows the digest of an unused token, and nothing that makes it count.
    let from_the_log = EnrolAgent {
        proof: join_token(TOKEN).secret_digest,
        ..right.clone()
    };
    let unknown = agent.enrol(TOKEN + 1);
    for wrong in [wrong_secret, from_the_log, other_region, unknown] {
        let mut world = world.clone();
        let reply = enrol(&mut world, &agent, wrong);
        assert_eq!(code_of(reply), Code::JoinTokenRefused);
        assert!(world.state.agents.is_empty());
    }
    let mut late = world.clone();
    late.now = START + HOUR_MS;
    let reply = enrol(&mut late, &agent, right.clone());
    assert_eq!(code_of(reply), Code::JoinTokenRefused);
    let mut in_time = world;
    in_time.now = START + HOUR_MS - 1;
    let reply = enrol(&mut in_time, &agent, right);
    assert_eq!(reply, Ok(Accepted::Agent(agent.id)));
}

#[test]
fn law_4_an_agent_joins_for_itself_alone() {
    let (mut world, agent) = with_token();
    let other = TestAgent::new(41);
    for actor in [
        admin(),
        Actor::Planner,
        Actor::Founder,
        Actor::Agent(other.id),
    ] {
        let envelope = world.envelope(actor, Command::EnrolAgent(agent.enrol(TOKEN)));
        assert_eq!(code_of(world.apply(&envelope)), Code::JoinTokenRefused);
    }
    assert!(world.state.agents.is_empty());
}

#[test]
fn law_4_a_known_agents_keys_are_not_replaced_by_joining_again() {
    let (mut world, agent) = with_token();
    enrol(&mut world, &agent, agent.enrol(TOKEN)).unwrap();
    let agents = world.state.agents.clone();
    world
        .ask(Command::CreateJoinToken(join_token(TOKEN + 1)))
        .unwrap();
    for token in [TOKEN, TOKEN + 1] {
        let mut stolen = agent.enrol(token);
        stolen.seal_key = [6; 32];
        assert_eq!(
            code_of(enrol(&mut world, &agent, stolen)),
            Code::JoinTokenRefused
        );
        let mut stolen = agent.enrol(token);
        stolen.key = Digest::of(b"another certificate");
        assert_eq!(
            code_of(enrol(&mut world, &agent, stolen)),
            Code::JoinTokenRefused
        );
    }
    assert_eq!(world.state.agents, agents);
}

#[test]
fn law_4_only_the_newest_certificate_of_an_agent_and_the_one_before_are_admitted() {
    let (mut world, agent) = World::with_agent();
    let first = agent.enrol(0).key;
    let renew = |world: &mut World, key: Digest| {
        let not_after = Timestamp(world.now + HOUR_MS);
        let command = Command::RenewCertificate { key, not_after };
        let envelope = world.envelope(Actor::Agent(agent.id.clone()), command);
        world.apply(&envelope).unwrap();
    };
    let (second, third) = (Digest::of(b"second"), Digest::of(b"third"));
    assert!(world.state.admits(&agent.id, first) && !world.state.admits(&agent.id, second));
    renew(&mut world, second);
    assert!(world.state.admits(&agent.id, first) && world.state.admits(&agent.id, second));
    // A renewal that is repeated pushes nothing out.
    renew(&mut world, second);
    assert!(world.state.admits(&agent.id, first));
    renew(&mut world, third);
    assert!(!world.state.admits(&agent.id, first) && world.state.admits(&agent.id, second));
    let other = world.join(41);
    assert!(!world.state.admits(&other.id, third));
    let stranger = Actor::Agent("lab-1-ffffffff".parse().unwrap());
    let not_after = Timestamp(world.now);
    for (actor, code) in [(stranger, Code::NotFound), (admin(), Code::Forbidden)] {
        let command = Command::RenewCertificate {
            key: third,
            not_after,
        };
        let envelope = world.envelope(actor, command);
        assert_eq!(code_of(world.apply(&envelope)), code);
    }
}
