//! Commands, actors, evidence and events of every kind, with the values that break things.

use std::collections::BTreeMap;

use dotmac_domain::{
    Command,
    command::{CreateDeployment, CreateJoinToken, CustomResources, EnrolAgent, UpdateDeployment},
    envelope::{Actor, AttestationBatch, Evidence, InBatch},
    fleet::Presence,
};
use dotmac_protocol::{
    digest::Digest,
    ids::{
        AgentId, DeploymentId, Generation, NodeId, RegionId, Sequence, TenantId, TokenId, UnitId,
    },
    keys::{KeyId, PublicKey, Signature},
    record::{Event, Health, HealthStatus, Hop, Limits, Outcome, Receipt},
    time::Timestamp,
    unit::{Resources, Sealed, SealedCredential},
};
use proptest::{prelude::*, sample::select};

use crate::fixture::{MANIFEST, TestAgent, genesis, token_id};

/// Texts that break things: empty, long, control characters, half of every alphabet.
pub(super) fn text() -> BoxedStrategy<String> {
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

pub(super) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        any::<u64>()
    ]
}

pub(super) fn small() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 100..1_000_u32, Just(u32::MAX)]
}

pub(super) fn token() -> impl Strategy<Value = TokenId> {
    select(vec![
        token_id(1),
        token_id(2),
        token_id(3),
        token_id(0x1000 + 40),
        token_id(u64::MAX),
    ])
}

pub(super) fn tenant() -> impl Strategy<Value = TenantId> {
    prop_oneof![
        Just("nobody-00000000".parse().unwrap()),
        Just(known_tenant()),
        "[a-z]{1,28}-[0-9a-f]{8}".prop_map(|text| text.parse().unwrap()),
    ]
}

pub(super) fn deployment() -> impl Strategy<Value = DeploymentId> {
    prop_oneof![
        tenant().prop_map(|tenant| DeploymentId::first_of(&tenant)),
        tenant().prop_map(|tenant| DeploymentId::further_of(&tenant, "staging").unwrap()),
    ]
}

pub(super) fn agent() -> impl Strategy<Value = AgentId> {
    prop_oneof![
        Just(TestAgent::new(40).id),
        "[a-z]{63}".prop_map(|text| text.parse().unwrap())
    ]
}

pub(super) fn region() -> impl Strategy<Value = RegionId> {
    select(vec!["lab-1", "lab-2", "mars"]).prop_map(|text| text.parse().unwrap())
}

pub(super) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn signature() -> impl Strategy<Value = Signature> {
    (digest(), any::<[[u8; 32]; 2]>()).prop_map(|(key, halves)| Signature {
        key: KeyId(key),
        halves,
    })
}

pub(super) fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        4 => Just(Actor::Person(token_id(1))),
        1 => token().prop_map(Actor::Person),
        2 => agent().prop_map(Actor::Agent),
        3 => Just(Actor::Planner),
        1 => Just(Actor::Founder),
    ]
}

pub(super) fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(Evidence::None),
        (number(), prop::collection::vec(signature(), 0..40)).prop_map(|(at, signatures)| {
            Evidence::Attested {
                expires_at: Timestamp(at),
                signatures,
            }
        }),
        (text(), signature()).prop_map(|(base, signature)| {
            Evidence::RequestSigned {
                signature_base: base.into_bytes(),
                signature,
            }
        }),
        in_batch().prop_map(|place| Evidence::AttestedInBatch(Box::new(place))),
    ]
}

