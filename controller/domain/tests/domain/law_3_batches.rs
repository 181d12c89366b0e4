//! Law 3 where controllers vouch for many requests at once: each request still proves itself alone.

use dotmac_domain::{
    Command, Envelope,
    envelope::{Evidence, InBatch},
    reply::Code,
    signer::{EvidenceError, SignRefusal},
};
use dotmac_protocol::{time::Timestamp, trust::TrustError};

use crate::{
    fixture::{World, admin, attest_together, create},
    law_3_signers::{seal_all, signed, unproven},
};

/// An order that rests on this request, and whether it would be signed.
fn sealed_and_signed(honest: &World, envelope: &Envelope) -> Result<(), SignRefusal> {
    let mut world = honest.clone();
    world.apply(envelope).unwrap();
    let wave = seal_all(&mut world);
    signed(&world, wave)
}

#[test]
fn law_3_evidence_in_a_batch_counts_for_the_requests_that_are_in_it() {
    let (mut honest, _) = World::with_agent();
    let names = ["One", "Two", "Three", "Four", "Five"];
    let mut batch = names.map(|name| honest.envelope(admin(), create(name)));
    let expires_at = honest.now + 30_000;
    attest_together(&mut batch, &[1, 2], expires_at);
    for envelope in &batch {
        assert_eq!(sealed_and_signed(&honest, envelope), Ok(()));
    }
    let another = honest.request();
    let place = |envelope: &Envelope| match &envelope.evidence {
        Evidence::AttestedInBatch(place) => (**place).clone(),
        other => panic!("{other:?}"),
    };
    let with = |change: &dyn Fn(&mut Envelope, &mut InBatch)| {
        let mut forged = batch[1].clone();
        let mut changed = place(&forged);
        change(&mut forged, &mut changed);
        forged.evidence = Evidence::AttestedInBatch(Box::new(changed));
        unproven(sealed_and_signed(&honest, &forged))
    };
    let absent = ("deployment", EvidenceError::NotInBatch);
    assert_eq!(with(&|one, _| one.command = create("Forged")), absent);
    assert_eq!(with(&|one, _| one.request = another.clone()), absent);
    assert_eq!(with(&|_, place| place.index = 2), absent);
    assert_eq!(with(&|_, place| place.path = vec![]), absent);
    assert_eq!(
        with(&|_, place| place.expires_at = Timestamp(u64::MAX)),
        absent
    );
    // A tree of its own, with the signatures under the other one.
    let mut own = [batch[1].clone()];
    own[0].command = create("Forged");
    attest_together(&mut own, &[], expires_at);
    let own = place(&own[0]);
    let unsigned = EvidenceError::Attestations(TrustError::Signatures {
        role: "controller",
        found: 0,
        needed: 2,
    });
    let unsigned = ("deployment", unsigned);
    assert_eq!(with(&|_, place| place.batch.leaves = 6), unsigned);
    let moved = with(&|one, place| {
        one.command = create("Forged");
        let signatures = place.signatures.clone();
        *place = InBatch {
            signatures,
            ..own.clone()
        };
    });
    assert_eq!(moved, unsigned);
    let late = Envelope {
        at: Timestamp(expires_at),
        ..batch[1].clone()
    };
    let late = unproven(sealed_and_signed(&honest, &late));
    assert!(matches!(late.1, EvidenceError::Expired { .. }));
}

#[test]
fn law_3_one_controller_alone_attests_no_batch_even_after_the_same_batch_was_good() {
    let (mut honest, _) = World::with_agent();
    let mut good = [create("One"), create("Two")].map(|command| honest.envelope(admin(), command));
    let expires_at = honest.now + 30_000;
    attest_together(&mut good, &[1, 2], expires_at);
    assert_eq!(sealed_and_signed(&honest, &good[0]), Ok(()));
    for signers in [&[1][..], &[1, 1], &[1, 4, 5]] {
        let mut alone = good.clone();
        attest_together(&mut alone, signers, expires_at);
        let (what, error) = unproven(sealed_and_signed(&honest, &alone[0]));
        let expected = TrustError::Signatures {
            role: "controller",
            found: 1,
            needed: 2,
        };
        assert_eq!(
            (what, error),
            ("deployment", EvidenceError::Attestations(expected))
        );
    }
}

#[test]
fn law_3_a_change_of_the_platform_in_a_batch_is_proven_in_apply() {
    let (mut world, _) = World::with_agent();
    let make = |name: &str| Command::CreateTenant {
        name: name.into(),
        reseller: None,
    };
    let mut batch = ["One", "Two"].map(|name| world.envelope(admin(), make(name)));
    attest_together(&mut batch, &[1, 2], world.now + 30_000);
    let mut moved = batch[1].clone();
    moved.command = make("Forged");
    assert_eq!(world.apply(&moved).unwrap_err().code, Code::Forbidden);
    let [first, mut second] = batch;
    assert!(world.apply(&first).is_ok());
    // The refused one took the request's name.
    second.request = world.request();
    assert_eq!(world.apply(&second).unwrap_err().code, Code::Forbidden);
}
