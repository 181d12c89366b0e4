//! Law 3 where requests are vouched for together: each token and each request counts for itself, at the one who asks and at
//! the witness.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dotmac_domain::{
    Command,
    envelope::{
        ATTESTATION_BATCH_DOMAIN, ATTESTATION_BATCH_MAX, ATTESTATION_DOMAIN, Attestation,
        AttestationBatch, Envelope,
    },
};
use dotmac_protocol::{
    digest::Digest,
    ids::{NodeId, TrustVersion},
    keys::{PublicKey, Signature},
    trust::{ControllerIdentity, Role},
};
use ed25519_dalek::SigningKey;
use futures::future::join_all;

use super::world::{ADMIN, World};
use crate::{
    dispatch::handle_call,
    leader::Liveness,
    node::{Ask, AskError},
    peers::{PeerAnswer, PeerCall, ToAttest},
};

/// Asks for a tenant of this name.
fn asking(world: &World, name: &str) -> Ask {
    Ask {
        request: world.node.entropy.hex(16).parse().unwrap(),
        asked: Digest::of(name.as_bytes()),
        received_at: world.node.clock.now(),
        expected: None,
        trace: None,
        command: Command::CreateTenant {
            name: name.into(),
            reseller: None,
        },
    }
}

fn to_attest(world: &World, name: &str) -> ToAttest {
    let (caller, _) = world.node.authenticate(ADMIN).unwrap();
    let envelope = world.node.envelope(&caller, asking(world, name));
    ToAttest {
        bearer: ADMIN.into(),
        expires_at: envelope.at.plus_millis(30_000),
        envelope,
    }
}

fn leaf(one: &ToAttest) -> Vec<u8> {
    Attestation::of(&one.envelope, one.expires_at).bytes()
}

async fn witness(world: &World, requests: Vec<ToAttest>) -> PeerAnswer {
    let liveness = Liveness::default();
    let call = PeerCall::AttestBatch(requests);
    handle_call(&world.node, &liveness, NodeId(2), call).await
}

#[tokio::test]
async fn law_3_a_witness_vouches_for_a_batch_only_when_every_request_is_good() {
    let world = World::new().await;
    let good = || vec![to_attest(&world, "One"), to_attest(&world, "Two")];
    let batch = good();
    let PeerAnswer::Attested(signature) = witness(&world, batch.clone()).await else {
        panic!("not attested");
    };
    let leaves: Vec<_> = batch.iter().map(leaf).collect();
    let signed = AttestationBatch::of(&leaves).bytes();
    let key = PublicKey::of(&SigningKey::from_bytes(&[1; 32]));
    assert_eq!(
        key.verify(ATTESTATION_BATCH_DOMAIN, &signed, &signature),
        Ok(())
    );
    let mut no_token = good();
    no_token[1].bearer = "dotmac-unknown".into();
    let mut other_actor = good();
    let stranger = "fedcba9876543210".parse().unwrap();
    other_actor[1].envelope.actor = dotmac_domain::envelope::Actor::Person(stranger);
    let mut old = good();
    old[1].envelope.at = old[1].envelope.at.plus_millis(31_000);
    let mut lasting = good();
    lasting[1].expires_at = lasting[1].expires_at.plus_millis(60_000);
    for bad in [no_token, other_actor, old, lasting] {
        match witness(&world, bad).await {
            PeerAnswer::RefusedOf(places) => assert_eq!(places.len(), 1, "{places:?}"),
            other => panic!("{other:?}"),
        }
    }
    let many = vec![to_attest(&world, "One"); ATTESTATION_BATCH_MAX + 1];
    for wrong in [vec![], many] {
        let answer = witness(&world, wrong).await;
        assert!(matches!(answer, PeerAnswer::Refused(_)), "{answer:?}");
    }
    world.stop().await;
}