fn in_batch() -> impl Strategy<Value = InBatch> {
    let digest = || any::<[u8; 32]>().prop_map(Digest::from_bytes);
    (
        (number(), digest(), any::<u32>(), any::<u32>()),
        prop::collection::vec(digest(), 0..40),
        prop::collection::vec(signature(), 0..40),
    )
        .prop_map(|((at, root, leaves, index), path, signatures)| InBatch {
            expires_at: Timestamp(at),
            batch: AttestationBatch { root, leaves },
            index,
            path,
            signatures,
        })
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
                let sealed = Sealed {
                    to,
                    encapsulated: [0; 32],
                    ciphertext: text.into_bytes(),
                };
                SealedCredential { name, sealed }
            };
            Command::CreateDeployment(Box::new(CreateDeployment {
                tenant_name: labels.0,
                tenant: options.0,
                environment: labels.1,
                region: options.1,
                domain_name: options.2,
                resource_tier: labels.2,
                resources: is_custom.then_some(CustomResources {
                    resources,
                    max_replicas: 3,
                }),
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
                create.resources = Some(CustomResources {
                    resources,
                    max_replicas: 50,
                });
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
        text().prop_map(|by| Outcome::Applied {
            limits: Limits::Enforced { by }
        }),
        text().prop_map(|reason| Outcome::Applied {
            limits: Limits::NotEnforced { reason }
        }),
    ]
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let hops = || {
        let hop = (text(), number()).prop_map(|(station, at)| Hop {
            station,
            at: Timestamp(at),
        });
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
        (number(), number(), outcome(), hops()).prop_map(
            |(generation, sequence, outcome, hops)| {
                let (generation, sequence) = (Generation(generation), Sequence(sequence));
                Event::Receipt(Receipt {
                    leaf: Digest::ZERO,
                    generation,
                    sequence,
                    outcome,
                    hops,
                })
            }
        ),
        (number(), statuses, text(), hops()).prop_map(|(generation, status, reason, hops)| {
            let generation = Generation(generation);
            Event::Health(Health {
                generation,
                status,
                reason,
                components: vec![],
                hops,
            })
        }),
        (text(), text()).prop_map(|(action, detail)| Event::Audit { action, detail }),
        prop::collection::vec(super::licenses::report(), 0..6).prop_map(Event::Reports),
    ]
}

/// An update with anything in it.
fn update() -> impl Strategy<Value = Command> {
    let texts = prop::array::uniform4(proptest::option::of(text()));
    let bounds = prop::array::uniform2(proptest::option::of(any::<u16>()));
    let switches = prop::collection::btree_map(text(), proptest::option::of(any::<bool>()), 0..3);
    (deployment(), texts, bounds, proptest::option::of(switches)).prop_map(
        |(deployment, [resource_tier, license_tier, image_tag, domain_name], bounds, features)| {
            Command::UpdateDeployment(Box::new(UpdateDeployment {
                deployment,
                resource_tier,
                resources: None,
                license_tier,
                image_tag,
                min_replicas: bounds[0],
                max_replicas: bounds[1],
                domain_name,
                features,
            }))
        },
    )
}

pub(super) fn command() -> impl Strategy<Value = Command> {
    let presence = prop_oneof![
        Just(Presence::Unknown),
        number().prop_map(|at| Presence::Disconnected {
            since: Timestamp(at)
        }),
        (text(), number()).prop_map(|(software, at)| {
            Presence::Connected {
                node: NodeId(at),
                software,
                since: Timestamp(at),
            }
        }),
    ];
    let unit = (agent(), deployment()).prop_map(|(agent, id)| (agent, UnitId::instance(&id)));
    let enrol = (token(), any::<[u8; 32]>(), region(), number());
    prop_oneof![
        1 => Just(Command::Found(Box::new(genesis()))),
        4 => create(),
        4 => nearly_right(),
        8 => super::platform::command(),
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
        2 => update(),
        1 => (deployment(), any::<u16>(), text()).prop_map(|(deployment, replicas, reason)| {
            Command::ScaleDeployment { deployment, replicas, reason }
        }),
        1 => deployment().prop_map(|deployment| Command::RestartDeployment { deployment }),
        1 => (deployment(), text())
            .prop_map(|(deployment, reason)| Command::SuspendDeployment { deployment, reason }),
        1 => deployment().prop_map(|deployment| Command::ResumeDeployment { deployment }),
        1 => deployment().prop_map(|deployment| Command::RollbackDeployment { deployment }),
        3 => super::licenses::command(),
        1 => deployment().prop_map(|deployment| Command::RemoveDeployment { deployment }),
        1 => deployment().prop_map(|deployment| Command::ForgetDeployment { deployment }),
        2 => prop::collection::vec(unit, 0..4).prop_map(|orders| Command::SealWave { orders }),
        1 => (token(), digest(), region(), number()).prop_map(|(id, secret_digest, region, at)| {
            let expires_at = Timestamp(at);
            Command::CreateJoinToken(CreateJoinToken { id, secret_digest, region, expires_at })
        }),
        1 => enrol.prop_map(|(token, bytes, region, at)| Command::EnrolAgent(EnrolAgent {
            token,
            proof: Digest::of(&(0x1000_u64 + 40).to_be_bytes()),
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
    let (world, _, id) = super::base();
    world.state.deployments.get(&id).unwrap().tenant.clone()
}
