//! What an agent obeys: the whole table of what makes an intent worthless (law 3).

use dotmac_protocol::{
    codec::{decode, encode},
    digest::Digest,
    ids::{Epoch, TrustVersion},
    keys::Signature,
    time::Window,
    trust::{TRUST_ROOT_DOMAIN, TrustError},
    unit::{Instance, Payload},
    wave::{IntentError, Leaf, SignedIntent, Verb, WAVE_DOMAIN, WaveHeader},
};

use crate::samples::{NOW, agent, instance, intent, key, leaf, payload, trust_root};

fn verify(intent: &SignedIntent) -> Result<(), IntentError> {
    intent.verify(&trust_root(), &agent()).map(|_| ())
}

/// An order with another payload, honestly signed.
fn order(verb: Verb, payload: &Payload) -> SignedIntent {
    let digest = Digest::of(&encode(payload).unwrap());
    intent(
        &Leaf {
            verb,
            payload: digest,
            ..leaf()
        },
        payload,
        &[1, 2],
    )
}

fn signatures(found: usize) -> Result<(), IntentError> {
    let source = TrustError::Signatures {
        role: "controller",
        found,
        needed: 2,
    };
    Err(IntentError::Signatures(source))
}

/// The intent with another header, signed again by two controllers.
fn with_header(change: impl FnOnce(&mut WaveHeader)) -> SignedIntent {
    let mut signed = intent(&leaf(), &payload(), &[1, 2]);
    let mut header: WaveHeader = decode(&signed.header).unwrap();
    change(&mut header);
    signed.header = encode(&header).unwrap();
    let sign = |seed| Signature::make(&key(seed), WAVE_DOMAIN, &signed.header);
    signed.signatures = vec![sign(1), sign(2)];
    signed
}

#[test]
fn law_3_two_of_three_controllers_are_obeyed() {
    for signers in [&[1, 2][..], &[2, 3], &[3, 1], &[1, 2, 3], &[9, 1, 2]] {
        let signed = intent(&leaf(), &payload(), signers);
        let verified = signed.verify(&trust_root(), &agent()).unwrap();
        assert_eq!(verified.leaf(), &leaf());
        assert_eq!(verified.payload(), &payload());
        assert_eq!(verified.leaf_digest(), Digest::of(&signed.leaf));
        assert_eq!(verified.header().number, 9);
    }
}

#[test]
fn law_3_one_controller_is_not_obeyed() {
    for (signers, found) in [
        (&[][..], 0),
        (&[1][..], 1),
        (&[1, 1, 1], 1),
        (&[1, 10, 20], 1),
        (&[10, 20], 0),
        (&[4, 5, 6], 0),
    ] {
        let signed = intent(&leaf(), &payload(), signers);
        assert_eq!(verify(&signed), signatures(found), "{signers:?}");
    }
}

#[test]
fn law_3_a_signature_counts_for_a_wave_alone() {
    let mut signed = intent(&leaf(), &payload(), &[1]);
    let forged = Signature::make(&key(2), TRUST_ROOT_DOMAIN, &signed.header);
    signed.signatures.push(forged);
    assert_eq!(verify(&signed), signatures(1));
    // Nor does one controller's signature count under another's name.
    let mut renamed = intent(&leaf(), &payload(), &[1, 1]);
    renamed.signatures[1].key = dotmac_protocol::keys::PublicKey::of(&key(2)).id();
    assert_eq!(verify(&renamed), signatures(1));
    // The 16 signatures that are looked at may not be padded with worthless ones.
    let mut padded = intent(&leaf(), &payload(), &[[9; 16].as_slice(), &[1, 2]].concat());
    assert_eq!(verify(&padded), signatures(0));
    padded.signatures.rotate_right(2);
    assert_eq!(verify(&padded), Ok(()));
}

#[test]
fn law_3_a_changed_header_is_not_signed() {
    let signed = intent(&leaf(), &payload(), &[1, 2]);
    for place in 0..signed.header.len() {
        let mut changed = signed.clone();
        changed.header[place] ^= 1;
        let refused = verify(&changed);
        // A changed version of the trust root is a claim about keys that are not here yet: no more is believed of it.
        let is_newer = matches!(refused, Err(IntentError::TrustVersion { .. }));
        assert!(
            refused == signatures(0) || is_newer,
            "byte {place}: {refused:?}"
        );
    }
}