/// A second controller, which vouches for everything but tenants of one name, and counts what it is asked.
fn second(
    refuses: &'static str,
    calls: &Arc<Mutex<Vec<usize>>>,
) -> crate::api::tests::world::Peers {
    let key = SigningKey::from_bytes(&[4; 32]);
    let calls = Arc::clone(calls);
    let is_bad = move |envelope: &Envelope| match &envelope.command {
        Command::CreateTenant { name, .. } => name == refuses,
        _ => false,
    };
    Box::new(move |call| match call {
        PeerCall::AttestBatch(requests) => {
            calls.lock().unwrap().push(requests.len());
            let places = (0..).zip(&requests);
            let bad = places.filter(|(_, one)| is_bad(&one.envelope));
            let bad: Vec<_> = bad.map(|(place, _)| (place, "no".to_owned())).collect();
            if !bad.is_empty() {
                return PeerAnswer::RefusedOf(bad);
            }
            let leaves: Vec<_> = requests.iter().map(leaf).collect();
            let bytes = AttestationBatch::of(&leaves).bytes();
            PeerAnswer::Attested(Signature::make(&key, ATTESTATION_BATCH_DOMAIN, &bytes))
        }
        PeerCall::Attest {
            envelope,
            expires_at,
            ..
        } => {
            calls.lock().unwrap().push(1);
            if is_bad(&envelope) {
                return PeerAnswer::Refused("no".into());
            }
            let bytes = Attestation::of(&envelope, expires_at).bytes();
            PeerAnswer::Attested(Signature::make(&key, ATTESTATION_DOMAIN, &bytes))
        }
        other => panic!("{other:?}"),
    })
}

/// From now on requests count that the second controller vouches for as well.
fn join_second(world: &World) {
    let [own, other] = [[1; 32], [4; 32]].map(|seed| PublicKey::of(&SigningKey::from_bytes(&seed)));
    world.log.change(|state| {
        let version = TrustVersion(1);
        let mut known = state.trust_roots.get(&version).unwrap().clone();
        known.root.controller = Role {
            threshold: 2,
            keys: vec![own, other],
        };
        known.root.controllers.push(ControllerIdentity {
            node: NodeId(2),
            signing_key: other,
            issuer: Digest::of(&2_u64.to_be_bytes()),
        });
        state.trust = Some(known.root.clone());
        state.trust_roots.insert_mut(version, known);
    });
}

#[tokio::test]
async fn a_controller_of_before_is_asked_for_one_request_at_a_time() {
    let world = World::new().await;
    join_second(&world);
    world.log.change(|state| state.rules = 1);
    let batch = vec![to_attest(&world, "One"), to_attest(&world, "Two")];
    let answer = witness(&world, batch).await;
    assert!(matches!(answer, PeerAnswer::Refused(_)), "{answer:?}");
    let calls = Arc::default();
    *world.log.peers.lock().unwrap() = Some(second("Nobody", &calls));
    let (caller, _) = world.node.authenticate(ADMIN).unwrap();
    let asked = ["One", "Two", "Three"].map(|name| {
        let ask = asking(&world, name);
        world.node.ask(&caller, ask, Duration::from_secs(1))
    });
    for answer in join_all(asked).await {
        assert!(answer.as_ref().is_ok_and(Result::is_ok), "{answer:?}");
    }
    assert_eq!(*calls.lock().unwrap(), [1, 1, 1]);
    world.stop().await;
}

#[tokio::test]
async fn law_3_a_request_that_a_witness_refuses_fails_alone() {
    let world = World::new().await;
    join_second(&world);
    let calls = Arc::default();
    *world.log.peers.lock().unwrap() = Some(second("Bad", &calls));
    let (caller, _) = world.node.authenticate(ADMIN).unwrap();
    let names: Vec<String> = (0..20)
        .map(|n| format!("Good {n}"))
        .chain(["Bad".into()])
        .collect();
    let asked = names.iter().map(|name| {
        let ask = asking(&world, name);
        world.node.ask(&caller, ask, Duration::from_secs(1))
    });
    for (name, answer) in names.iter().zip(join_all(asked).await) {
        match answer {
            // The State's own check of the evidence passed, too.
            Ok(reply) => assert!(reply.is_ok() && name != "Bad", "{name}: {reply:?}"),
            Err(error) => assert!(
                matches!(
                    error,
                    AskError::Attestations {
                        found: 1,
                        needed: 2,
                        ..
                    }
                ) && name == "Bad",
                "{name}: {error}"
            ),
        }
    }
    // All of them together, then all but the bad one, then that one alone.
    assert_eq!(*calls.lock().unwrap(), [21, 20, 1]);
    world.stop().await;
}
