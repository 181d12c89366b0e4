//! Whatever is in the log, apply gives an answer: it neither panics nor leaves anything behind a rejection but its
//! audit entry and its answer.

use std::collections::BTreeMap;

use dotmac_domain::{
    Command, State,
    access::Role,
    command::{CreateDeployment, CreateJoinToken, CreateToken, CustomResources, EnrolAgent},
    envelope::{Actor, Evidence},
    fleet::Presence,
    signer::check,
};
use dotmac_protocol::{
    codec::encode,
    digest::Digest,
    ids::{AgentId, DeploymentId, Generation, NodeId, RegionId, Sequence, TenantId, TokenId, UnitId},
    keys::{KeyId, PublicKey, Signature},
    record::{Event, Health, HealthStatus, Hop, Limits, Outcome, Receipt},
    time::Timestamp,
    unit::{Resources, Sealed, SealedCredential},
};
use proptest::{prelude::*, sample::select};

use crate::fixture::{MANIFEST, TestAgent, World, genesis, token_id};

/// Texts that break things: empty, long, control characters, half of every alphabet.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        8 => ".{0,40}",
        2 => "[\\x00-\\x1f\\u{7f}-\\u{9f}]{0,64}",
        2 => select(vec!["Demo ISP", "production", "staging", "small", "custom", "basic", "{}", "lab-1"])
            .prop_map(String::from),
        1 => (1..20_000_usize).prop_map(|count| "\u{1}".repeat(count)),
        1 => (1..20_000_usize).prop_map(|count| "é".repeat(count)),
        1 => (1..60_000_usize).prop_map(|count| "[".repeat(count)),
    ]
    .boxed()
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 100..1_000_u32, Just(u32::MAX)]
}

fn token() -> impl Strategy<Value = TokenId> {
    select(vec![token_id(1), token_id(2), token_id(3), token_id(0x1000 + 40), token_id(u64::MAX)])
}

fn tenant() -> impl Strategy<Value = TenantId> {
    prop_oneof![
        Just("nobody-00000000".parse().unwrap()),
        Just(known_tenant()),
        "[a-z]{1,28}-[0-9a-f]{8}".prop_map(|text| text.parse().unwrap()),
    ]
}

fn deployment() -> impl Strategy<Value = DeploymentId> {
    prop_oneof![
        tenant().prop_map(|tenant| DeploymentId::first_of(&tenant)),
        tenant().prop_map(|tenant| DeploymentId::further_of(&tenant, "staging").unwrap()),
    ]
}

fn agent() -> impl Strategy<Value = AgentId> {
    prop_oneof![Just(TestAgent::new(40).id), "[a-z]{63}".prop_map(|text| text.parse().unwrap())]
}

fn region() -> impl Strategy<Value = RegionId> {
    select(vec!["lab-1", "lab-2", "mars"]).prop_map(|text| text.parse().unwrap())
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn signature() -> impl Strategy<Value = Signature> {
    (digest(), any::<[[u8; 32]; 2]>()).prop_map(|(key, halves)| Signature { key: KeyId(key), halves })
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        4 => Just(Actor::Person(token_id(1))),
        1 => token().prop_map(Actor::Person),
        2 => agent().prop_map(Actor::Agent),
        3 => Just(Actor::Planner),
        1 => Just(Actor::Founder),
    ]
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(Evidence::None),
        (number(), prop::collection::vec(signature(), 0..40)).prop_map(|(at, signatures)| {
            Evidence::Attested { expires_at: Timestamp(at), signatures }
        }),
        (text(), signature()).prop_map(|(base, signature)| {
            Evidence::RequestSigned { signature_base: base.into_bytes(), signature }
        }),
    ]
}

