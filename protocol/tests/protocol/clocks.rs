//! What makes a signed clock worthless (law 3).

use dotmac_protocol::{
    clock::{CLOCK_DOMAIN, ClockError, ClockStatement, DesiredLeaf, SignedClock},
    codec::{decode, encode},
    digest::Digest,
    ids::{Epoch, TrustVersion},
    keys::Signature,
    trust::TrustError,
    wave::WAVE_DOMAIN,
};

use crate::samples::{agent, desired_leaf, key, signed_clock, trust_root};

fn verify(clock: &SignedClock) -> Result<Digest, ClockError> {
    clock
        .verify(&trust_root(), &agent())
        .map(|verified| verified.desired())
}

fn signatures(found: usize) -> Result<Digest, ClockError> {
    let (role, needed) = ("timestamp", 2);
    let source = TrustError::Signatures {
        role,
        found,
        needed,
    };
    Err(ClockError::Signatures(source))
}

/// The clock with another statement, signed again by two controllers.
fn with_statement(change: impl FnOnce(&mut ClockStatement)) -> SignedClock {
    let mut clock = signed_clock(&desired_leaf(), &[]);
    let mut statement: ClockStatement = decode(&clock.body).unwrap();
    change(&mut statement);
    clock.body = encode(&statement).unwrap();
    clock.signatures = [1, 2]
        .map(|seed| Signature::make(&key(seed), CLOCK_DOMAIN, &clock.body))
        .to_vec();
    clock
}

#[test]
fn law_3_two_of_three_timestamp_keys_are_believed() {
    for signers in [&[1, 2][..], &[2, 3], &[3, 1], &[9, 1, 2]] {
        let clock = signed_clock(&desired_leaf(), signers);
        let verified = clock.verify(&trust_root(), &agent()).unwrap();
        assert_eq!(verified.desired(), desired_leaf().desired);
        assert_eq!(verified.statement().number, 12);
    }
}

#[test]
fn law_3_one_timestamp_signature_does_not_count() {
    for (signers, found) in [
        (&[][..], 0),
        (&[1][..], 1),
        (&[1, 1, 1], 1),
        (&[1, 9, 20], 1),
    ] {
        let clock = signed_clock(&desired_leaf(), signers);
        assert_eq!(verify(&clock), signatures(found), "{signers:?}");
    }
}

#[test]
fn law_3_only_the_timestamp_role_signs_clocks_and_only_under_their_own_domain() {
    let mut trust = trust_root();
    trust.timestamp.keys.remove(0);
    let clock = signed_clock(&desired_leaf(), &[1, 2]);
    let believed = clock.verify(&trust, &agent()).map(|one| one.desired());
    assert_eq!(believed, signatures(1));
    let mut clock = signed_clock(&desired_leaf(), &[]);
    clock.signatures = [1, 2]
        .map(|seed| Signature::make(&key(seed), WAVE_DOMAIN, &clock.body))
        .to_vec();
    assert_eq!(verify(&clock), signatures(0));
}

#[test]
fn law_3_a_changed_statement_or_leaf_is_not_believed() {
    let mut later = signed_clock(&desired_leaf(), &[1, 2]);
    let mut statement: ClockStatement = decode(&later.body).unwrap();
    statement.at = statement.at.plus_millis(1);
    later.body = encode(&statement).unwrap();
    assert_eq!(verify(&later), signatures(0));
    let mut swapped = signed_clock(&desired_leaf(), &[1, 2]);
    swapped.leaf = DesiredLeaf {
        desired: Digest::of(b"less"),
        ..desired_leaf()
    }
    .bytes();
    assert_eq!(verify(&swapped), Err(ClockError::Path));
    let mut moved = signed_clock(&desired_leaf(), &[1, 2]);
    moved.index = 0;
    assert_eq!(verify(&moved), Err(ClockError::Path));
}

#[test]
fn law_3_a_clock_for_another_agent_epoch_or_trust_root_is_not_believed() {
    let stranger = DesiredLeaf {
        agent: "do-fra1-ffffffff".parse().unwrap(),
        ..desired_leaf()
    };
    let found = stranger.agent.clone();
    let clock = signed_clock(&stranger, &[1, 2]);
    assert_eq!(verify(&clock), Err(ClockError::Audience { found }));
    let (expected, found) = (Epoch(1), Epoch(2));
    let clock = with_statement(|statement| statement.epoch = found);
    assert_eq!(verify(&clock), Err(ClockError::Epoch { expected, found }));
    let (held, found) = (TrustVersion(1), TrustVersion(2));
    let clock = with_statement(|statement| statement.trust_version = found);
    let error = ClockError::TrustVersion { held, found };
    assert_eq!(verify(&clock), Err(error));
}
