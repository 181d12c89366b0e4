//! Sends again what was acknowledged: after the controllers were restored from a backup, they may lack records that they
//! acknowledged before. Once for each epoch, which only the offline root key begins: no single controller can ask for it.

use std::io;

use dotmac_protocol::{ids::Epoch, keys::PublicKey};

use super::{
    Chain,
    outbox::Outbox,
    walk::{self, walk},
};

impl Chain {
    /// Takes the acknowledged mark back to the oldest record from which on all are on disk, unless that was done for
    /// this epoch. Controllers that hold some of them say so in their welcome. Waits for the disk.
    ///
    /// # Errors
    /// When the files cannot be read; then nothing changed.
    pub fn rewind(&self, epoch: Epoch) -> io::Result<bool> {
        if walk::read_epoch(&self.directory)? >= epoch.0 {
            return Ok(false);
        }
        let mut tail = self.tail();
        let (mut outbox, mut first, mut next) = (Outbox::default(), 0, 0);
        let key = PublicKey::of(&self.owner.key);
        let last = tail.head.sequence;
        walk(&self.directory, &key, 0, last, |record, _, place| {
            if record.sequence != next {
                // Behind a gap or a damaged record.
                (outbox, first) = (Outbox::default(), record.sequence);
            }
            next = record.sequence + 1;
            outbox.push(record, place);
        })
        .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
        if next == last + 1 && first > 0 {
            let acknowledged = tail.acknowledged.min(first - 1);
            walk::write_mark(&self.directory, acknowledged)?;
            tracing::info!(
                sequence = first,
                "a new epoch began: records from here on are sent again"
            );
            // What was not acknowledged anyway is in it, too.
            (tail.acknowledged, tail.outbox) = (first - 1, outbox);
        }
        walk::write_epoch(&self.directory, epoch.0)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::ids::Epoch;

    use crate::chain::tests::{append, chain};

    #[test]
    fn a_new_epoch_sends_everything_again_once_and_the_welcome_takes_it_back() {
        let directory = tempfile::tempdir().unwrap();
        let first = chain(directory.path());
        append(&first, 5);
        first.acknowledge(4).unwrap();
        assert_eq!(first.outbox(), (5, 5));
        assert!(!first.rewind(Epoch(1)).unwrap());
        assert!(first.rewind(Epoch(2)).unwrap());
        assert_eq!(first.outbox(), (1, 5));
        // The controllers were restored with three of them.
        first.acknowledge(3).unwrap();
        let batch = first.batch().unwrap();
        assert_eq!((batch.first, batch.records.len()), (4, 2));
        assert!(!first.rewind(Epoch(2)).unwrap());
        drop(first);
        let second = chain(directory.path());
        assert_eq!(second.outbox(), (4, 5));
        assert!(!second.rewind(Epoch(2)).unwrap());
    }
}
