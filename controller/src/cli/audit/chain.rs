//! The proof of an agent's own chain files: the segments of its `chain` directory, one signed record a line. It reads
//! one line at a time and changes nothing.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use dotmac_protocol::{
    ids::{AgentId, IncarnationId},
    keys::PublicKey,
    line,
    record::{ChainHead, Record},
};

/// Bytes of a line at most.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A chain that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The first record that is still on disk; 0 when there is none.
    pub(crate) first: u64,
    /// The end of it.
    pub(crate) head: ChainHead,
}

/// Where and why a chain does not hold, in one line.
pub(crate) type Bad = String;

/// Proves all segments of a directory with the key that `key_of` finds for the chain's owner.
pub(crate) fn prove(
    directory: &Path,
    key_of: impl Fn(&AgentId, &IncarnationId) -> Option<PublicKey>,
) -> Result<Proven, Bad> {
    let unreadable =
        |path: &Path, cause: &io::Error| format!("{}: cannot be read: {cause}", path.display());
    let segments = segments(directory).map_err(|cause| unreadable(directory, &cause))?;
    let mut walk = Walk {
        key_of,
        key: None,
        head: None,
        first: 0,
    };
    for (place, (number, path)) in segments.iter().enumerate() {
        if let Some(head) = walk.head
            && head.sequence + 1 != *number
        {
            return Err(format!(
                "{}: record {} is missing before it",
                path.display(),
                head.sequence + 1
            ));
        }
        if place == 0 {
            walk.first = *number;
            walk.head = (*number == 1).then_some(ChainHead::START);
        }
        walk.segment(path, *number)?;
    }
    let head = walk.head.unwrap_or(ChainHead::START);
    let acknowledged = std::fs::read_to_string(directory.join("acknowledged")).unwrap_or_default();
    let acknowledged: u64 = acknowledged.trim().parse().unwrap_or_default();
    if head.sequence < acknowledged {
        let missing = head.sequence + 1;
        return Err(format!(
            "{}: record {missing} is missing: the controllers have acknowledged {acknowledged}",
            directory.display()
        ));
    }
    Ok(Proven {
        first: walk.first,
        head,
    })
}

struct Walk<F> {
    key_of: F,
    /// Whose chain it is, once the first record told, with its key.
    key: Option<(AgentId, IncarnationId, PublicKey)>,
    /// `None` where the chain's beginning was dropped after its acknowledgement.
    head: Option<ChainHead>,
    first: u64,
}

impl<F: Fn(&AgentId, &IncarnationId) -> Option<PublicKey>> Walk<F> {
    fn segment(&mut self, path: &Path, first: u64) -> Result<(), Bad> {
        let bad = |number: u64, sequence: u64, why: String| {
            format!(
                "{}, line {number}: record {sequence} is bad: {why}",
                path.display()
            )
        };
        let file = File::open(path).map_err(|cause| bad(0, first, cause.to_string()))?;
        let mut reader = BufReader::new(file);
        let mut text = Vec::new();
        for number in 1.. {
            let sequence = self.head.map_or(first, |head| head.sequence + 1);
            text.clear();
            let read = reader
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut text);
            let length = read.map_err(|cause| bad(number, sequence, cause.to_string()))?;
            if length == 0 {
                return Ok(());
            }
            if text.pop() != Some(b'\n') {
                // What a crash left of a record that was never acknowledged to anybody.
                return Ok(());
            }
            let head = self.line(&text).map_err(|why| bad(number, sequence, why))?;
            if head.sequence != sequence {
                return Err(bad(
                    number,
                    sequence,
                    format!("record {} is in its place", head.sequence),
                ));
            }
            self.head = Some(head);
        }
        Ok(())
    }

    fn line(&mut self, text: &[u8]) -> Result<ChainHead, String> {
        if self.key.is_none() {
            let claimed = line::parse(text)?;
            let record: Record =
                dotmac_protocol::codec::decode(&claimed.body).map_err(|error| error.to_string())?;
            let key = (self.key_of)(&record.agent, &record.incarnation).ok_or_else(|| {
                format!(
                    "no controller knows a key of agent {} in this life",
                    record.agent
                )
            })?;
            self.key = Some((record.agent, record.incarnation, key));
        }
        let (agent, incarnation, key) = self.key.as_ref().ok_or("the chain has no owner")?;
        let (record, _, head) = line::check(text, key, self.head)?;
        if record.agent != *agent || record.incarnation != *incarnation {
            return Err(format!("it belongs to agent {}", record.agent));
        }
        Ok(head)
    }
}