#[test]
fn law_3_an_order_for_another_agent_is_not_obeyed() {
    let other = "do-fra1-ffffffff".parse().unwrap();
    let signed = intent(&leaf(), &payload(), &[1, 2]);
    let found = signed.verify(&trust_root(), &other).map(|_| ());
    assert_eq!(found, Err(IntentError::Audience { found: agent() }));
}

#[test]
fn law_3_a_changed_payload_is_not_obeyed() {
    let mut signed = intent(&leaf(), &payload(), &[1, 2]);
    let place = signed.payload.len() / 2;
    signed.payload[place] ^= 1;
    assert_eq!(verify(&signed), Err(IntentError::Payload));
    signed.payload = encode(&Payload::Nothing).unwrap();
    assert_eq!(verify(&signed), Err(IntentError::Payload));
}

#[test]
fn law_3_another_epoch_or_trust_root_is_not_obeyed() {
    let other = Leaf {
        epoch: Epoch(2),
        ..leaf()
    };
    let expected = IntentError::Epoch {
        expected: Epoch(1),
        found: Epoch(2),
    };
    assert_eq!(verify(&intent(&other, &payload(), &[1, 2])), Err(expected));
    for version in [0, 2] {
        let other = Leaf {
            trust_version: TrustVersion(version),
            ..leaf()
        };
        let (held, found) = (TrustVersion(1), TrustVersion(version));
        let expected = IntentError::TrustVersion { held, found };
        assert_eq!(verify(&intent(&other, &payload(), &[1, 2])), Err(expected));
    }
}

#[test]
fn law_3_a_leaf_that_contradicts_its_wave_is_not_obeyed() {
    let longer = Window {
        not_after: NOW.plus_millis(u64::MAX),
        ..leaf().window
    };
    let found = verify(&with_header(|header| header.window = longer));
    assert_eq!(found, Err(IntentError::Header { field: "window" }));
    let mut epochs = trust_root();
    epochs.epoch = Epoch(2);
    let signed = with_header(|header| header.epoch = Epoch(2));
    let found = signed.verify(&epochs, &agent()).map(|_| ());
    assert_eq!(found, Err(IntentError::Header { field: "epoch" }));
    let mut versions = trust_root();
    versions.version = TrustVersion(2);
    let signed = with_header(|header| header.trust_version = TrustVersion(2));
    let found = signed.verify(&versions, &agent()).map(|_| ());
    assert_eq!(
        found,
        Err(IntentError::Header {
            field: "trust_version"
        })
    );
    // A wave that claims a number of leaves with which the path has another form.
    for leaves in [0, 2, 3, 20] {
        let found = verify(&with_header(|header| header.leaves = leaves));
        assert_eq!(found, Err(IntentError::Path), "{leaves}");
    }
}

#[test]
fn law_3_a_verb_and_a_payload_that_contradict_each_other_are_not_obeyed() {
    let of = |change: fn(&mut Instance)| {
        let mut instance = instance();
        change(&mut instance);
        Payload::Instance(Box::new(instance))
    };
    for (verb, payload) in [
        (Verb::Apply, Payload::Nothing),
        (Verb::Remove, payload()),
        (
            Verb::Apply,
            of(|one| one.tenant = "other-isp-00000000".parse().unwrap()),
        ),
        (
            Verb::Apply,
            of(|one| one.deployment = "demo-isp-0190a1b2-staging".parse().unwrap()),
        ),
        (
            Verb::Apply,
            of(|one| one.release = Digest::of(b"another release")),
        ),
        (Verb::Apply, of(|one| one.manifest.push(b' '))),
    ] {
        let signed = order(verb, &payload);
        assert_eq!(
            verify(&signed),
            Err(IntentError::Contradiction),
            "{verb:?} {payload:?}"
        );
    }
    assert_eq!(verify(&order(Verb::Remove, &Payload::Nothing)), Ok(()));
    assert_eq!(verify(&order(Verb::Apply, &payload())), Ok(()));
}

#[test]
fn law_3_parts_that_do_not_parse_are_not_obeyed_even_if_they_are_signed() {
    let mut signed = intent(&leaf(), &payload(), &[]);
    signed.header.push(0);
    let sign = |seed| Signature::make(&key(seed), WAVE_DOMAIN, &signed.header);
    signed.signatures = vec![sign(1), sign(2)];
    assert!(matches!(verify(&signed), Err(IntentError::Decode(_))));
}
