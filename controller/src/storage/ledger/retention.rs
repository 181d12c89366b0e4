//! Drops the oldest links of chains, a bounded number at a time, up to where the State says. It refuses to go beyond the
//! end of a chain, and keeps no record of its own: after a restart the State says it again.

use dotmac_domain::audit::{Fact, Stream};
use dotmac_protocol::{codec, record::ChainHead};

use super::{Heads, Ledger, LedgerError, encode_head, fact_key, head_key};
use crate::storage::engine::{Batch, Priority, WriteError};

/// Links removed in one step at most.
pub(super) const STEP: u64 = 1_024;

/// How far a chain is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drop {
    /// The first link that may still be here; unknown before the first step.
    next: Option<u64>,
    /// The last link to go.
    through: u64,
}

impl Ledger {
    /// From now on the links of a chain up to `through` may go. Removing them is left to [`Self::sweep`].
    pub fn drop_through(&self, stream: &Stream, through: u64) {
        let mut heads = self.lock();
        let end = heads.streams.get(stream).map_or(0, |head| head.sequence);
        note_drop(&mut heads, stream, through.min(end));
    }

    /// Takes one step of what may go; `true` when there is more. The links are gone from the disk with the next commit.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn sweep(&self) -> Result<bool, LedgerError> {
        let found = {
            let heads = self.lock();
            let first = heads.drops.first_key_value();
            first.map(|(stream, drop)| (stream.clone(), *drop))
        };
        let Some((stream, drop)) = found else {
            return Ok(false);
        };
        let first = match drop.next {
            Some(next) => Some(next),
            None => self.first(&stream)?.filter(|first| *first <= drop.through),
        };
        let Some(first) = first else {
            return Ok(self.note_swept(&stream, drop.through));
        };
        let last = drop.through.min(first.saturating_add(STEP - 1));
        let mut batch = Batch::new();
        batch.remove_range(fact_key(&stream, first)..fact_key(&stream, last.saturating_add(1)));
        let done = Box::new(|_: Result<(), WriteError>| {});
        self.engine.submit(batch, Priority::Unhurried, done).await?;
        Ok(self.note_swept(&stream, last))
    }

    /// Begins a chain, of which nothing older is to be had, behind this link; what is here of before may go.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn begin_behind(&self, stream: &Stream, head: ChainHead) -> Result<(), LedgerError> {
        let mut batch = Batch::new();
        {
            let mut heads = self.lock();
            let known = heads.streams.get(stream).map_or(0, |head| head.sequence);
            if known >= head.sequence {
                return Ok(());
            }
            heads.streams.insert(stream.clone(), head);
            note_drop(&mut heads, stream, known);
        }
        batch.put_fresh(head_key(stream), encode_head(&head));
        Ok(self.engine.write(batch, Priority::Essential).await?)
    }

    /// The first link of a chain that is on the disk.
    fn first(&self, stream: &Stream) -> Result<Option<u64>, LedgerError> {
        let range = fact_key(stream, 0)..fact_key(stream, u64::MAX);
        let Some(record) = self.engine.scan(range).next() else {
            return Ok(None);
        };
        Ok(Some(codec::decode::<Fact>(&record?.1)?.sequence))
    }

    /// Notes that the links up to this one are removed; says whether there is more to do.
    fn note_swept(&self, stream: &Stream, last: u64) -> bool {
        let mut heads = self.lock();
        if let Some(drop) = heads.drops.get_mut(stream) {
            drop.next = Some(last.saturating_add(1));
            if last >= drop.through {
                heads.drops.remove(stream);
            }
        }
        !heads.drops.is_empty()
    }
}

fn note_drop(heads: &mut Heads, stream: &Stream, through: u64) {
    if through == 0 {
        return;
    }
    let new = Drop {
        next: None,
        through,
    };
    let known = heads.drops.entry(stream.clone()).or_insert(new);
    known.through = known.through.max(through);
}
