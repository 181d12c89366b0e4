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