fn create() -> impl Strategy<Value = Command> {
    let labels = (text(), text(), text(), text(), text());
    let options = (
        proptest::option::of(tenant()),
        proptest::option::of(region()),
        proptest::option::of(text()),
        proptest::option::of(text()),
        proptest::option::of(agent()),
    );
    let numbers = (small(), small(), small(), number(), number());
    let features = prop::collection::btree_map(text(), any::<bool>(), 0..4);
    let credentials = prop::collection::vec((text(), text(), digest()), 0..4);
    (labels, options, numbers, features, credentials).prop_map(
        |(labels, options, numbers, features, credentials)| {
            let resources = Resources {
                cpu_request_millis: numbers.0,
                cpu_limit_millis: numbers.1,
                memory_request_bytes: numbers.3,
                memory_limit_bytes: numbers.4,
                storage_bytes: numbers.3,
            };
            let is_custom = labels.2 == "custom";
            let seal = |(name, text, to): (String, String, Digest)| {
                let sealed = Sealed { to, encapsulated: [0; 32], ciphertext: text.into_bytes() };
                SealedCredential { name, sealed }
            };
            Command::CreateDeployment(Box::new(CreateDeployment {
                tenant_name: labels.0,
                tenant: options.0,
                environment: labels.1,
                region: options.1,
                domain_name: options.2,
                resource_tier: labels.2,
                resources: is_custom.then_some(CustomResources { resources, max_replicas: 3 }),
                license_tier: labels.3,
                image_tag: None,
                cluster_name: options.3,
                max_customers: numbers.0,
                max_services: numbers.1,
                api_rate_limit: numbers.2,
                features,
                custom_config: labels.4,
                credentials: credentials.into_iter().map(seal).collect(),
                sealed_for: options.4,
                reseller: None,
            }))
        },
    )
}