/// First sequence and path of each segment, in order.
fn segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_segment = path
            .extension()
            .is_some_and(|extension| extension == "jsonl");
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if let (true, Some(number)) = (is_segment, number) {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dotmac_protocol::{
        codec::encode,
        keys::{PublicKey, Signature},
        line::render,
        record::{ChainHead, Event, RECORD_DOMAIN, Record, SignedRecord},
        time::Timestamp,
    };
    use ed25519_dalek::SigningKey;

    use super::{Bad, Proven, prove};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    /// Four records in two segments.
    fn write(directory: &Path) -> ChainHead {
        let mut head = ChainHead::START;
        for first in [1, 3] {
            let mut text = String::new();
            for sequence in first..first + 2 {
                let record = Record {
                    agent: "do-fra1-1".parse().unwrap(),
                    incarnation: "0a".repeat(16).parse().unwrap(),
                    sequence,
                    previous: head.digest,
                    at: Timestamp(sequence),
                    tenant: None,
                    unit: None,
                    request: None,
                    event: Event::Audit {
                        action: "agent.started".into(),
                        detail: "well".into(),
                    },
                };
                let body = encode(&record).unwrap();
                let signature = Signature::make(&key(), RECORD_DOMAIN, &body);
                let signed = SignedRecord { body, signature };
                head = ChainHead {
                    sequence,
                    digest: signed.digest(),
                };
                text.push_str(&render(&record, &signed));
            }
            std::fs::write(directory.join(format!("{first:020}.jsonl")), text).unwrap();
        }
        head
    }

    fn proven(directory: &Path) -> Result<Proven, Bad> {
        prove(directory, |_, _| Some(PublicKey::of(&key())))
    }

    #[test]
    fn a_whole_chain_holds_also_when_its_beginning_was_dropped_or_its_end_was_cut_by_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let head = write(directory.path());
        assert_eq!(proven(directory.path()), Ok(Proven { first: 1, head }));
        let last = directory.path().join(format!("{:020}.jsonl", 3));
        let text = std::fs::read_to_string(&last).unwrap();
        std::fs::write(&last, format!("{text}{{\"sequence\":5,")).unwrap();
        std::fs::remove_file(directory.path().join(format!("{:020}.jsonl", 1))).unwrap();
        assert_eq!(proven(directory.path()), Ok(Proven { first: 3, head }));
    }

    #[test]
    fn the_first_bad_record_is_named_whichever_byte_was_changed() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path());
        let first = directory.path().join(format!("{:020}.jsonl", 1));
        let good = std::fs::read(&first).unwrap();
        let second_line = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for place in (second_line..good.len() - 1).step_by(7) {
            let mut changed = good.clone();
            changed[place] ^= 1;
            std::fs::write(&first, changed).unwrap();
            let bad = proven(directory.path()).unwrap_err();
            assert!(
                bad.contains("line 2: record 2 is bad"),
                "byte {place}: {bad}"
            );
        }
    }

    #[test]
    fn a_missing_segment_a_missing_end_and_an_unknown_key_are_found() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path());
        assert!(
            prove(directory.path(), |_, _| None)
                .unwrap_err()
                .contains("no controller knows a key")
        );
        std::fs::write(directory.path().join("acknowledged"), "5\n").unwrap();
        assert!(
            proven(directory.path())
                .unwrap_err()
                .contains("record 5 is missing")
        );
        let name = |first: i32| directory.path().join(format!("{first:020}.jsonl"));
        std::fs::rename(name(3), name(4)).unwrap();
        assert!(
            proven(directory.path())
                .unwrap_err()
                .contains("record 3 is missing")
        );
    }
}
