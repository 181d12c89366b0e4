//! The newest entries of the log in memory: each is replicated to every follower and applied right after it was written, and
//! reading it back from the disk each time costs more than writing it. It holds only what is on disk, without holes, and no
//! more than its limits: the oldest go first.

use std::collections::VecDeque;

use crate::raft::types::Entry;

/// Entries at most.
const ENTRIES_MAX: usize = 1_024;
/// Bytes of their records at most; decoded they take two to three times as much.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The newest entries, each with the bytes of its record.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Recent {
    /// Takes what was written behind the others.
    pub(super) fn extend(&mut self, written: impl IntoIterator<Item = (Entry, usize)>) {
        for (entry, bytes) in written {
            let last = self.entries.back().map(|(last, _)| last.log_id.index);
            if last.is_some_and(|last| last + 1 != entry.log_id.index) {
                self.clear();
            }
            self.bytes += bytes;
            self.entries.push_back((entry, bytes));
        }
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((_, bytes)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= bytes;
        }
    }

    /// Entries of a half-open range from its very first on, up to about `bytes_max`, at least one; `None` when the first is
    /// not here.
    pub(super) fn read(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.0.log_id.index;
        let skipped = usize::try_from(start.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let mut found = Vec::new();
        for (entry, size) in self.entries.iter().skip(skipped) {
            bytes += size;
            if entry.log_id.index >= end || (bytes > bytes_max && !found.is_empty()) {
                break;
            }
            found.push(entry.clone());
        }
        // What is not here at all may be on the disk.
        (!found.is_empty()).then_some(found)
    }

    /// Forgets the entries up to this index.
    pub(super) fn forget_through(&mut self, index: u64) {
        while let Some((entry, bytes)) = self.entries.front()
            && entry.log_id.index <= index
        {
            self.bytes -= bytes;
            self.entries.pop_front();
        }
    }

    /// Forgets everything, as after a change of the log that was no append.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::{BYTES_MAX, ENTRIES_MAX, Entry, Recent};
    use crate::raft::types::LogId;

    fn entry(index: u64) -> Entry {
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Blank,
        }
    }

    fn read(recent: &Recent, start: u64, end: u64) -> Option<Vec<u64>> {
        let found = recent.read(start, end, 100)?;
        Some(found.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn what_is_here_is_read_from_its_first_on_within_the_bytes() {
        let mut recent = Recent::default();
        assert_eq!(read(&recent, 0, 9), None);
        recent.extend((5..9).map(|index| (entry(index), 40)));
        assert_eq!(read(&recent, 5, 6), Some(vec![5]));
        assert_eq!(read(&recent, 6, 99), Some(vec![6, 7]));
        assert_eq!(read(&recent, 4, 9), None);
        assert_eq!(read(&recent, 9, 12), None);
        assert_eq!(read(&recent, 6, 6), None);
        recent.extend([(entry(9), 200)]);
        assert_eq!(read(&recent, 9, 10), Some(vec![9]), "a large one alone");
        recent.forget_through(7);
        assert_eq!(read(&recent, 7, 99), None);
        assert_eq!(read(&recent, 8, 99), Some(vec![8]));
    }

    #[test]
    fn a_hole_forgets_what_was_before_it_and_the_oldest_go_first() {
        let mut recent = Recent::default();
        recent.extend((1..4).map(|index| (entry(index), 1)));
        recent.extend([(entry(7), 1)]);
        assert_eq!(read(&recent, 3, 9), None);
        assert_eq!(read(&recent, 7, 9), Some(vec![7]));
        let many = u64::try_from(ENTRIES_MAX).unwrap();
        recent.extend((8..8 + many).map(|index| (entry(index), 1)));
        assert_eq!(recent.entries.len(), ENTRIES_MAX);
        assert_eq!(read(&recent, 7, 9), None);
        recent.extend([(entry(8 + many), BYTES_MAX)]);
        assert_eq!(recent.entries.len(), 1);
    }
}
