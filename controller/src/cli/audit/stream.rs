//! The proof of one stream that a controller serves: every link follows the one before it, agents' links are signed,
//! and the last one is the one that the State names. Pure: it is told what was served.

use dotmac_domain::audit::{AUDIT_DOMAIN, AuditRecord, REPORT_DOMAIN, ReportRecord, Stream};
use dotmac_protocol::{
    codec,
    digest::Digest,
    keys::{KeyId, PublicKey, Signature},
    record::{ChainHead, SignedRecord},
};
use serde::Deserialize;

/// A link as the API serves it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServedLink {
    pub(crate) sequence: u64,
    /// Hexadecimal.
    pub(crate) body: String,
    pub(crate) signature: Option<ServedSignature>,
    pub(crate) digest: Digest32,
}

/// A signature as the API serves it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServedSignature {
    /// Digest of the public key.
    pub(crate) key: Digest32,
    /// 64 hexadecimal bytes.
    pub(crate) value: String,
}

/// A digest as text, with or without `sha256:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Digest32(pub(crate) Digest);

impl TryFrom<String> for Digest32 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or(&text);
        let digest = format!("sha256:{digits}").parse();
        digest
            .map(Self)
            .map_err(|error: dotmac_protocol::digest::DigestError| error.to_string())
    }
}

/// A public key as the API serves it.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    let mut bytes = [0; 32];
    let digits = text.strip_prefix("ed25519:").unwrap_or(text);
    hex::decode_to_slice(digits, &mut bytes)
        .map_err(|_| format!("{text:?} is no Ed25519 public key"))?;
    Ok(PublicKey(bytes))
}

/// Checks one link of a stream behind `head`; gives the new head.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(
    stream: &Stream,
    link: &ServedLink,
    key: Option<&PublicKey>,
    head: ChainHead,
) -> Result<ChainHead, String> {
    let expected = head.sequence.saturating_add(1);
    if link.sequence != expected {
        return Err(format!(
            "record {} is in the place of record {expected}",
            link.sequence
        ));
    }
    let body = hex::decode(&link.body).map_err(|_| "its body is not hexadecimal".to_owned())?;
    let digest = match (&link.signature, key) {
        (Some(signature), Some(key)) => {
            let mut halves = [[0; 32]; 2];
            hex::decode_to_slice(&signature.value, halves.as_flattened_mut())
                .map_err(|_| "its signature is not 64 hexadecimal bytes".to_owned())?;
            let signature = Signature {
                key: KeyId(signature.key.0),
                halves,
            };
            let (_, after) = SignedRecord { body, signature }
                .verify(key, head)
                .map_err(|error| error.to_string())?;
            after.digest
        }
        (None, None) => {
            let (sequence, previous, domain) = place(stream, &body)?;
            if sequence != expected || previous != head.digest {
                return Err(format!("it does not follow record {}", head.sequence));
            }
            Digest::tagged(domain, &body)
        }
        (Some(_), None) => return Err("the stream names no key to check its signature with".into()),
        (None, Some(_)) => return Err("it is not signed".into()),
    };
    if digest != link.digest.0 {
        return Err("its digest is not that of its content".into());
    }
    Ok(ChainHead {
        sequence: expected,
        digest,
    })
}

