//! One signed record as one line of JSON, as agents keep their chains on disk: readable for people, exact for proofs. What people read is rendered from the
//! signed bytes, so a line counts only when rendering it again gives the same text: any flipped byte is found.

use serde::{Deserialize, Serialize};

use crate::{
    codec,
    digest::Digest,
    keys::{KeyId, PublicKey, Signature},
    record::{ChainHead, Event, Outcome, Record, SignedRecord},
};

/// Bytes of a line at most, the line break included.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Line {
    sequence: u64,
    at_ms: u64,
    tenant: Option<String>,
    unit: Option<String>,
    request: Option<String>,
    event: String,
    detail: String,
    body: String,
    key: String,
    signature: String,
}

/// Renders a record with its line break.
#[must_use]
pub fn render(record: &Record, signed: &SignedRecord) -> String {
    let (event, detail) = describe(&record.event);
    let line = Line {
        sequence: record.sequence,
        at_ms: record.at.0,
        tenant: record.tenant.as_ref().map(ToString::to_string),
        unit: record.unit.as_ref().map(ToString::to_string),
        request: record.request.as_ref().map(ToString::to_string),
        event,
        detail,
        body: hex::encode(&signed.body),
        key: signed.signature.key.0.to_string(),
        signature: hex::encode(signed.signature.halves.concat()),
    };
    let mut text = serde_json::to_string(&line).expect("a line has text keys only");
    text.push('\n');
    text
}

/// Reads a record back without believing it.
pub fn parse(line: &[u8]) -> Result<SignedRecord, String> {
    let line: Line =
        serde_json::from_slice(line).map_err(|error| format!("the line is no record: {error}"))?;
    let body = hex::decode(&line.body).map_err(|_| "its body is not hexadecimal".to_owned())?;
    let key: Digest = line
        .key
        .parse()
        .map_err(|_| "its key is no digest".to_owned())?;
    let mut halves = [[0; 32]; 2];
    hex::decode_to_slice(&line.signature, halves.as_flattened_mut())
        .map_err(|_| "its signature is not 64 hexadecimal bytes".to_owned())?;
    let key = KeyId(key);
    Ok(SignedRecord {
        body,
        signature: Signature { key, halves },
    })
}

/// Checks a line (without its line break) as the link after `before`, or as any link when that is unknown.
pub fn check(
    line: &[u8],
    key: &PublicKey,
    before: Option<ChainHead>,
) -> Result<(Record, SignedRecord, ChainHead), String> {
    let signed = parse(line)?;
    let before = match before {
        Some(before) => before,
        None => claimed_head(&signed)?,
    };
    let (record, head) = signed
        .verify(key, before)
        .map_err(|error| error.to_string())?;
    if render(&record, &signed).trim_end_matches('\n').as_bytes() != line {
        return Err("what people read differs from what was signed".to_owned());
    }
    Ok((record, signed, head))
}

fn claimed_head(signed: &SignedRecord) -> Result<ChainHead, String> {
    let record: Record = codec::decode(&signed.body).map_err(|error| error.to_string())?;
    Ok(ChainHead {
        sequence: record.sequence.saturating_sub(1),
        digest: record.previous,
    })
}

fn describe(event: &Event) -> (String, String) {
    match event {
        Event::Audit { action, detail } => (action.clone(), detail.clone()),
        Event::Reports(reports) => (
            "unit.reports".to_owned(),
            format!("{} reports of the instance", reports.len()),
        ),
        Event::Health(health) => {
            let status = health.status.as_str();
            let generation = health.generation;
            let detail = format!("generation {generation} is {status}: {}", health.reason);
            (
                "unit.health".to_owned(),
                detail.trim_end_matches(": ").to_owned(),
            )
        }
        Event::Receipt(receipt) => {
            let (event, reason) = match &receipt.outcome {
                Outcome::Accepted => ("intent.accepted", String::new()),
                Outcome::Refused { reason } => ("intent.refused", reason.clone()),
                Outcome::Applied { limits } => ("intent.applied", format!("limits {limits:?}")),
                Outcome::Failing { reason } => ("intent.failing", reason.clone()),
                Outcome::Removed => ("unit.removed", String::new()),
            };
            let (generation, sequence) = (receipt.generation, receipt.sequence);
            let detail = format!("generation {generation}, sequence {sequence}: {reason}");
            (event.to_owned(), detail.trim_end_matches(": ").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::{check, parse, render};
    use crate::{
        codec::encode,
        digest::Digest,
        keys::{PublicKey, Signature},
        record::{ChainHead, Event, RECORD_DOMAIN, Record, SignedRecord},
        time::Timestamp,
    };

    fn line(key: &SigningKey) -> String {
        let event = Event::Audit {
            action: "instance.restarted".into(),
            detail: "web ended with status 7".into(),
        };
        let record = Record {
            agent: "do-fra1-1".parse().unwrap(),
            incarnation: "0a".repeat(16).parse().unwrap(),
            sequence: 1,
            previous: Digest::ZERO,
            at: Timestamp(7),
            tenant: None,
            unit: None,
            request: None,
            event,
        };
        let body = encode(&record).unwrap();
        let signature = Signature::make(key, RECORD_DOMAIN, &body);
        render(&record, &SignedRecord { body, signature })
    }

    #[test]
    fn a_line_proves_its_record_and_any_changed_byte_is_found() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let public = PublicKey::of(&key);
        let text = line(&key);
        let bytes = text.trim_end().as_bytes();
        assert!(check(bytes, &public, Some(ChainHead::START)).is_ok());
        assert!(parse(bytes).is_ok());
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            assert!(
                check(&changed, &public, Some(ChainHead::START)).is_err(),
                "byte {place}"
            );
        }
    }
}
