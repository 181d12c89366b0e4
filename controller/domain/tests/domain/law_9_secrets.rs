//! Law 9: no secret in the log. State and facts hold digests and ciphertexts, and the latter no longer than needed.

use dotmac_domain::{Command, audit::Link};
use dotmac_protocol::{
    codec::encode,
    digest::Digest,
    unit::{Sealed, SealedCredential},
};

use crate::fixture::{TestAgent, World, code_of, deployment, deployment_of};

const CIPHERTEXT: &[u8] = b"-ciphertext-canary-";
const BODY: &str = "body-canary";

fn contains(bytes: &[u8], canary: &[u8]) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary)
}

fn credential(agent: &TestAgent) -> SealedCredential {
    let seal_key = agent.enrol(0).seal_key;
    let sealed = Sealed {
        to: Digest::of(&seal_key),
        encapsulated: [7; 32],
        ciphertext: CIPHERTEXT.to_vec(),
    };
    SealedCredential {
        name: "database.url".into(),
        sealed,
    }
}

#[test]
fn law_9_no_secret_in_the_log_outlives_its_instance_even_sealed() {
    let (mut world, mut agent) = World::with_agent();
    let mut create = deployment("Demo ISP");
    create.credentials = vec![credential(&agent)];
    create.sealed_for = Some(agent.id.clone());
    create.custom_config = format!(r#"{{"greeting":"{BODY}"}}"#);
    let id = deployment_of(world.ask(Command::CreateDeployment(Box::new(create))));
    world.make_active(&mut agent, &id);
    assert!(contains(&world.state.to_bytes().unwrap(), CIPHERTEXT));
    world.destroy(&mut agent, &id);
    assert!(!contains(&world.state.to_bytes().unwrap(), CIPHERTEXT));
}

#[test]
fn law_9_audit_and_answers_hold_digests_and_no_bodies() {
    let (mut world, agent) = World::with_agent();
    let mut create = deployment("Demo ISP");
    create.credentials = vec![credential(&agent)];
    create.sealed_for = Some(agent.id.clone());
    create.custom_config = format!(r#"{{"greeting":"{BODY}"}}"#);
    let mut refused = create.clone();
    refused.resource_tier = "gigantic".into();
    for create in [create, refused] {
        let envelope = world.proven(
            crate::fixture::admin(),
            Command::CreateDeployment(Box::new(create)),
        );
        // The first is accepted, the second refused; both are answered and audited.
        let _reply = world.apply(&envelope);
        let answer = world.state.answers.get(&envelope.request).unwrap();
        let replies = dotmac_domain::reply::Replies(vec![answer.reply.clone()]);
        let bytes = encode(&replies).unwrap();
        assert!(!contains(&bytes, CIPHERTEXT) && !contains(&bytes, BODY.as_bytes()));
    }
    let facts = world.facts();
    assert!(facts.iter().any(|fact| matches!(fact.link, Link::Entry(_))));
    for fact in facts {
        let bytes = encode(&fact).unwrap();
        assert!(!contains(&bytes, CIPHERTEXT) && !contains(&bytes, BODY.as_bytes()));
    }
}

#[test]
fn law_9_credentials_are_sealed_to_the_agent_that_gets_them_or_refused() {
    let (mut world, agent) = World::with_agent();
    let other = world.join(41);
    let good = credential(&agent);
    let mut long = good.clone();
    long.sealed.ciphertext = vec![0; 128 * 1024];
    let cases = [
        (vec![good.clone()], None),
        (vec![good.clone()], Some(&other)),
        (vec![], Some(&agent)),
        (vec![good.clone(); 65], Some(&agent)),
        (vec![long], Some(&agent)),
    ];
    for (credentials, sealed_for) in cases {
        let mut create = deployment("Demo ISP");
        create.credentials = credentials;
        create.sealed_for = sealed_for.map(|agent| agent.id.clone());
        let reply = world.ask(Command::CreateDeployment(Box::new(create)));
        assert_eq!(code_of(reply), dotmac_domain::reply::Code::Invalid);
    }
    let mut create = deployment("Demo ISP");
    (create.credentials, create.sealed_for) = (vec![good], Some(agent.id));
    assert!(
        world
            .ask(Command::CreateDeployment(Box::new(create)))
            .is_ok()
    );
}

#[test]
fn law_9_a_sealed_secret_is_not_printed() {
    let agent = TestAgent::new(40);
    assert!(!format!("{:?}", credential(&agent)).contains("canary"));
}