/// What an unsigned link says of its own place, and the domain under which links of its stream are hashed.
fn place(stream: &Stream, body: &[u8]) -> Result<(u64, Digest, &'static str), String> {
    match stream {
        Stream::Platform | Stream::Tenant(_) => {
            let record: AuditRecord = codec::decode(body).map_err(|error| error.to_string())?;
            Ok((record.sequence, record.previous, AUDIT_DOMAIN))
        }
        Stream::Usage(_) | Stream::Events(_) | Stream::Minutes(_) => {
            let record: ReportRecord = codec::decode(body).map_err(|error| error.to_string())?;
            Ok((record.sequence, record.previous, REPORT_DOMAIN))
        }
        Stream::Agent(..) => Err("a record of an agent is signed, this one is not".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use dotmac_domain::{
        audit::{AUDIT_DOMAIN, AuditRecord, Entry, REPORT_DOMAIN, ReportRecord, Stream},
        envelope::Actor,
    };
    use dotmac_protocol::{
        codec::encode,
        digest::Digest,
        keys::PublicKey,
        record::{
            ChainHead,
            reports::{ProbeMinute, Report},
        },
        time::Timestamp,
    };

    use super::{Digest32, ServedLink};

    fn check(
        link: &ServedLink,
        key: Option<&PublicKey>,
        head: ChainHead,
    ) -> Result<ChainHead, String> {
        super::check(&Stream::Platform, link, key, head)
    }

    fn link(sequence: u64, previous: Digest) -> ServedLink {
        let entry = Entry {
            actor: Actor::Planner,
            action: "wave.sealed".into(),
            tenant: None,
            unit: None,
            request: "00".repeat(16).parse().unwrap(),
            detail: String::new(),
            warrant: None,
        };
        let record = AuditRecord {
            sequence,
            previous,
            at: Timestamp(1),
            entry,
        };
        let body = encode(&record).unwrap();
        let digest = Digest32(Digest::tagged(AUDIT_DOMAIN, &body));
        ServedLink {
            sequence,
            body: hex::encode(body),
            signature: None,
            digest,
        }
    }

    #[test]
    fn a_link_that_is_changed_missing_or_moved_is_found() {
        let first = link(1, Digest::ZERO);
        let head = check(&first, None, ChainHead::START).unwrap();
        let second = link(2, head.digest);
        assert_eq!(check(&second, None, head).unwrap().sequence, 2);
        assert!(
            check(&second, None, ChainHead::START).is_err(),
            "the first is missing"
        );
        assert!(
            check(&link(2, Digest::ZERO), None, head).is_err(),
            "it follows another one"
        );
        for place in 0..second.body.len() {
            let mut changed = second.clone();
            let flipped = if changed.body.as_bytes()[place] == b'0' {
                "1"
            } else {
                "0"
            };
            changed.body.replace_range(place..=place, flipped);
            assert!(check(&changed, None, head).is_err(), "digit {place}");
        }
    }

    #[test]
    fn a_series_is_proven_as_its_own_kind_and_as_no_other() {
        let minute = ProbeMinute {
            minute: Timestamp(60_000),
            component: "web".parse().unwrap(),
            probes: 6,
            failed: 0,
            latency_sum_ms: 30,
            latency_max_ms: 9,
        };
        let record = ReportRecord {
            sequence: 1,
            previous: Digest::ZERO,
            at: Timestamp(1),
            agent: "lab-1-1".parse().unwrap(),
            incarnation: "0a".repeat(16).parse().unwrap(),
            record: 7,
            report: Report::Minute(minute),
        };
        let body = encode(&record).unwrap();
        let served = |domain| ServedLink {
            sequence: 1,
            body: hex::encode(&body),
            signature: None,
            digest: Digest32(Digest::tagged(domain, &body)),
        };
        let series = Stream::Minutes("demo-isp-0190a1b2".parse().unwrap());
        let proven = |stream, domain| super::check(stream, &served(domain), None, ChainHead::START);
        assert_eq!(proven(&series, REPORT_DOMAIN).unwrap().sequence, 1);
        assert!(proven(&series, AUDIT_DOMAIN).is_err());
        assert!(proven(&Stream::Platform, REPORT_DOMAIN).is_err());
    }

    #[test]
    fn a_signature_cannot_be_left_out() {
        let key = super::public_key(&"11".repeat(32)).unwrap();
        assert_eq!(
            check(&link(1, Digest::ZERO), Some(&key), ChainHead::START),
            Err("it is not signed".into())
        );
    }
}
