//! Hostile bytes: a decoder gives a value or an error, never a panic, and no allocation beyond its limit.

use dotmac_protocol::{
    clock::{ClockStatement, DesiredLeaf, SignedClock},
    codec::{Format, decode, encode, encoded_len},
    frame::{
        AgentFrame, Answer, ControllerFrame, Delivery, EnrolGreeting, EnrolReply, EnrolRequest,
        JoinToken, Question, Report,
    },
    line,
    record::{ChainHead, Event, Record, SignedRecord},
    release::Manifest,
    trust::{SignedTrustRoot, TrustRoot},
    unit::Payload,
    wave::{Leaf, SignedIntent, WaveHeader},
};
use proptest::prelude::*;

use crate::samples::{
    agent, desired_leaf, intent, key, leaf, payload, signed_clock, signed_record,
    signed_trust_root, trust_root,
};

/// A value that was read is written as it was read, so that no two texts pass for one value.
fn read<T: Format>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = decode::<T>(bytes) {
        let again = encode(&value);
        prop_assert!(again.is_ok(), "{} was read and cannot be written", T::KIND);
    }
    Ok(())
}

fn read_as_everything(bytes: &[u8]) -> Result<(), TestCaseError> {
    read::<Leaf>(bytes)?;
    read::<WaveHeader>(bytes)?;
    read::<SignedIntent>(bytes)?;
    read::<ClockStatement>(bytes)?;
    read::<DesiredLeaf>(bytes)?;
    read::<SignedClock>(bytes)?;
    read::<Payload>(bytes)?;
    read::<TrustRoot>(bytes)?;
    read::<SignedTrustRoot>(bytes)?;
    read::<Record>(bytes)?;
    read::<SignedRecord>(bytes)?;
    read::<AgentFrame>(bytes)?;
    read::<ControllerFrame>(bytes)?;
    read::<Delivery>(bytes)?;
    read::<Report>(bytes)?;
    read::<Question>(bytes)?;
    read::<Answer>(bytes)?;
    read::<EnrolGreeting>(bytes)?;
    read::<EnrolRequest>(bytes)?;
    read::<EnrolReply>(bytes)?;
    read::<JoinToken>(bytes)
}

fn valid() -> Vec<Vec<u8>> {
    let event = Event::Audit {
        action: "agent.started".into(),
        detail: String::new(),
    };
    vec![
        leaf().bytes(),
        encode(&payload()).unwrap(),
        encode(&trust_root()).unwrap(),
        encode(&signed_trust_root()).unwrap(),
        encode(&signed_record(event)).unwrap(),
        encode(&intent(&leaf(), &payload(), &[1, 2])).unwrap(),
        encode(&signed_clock(&desired_leaf(), &[1, 2])).unwrap(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decoders_never_panic_on_arbitrary_bytes(body in prop::collection::vec(any::<u8>(), 0..600)) {
        read_as_everything(&body)?;
        read_as_everything(&[&[1], &body[..]].concat())?;
    }

    #[test]
    fn decoders_never_panic_on_values_that_were_tampered_with(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let valid = valid();
        let mut bytes = valid[which.index(valid.len())].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        read_as_everything(&bytes)?;
        if let Ok(intent) = decode::<SignedIntent>(&bytes) {
            let _verified = intent.verify(&trust_root(), &agent());
        }
        if let Ok(clock) = decode::<SignedClock>(&bytes) {
            let _verified = clock.verify(&trust_root(), &agent());
        }
        if let Ok(signed) = decode::<SignedTrustRoot>(&bytes) {
            let _trusted = signed.self_signed();
        }
        if let Ok(record) = decode::<SignedRecord>(&bytes) {
            let key = dotmac_protocol::keys::PublicKey::of(&key(5));
            let _verified = record.verify(&key, ChainHead::START);
        }
    }

    #[test]
    fn texts_are_read_or_refused_without_a_panic(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _token = JoinToken::from_text(&text);
        let _token = JoinToken::from_text(&format!("dotmac-join-1.{text}"));
        let _manifest = Manifest::parse(text.as_bytes());
        let _manifest = Manifest::parse(&bytes);
        let _line = line::parse(&bytes);
        let _line = line::parse(text.as_bytes());
    }
}

fn is_refused_when_changed<T: Format>(value: &T) {
    let bytes = encode(value).unwrap();
    assert_eq!(encoded_len(value), Ok(bytes.len()));
    assert!(decode::<T>(&bytes).is_ok());
    assert!(
        decode::<T>(&[&bytes[..], &[0]].concat()).is_err(),
        "{} and a byte",
        T::KIND
    );
    for end in 0..bytes.len() {
        assert!(
            decode::<T>(&bytes[..end]).is_err(),
            "{} bytes of a {}",
            end,
            T::KIND
        );
    }
    let mut newer = bytes;
    newer[0] += 1;
    assert!(decode::<T>(&newer).is_err(), "a newer {}", T::KIND);
}

#[test]
fn a_value_is_refused_when_it_is_longer_shorter_or_newer() {
    is_refused_when_changed(&leaf());
    is_refused_when_changed(&payload());
    is_refused_when_changed(&trust_root());
    is_refused_when_changed(&signed_trust_root());
    is_refused_when_changed(&intent(&leaf(), &payload(), &[1, 2]));
    is_refused_when_changed(&signed_clock(&desired_leaf(), &[1, 2]));
    let event = Event::Audit {
        action: "agent.started".into(),
        detail: String::new(),
    };
    is_refused_when_changed(&signed_record(event));
}