/// A request that is accepted unless something else is in its way, with one field changed at most.
fn nearly_right() -> impl Strategy<Value = Command> {
    (0..6_u8, text(), number()).prop_map(|(field, text, number)| {
        let mut create = crate::fixture::deployment("Demo ISP");
        match field {
            0 => create.tenant_name = text,
            1 => create.custom_config = format!("{{\"a\":{text:?}}}"),
            2 => create.features = BTreeMap::from([(text, true)]),
            3 => create.domain_name = Some(format!("a.{text}")),
            4 => {
                create.resource_tier = "custom".into();
                let resources = Resources {
                    cpu_request_millis: 1,
                    cpu_limit_millis: u32::MAX,
                    memory_request_bytes: 1,
                    memory_limit_bytes: number.max(1),
                    storage_bytes: number.max(1),
                };
                create.resources = Some(CustomResources { resources, max_replicas: 50 });
            }
            _ => {}
        }
        Command::CreateDeployment(Box::new(create))
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Accepted),
        Just(Outcome::Removed),
        text().prop_map(|reason| Outcome::Refused { reason }),
        text().prop_map(|reason| Outcome::Failing { reason }),
        text().prop_map(|by| Outcome::Applied { limits: Limits::Enforced { by } }),
        text().prop_map(|reason| Outcome::Applied { limits: Limits::NotEnforced { reason } }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let hops = || {
        let hop = (text(), number()).prop_map(|(station, at)| Hop { station, at: Timestamp(at) });
        prop::collection::vec(hop, 0..3)
    };
    let statuses = select(vec![
        HealthStatus::Unknown,
        HealthStatus::Starting,
        HealthStatus::Healthy,
        HealthStatus::Degraded,
        HealthStatus::Failed,
        HealthStatus::Stopped,
    ]);
    prop_oneof![
        (number(), number(), outcome(), hops()).prop_map(|(generation, sequence, outcome, hops)| {
            let (generation, sequence) = (Generation(generation), Sequence(sequence));
            Event::Receipt(Receipt { leaf: Digest::ZERO, generation, sequence, outcome, hops })
        }),
        (number(), statuses, text(), hops()).prop_map(|(generation, status, reason, hops)| {
            let generation = Generation(generation);
            Event::Health(Health { generation, status, reason, components: vec![], hops })
        }),
        (text(), text()).prop_map(|(action, detail)| Event::Audit { action, detail }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let role = select(vec![
        Role::PlatformAdmin,
        Role::TenantAdmin,
        Role::TenantUser,
        Role::Reseller,
        Role::Support,
        Role::Auditor,
    ]);
    let presence = prop_oneof![
        Just(Presence::Unknown),
        number().prop_map(|at| Presence::Disconnected { since: Timestamp(at) }),
        (text(), number()).prop_map(|(software, at)| {
            Presence::Connected { node: NodeId(at), software, since: Timestamp(at) }
        }),
    ];
    let unit = (agent(), deployment()).prop_map(|(agent, id)| (agent, UnitId::instance(&id)));
    let enrol = (token(), any::<[u8; 32]>(), region(), number());
    prop_oneof![
        1 => Just(Command::Found(Box::new(genesis()))),
        4 => create(),
        4 => nearly_right(),
        2 => (token(), digest(), text(), role, proptest::option::of(tenant())).prop_map(
            |(id, secret_digest, name, role, tenant)| {
                Command::CreateToken(CreateToken { id, secret_digest, name, role, tenant })
            }
        ),
        2 => text().prop_map(|text| Command::AddRelease { manifest: text.into_bytes() }),
        2 => text().prop_map(|text| {
            let manifest = MANIFEST.replace("demo-isp\",", &format!("demo-isp\",\"description\":{text:?},"));
            Command::AddRelease { manifest: manifest.into_bytes() }
        }),
        1 => Just(Command::RetireRelease {
            name: "demo-isp".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
        }),
        1 => deployment().prop_map(|deployment| Command::DeleteDeployment { deployment }),
        1 => deployment().prop_map(|deployment| Command::UndeleteDeployment { deployment }),
        1 => deployment().prop_map(|deployment| Command::RemoveDeployment { deployment }),
        1 => deployment().prop_map(|deployment| Command::ForgetDeployment { deployment }),
        2 => prop::collection::vec(unit, 0..4).prop_map(|orders| Command::SealWave { orders }),
        1 => (token(), digest(), region(), number()).prop_map(|(id, secret_digest, region, at)| {
            let expires_at = Timestamp(at);
            Command::CreateJoinToken(CreateJoinToken { id, secret_digest, region, expires_at })
        }),
        1 => enrol.prop_map(|(token, bytes, region, at)| Command::EnrolAgent(EnrolAgent {
            token,
            secret_digest: Digest::of(&(0x1000_u64 + 40).to_be_bytes()),
            region,
            incarnation: "ab".repeat(16).parse().unwrap(),
            identity: PublicKey(bytes),
            seal_key: bytes,
            key: Digest::of(&bytes),
            not_after: Timestamp(at),
        })),
        1 => (digest(), number()).prop_map(|(key, at)| {
            Command::RenewCertificate { key, not_after: Timestamp(at) }
        }),
        1 => prop::collection::vec((agent(), presence), 0..3)
            .prop_map(|changes| Command::NotePresence { changes }),
        1 => (text(), proptest::option::of(tenant()), text()).prop_map(|(action, tenant, detail)| {
            Command::NoteAccess { action, tenant, detail }
        }),
    ]
}

/// The tenant of the deployment that [`base`] has.
fn known_tenant() -> TenantId {
    let (world, _, id) = base();
    world.state.deployments.get(&id).unwrap().tenant.clone()
}

fn base() -> (World, TestAgent, DeploymentId) {
    use std::sync::OnceLock;
    static BASE: OnceLock<(World, TestAgent, DeploymentId)> = OnceLock::new();
    BASE.get_or_init(World::with_active).clone()
}

/// All but what a rejection may leave behind: the clock, the audit entry, the answer.
fn without_traces(state: &State) -> State {
    let none = State::default();
    State {
        now: none.now,
        streams: none.streams,
        answers: none.answers,
        answer_order: none.answer_order,
        ..state.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn apply_is_total_and_a_rejection_leaves_only_its_audit_entry_and_its_answer(
        entries in prop::collection::vec((command(), actor(), evidence(), number()), 1..12)
    ) {
        let (mut world, _, _) = base();
        for (command, actor, evidence, at) in entries {
            let mut envelope = world.envelope(actor, command);
            envelope.evidence = evidence;
            if at % 4 == 0 {
                envelope.at = Timestamp(at);
            }
            if encode(&envelope).is_err() {
                // It is too large for the log.
                continue;
            }
            let before = without_traces(&world.state);
            let reply = world.apply(&envelope);
            if reply.is_err() {
                prop_assert_eq!(without_traces(&world.state), before);
                prop_assert!(world.applied.last().unwrap().facts.len() <= 1);
            }
            for number in world.state.waves.keys() {
                // The signers' checks are total as well.
                let _signed = check(&world.state, *number, world.state.now);
            }
            let planned = dotmac_domain::plan::plan(&world.state, world.state.now);
            prop_assert!(planned.len() <= dotmac_domain::plan::PLAN_COMMANDS_MAX);
            for fact in &world.applied.last().unwrap().facts {
                prop_assert!(encode(fact).is_ok());
            }
        }
        let bytes = world.state.to_bytes().unwrap();
        prop_assert_eq!(State::from_bytes(&bytes), Ok(world.state));
    }

    #[test]
    fn apply_is_total_whatever_an_agent_says_under_its_own_key(
        events in prop::collection::vec((event(), any::<bool>()), 1..8)
    ) {
        let (mut world, mut agent, id) = base();
        let unit = UnitId::instance(&id);
        for (event, is_about_unit) in events {
            let unit = is_about_unit.then_some(&unit);
            if encode(&event_sized(&agent, &event)).is_err() {
                continue;
            }
            let record = agent.record(unit, event);
            prop_assert!(world.report(&agent, vec![record]).is_ok());
            for fact in &world.applied.last().unwrap().facts {
                prop_assert!(encode(fact).is_ok());
            }
        }
        let bytes = world.state.to_bytes().unwrap();
        prop_assert_eq!(State::from_bytes(&bytes), Ok(world.state));
    }
}

/// A record as large as the one that will be signed, to leave out those beyond the limit.
fn event_sized(agent: &TestAgent, event: &Event) -> dotmac_protocol::record::Record {
    dotmac_protocol::record::Record {
        agent: agent.id.clone(),
        incarnation: agent.incarnation.clone(),
        sequence: u64::MAX,
        previous: Digest::ZERO,
        at: Timestamp(u64::MAX),
        tenant: None,
        unit: Some(UnitId::instance(&"a".repeat(49).parse().unwrap())),
        request: None,
        event: event.clone(),
    }
}

#[test]
fn nothing_is_accepted_before_the_founding_and_the_founding_only_once() {
    let (world, _, _) = base();
    for envelope in &world.log[1..] {
        let mut state = State::default();
        let applied = state.apply(envelope);
        assert_eq!(applied.reply.unwrap_err().code, dotmac_domain::reply::Code::NotFounded);
    }
    let mut world = World::founded();
    let founded = world.state.clone();
    let again = world.envelope(Actor::Founder, Command::Found(Box::new(genesis())));
    assert!(world.apply(&again).is_ok());
    assert_eq!(world.state, founded);
    let mut other = genesis();
    other.grace_ms = 0;
    let other = world.envelope(Actor::Founder, Command::Found(Box::new(other)));
    assert!(world.apply(&other).is_err());
    assert_eq!(world.state, founded);
}

#[test]
fn a_founding_whose_trust_root_is_not_signed_is_refused() {
    let mut unsigned = genesis();
    unsigned.trust_root.signatures.clear();
    let mut state = State::default();
    let mut world = World::founded();
    let envelope = world.envelope(Actor::Founder, Command::Found(Box::new(unsigned)));
    assert!(state.apply(&envelope).reply.is_err());
    assert_eq!(state.genesis, None);
}

#[test]
fn an_agent_that_writes_nothing_but_control_characters_is_recorded() {
    let (mut world, mut agent, id) = base();
    let leaf_unit = UnitId::instance(&id);
    let unit = world.state.units.get(&(agent.id.clone(), leaf_unit)).unwrap().clone();
    let leaf = world.leaf_like(&id, &unit);
    let limits = Limits::NotEnforced { reason: "\u{1}".repeat(15 * 1024) };
    let record = agent.receipt(&leaf, Outcome::Applied { limits });
    assert!(world.report(&agent, vec![record]).is_ok());
}
