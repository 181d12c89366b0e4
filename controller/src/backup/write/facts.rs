//! The facts of a backup: read from this controller's ledger stream by stream up to the State's marks, and checked against
//! them. It refuses a ledger that is not the one the State knows.

use std::{
    io::{self, Write},
    ops::Bound,
    sync::Arc,
};

use dotmac_domain::{State, audit::Stream};
use dotmac_protocol::{codec, record::ChainHead};

use super::Head;
use crate::log::Log;

/// Bytes of facts after which a new part begins.
const LEDGER_PART_BYTES: u64 = 64 * 1024 * 1024;
/// Facts read from the ledger at once.
const FACTS_AT_ONCE: usize = 256;

/// The facts up to the marks of a State, in the order of their streams.
pub(super) struct Facts {
    state: Arc<State>,
    log: Arc<dyn Log>,
    pub(super) heads: Vec<Head>,
    pub(super) count: u64,
    /// The stream under way, and where it has come to.
    at: Option<(Stream, ChainHead)>,
}

impl Facts {
    pub(super) fn new(state: Arc<State>, log: Arc<dyn Log>) -> Self {
        let mut facts = Self {
            at: None,
            state,
            log,
            heads: Vec::new(),
            count: 0,
        };
        facts.begin(Bound::Unbounded);
        facts
    }

    pub(super) fn is_done(&self) -> bool {
        self.at.is_none()
    }

    /// Writes facts until the part is full or all are written.
    pub(super) fn fill(mut self, out: &mut dyn Write) -> io::Result<Self> {
        let mut written = 0;
        while written < LEDGER_PART_BYTES
            && let Some((stream, at)) = self.at.take()
        {
            let end = self
                .state
                .streams
                .get(&stream)
                .copied()
                .unwrap_or(ChainHead::START);
            let (next, bytes) = self.step(&stream, at, end, out)?;
            written += bytes;
            if next == end {
                self.begin(Bound::Excluded(&stream));
            } else {
                self.at = Some((stream, next));
            }
        }
        Ok(self)
    }

    /// Writes the next facts of one stream and says how far it has come.
    fn step(
        &mut self,
        stream: &Stream,
        at: ChainHead,
        end: ChainHead,
        out: &mut dyn Write,
    ) -> io::Result<(ChainHead, u64)> {
        let facts = self.log.facts(stream, at.sequence, FACTS_AT_ONCE);
        let facts = facts.map_err(|error| io::Error::other(error.to_string()))?;
        let (mut head, mut written) = (at, 0);
        let broken = |sequence: u64| {
            io::Error::other(format!(
                "the ledger of this controller does not hold fact {sequence} of stream {stream} as its state knows it"
            ))
        };
        for fact in facts
            .iter()
            .take_while(|fact| fact.sequence <= end.sequence)
        {
            let follows = fact.sequence == head.sequence + 1;
            let previous = if head == at {
                fact.link.place().map_err(io::Error::other)?.1
            } else {
                head.digest
            };
            if !follows || previous != head.digest {
                return Err(broken(head.sequence + 1));
            }
            let bytes = codec::encode(fact).map_err(io::Error::other)?;
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(&bytes)?;
            written += u64::from(length) + 4;
            self.count += 1;
            head = ChainHead {
                sequence: fact.sequence,
                digest: fact.link.digest(),
            };
        }
        if head == at && end.sequence > at.sequence {
            return Err(broken(at.sequence + 1));
        }
        if head.sequence == end.sequence && head.digest != end.digest {
            return Err(broken(end.sequence));
        }
        Ok((head, written))
    }

    /// Goes to the next stream of which facts are kept, and notes the ends of those on the way. A stream begins behind
    /// what was dropped of it after its retention.
    fn begin(&mut self, after: Bound<&Stream>) {
        for (stream, end) in self
            .state
            .streams
            .range::<Stream, _>((after, Bound::Unbounded))
        {
            let dropped = self.state.dropped(stream);
            self.heads.push(Head {
                stream: stream.to_string(),
                first: dropped.sequence + 1,
                last: end.sequence,
                digest: end.digest,
            });
            if dropped != *end {
                self.at = Some((stream.clone(), dropped));
                return;
            }
        }
        self.at = None;
    }

    /// The ends of all streams, a line each.
    pub(super) fn lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for head in &self.heads {
            lines.extend(serde_json::to_vec(head).expect("a head has text keys only"));
            lines.push(b'\n');
        }
        lines
    }
}
