//! Opens a chain: proves what is on disk, cuts a torn tail off, and finds where the outbox begins.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::Mutex,
};

use dotmac_protocol::{
    digest::Digest,
    keys::PublicKey,
    record::{ChainHead, Event, Outcome, Record},
};
use dotmac_runtime::{
    clock::Clock,
    disk::{self, Appender, SharedDisk},
};
use tokio::sync::watch;

use super::{
    BadRecord, Chain, ChainLimits, OpenError, Owner, Tail, file_name,
    outbox::Outbox,
    walk::{self, walk},
};

/// A chain that was opened, and what was noticed on the way.
#[allow(missing_debug_implementations, reason = "it holds the signing key")]
pub struct Opened {
    /// The chain.
    pub chain: Chain,
    /// Damaged records in the acknowledged part: the controllers hold them, so the chain goes on.
    pub bad: Vec<BadRecord>,
    /// Leaves for which an `Accepted` receipt is in the files.
    pub accepted: BTreeSet<Digest>,
}

impl Chain {
    /// Opens or begins the chain in a directory: proves what is there and cuts a torn last line off.
    ///
    /// # Errors
    /// When the disk fails, the chain is somebody else's, or its unacknowledged part is damaged.
    pub fn open(
        directory: &Path,
        owner: Owner,
        disk: SharedDisk,
        clock: Clock,
        limits: ChainLimits,
    ) -> Result<Opened, OpenError> {
        Self::open_with(directory, owner, disk, clock, limits, |_| {})
    }

    /// As [`Chain::open`]; shows every proven record on disk, in order.
    ///
    /// # Errors
    /// As [`Chain::open`].
    pub fn open_with(
        directory: &Path,
        owner: Owner,
        disk: SharedDisk,
        clock: Clock,
        limits: ChainLimits,
        mut visit: impl FnMut(&Record),
    ) -> Result<Opened, OpenError> {
        let failed = |source| OpenError::Disk {
            directory: directory.to_owned(),
            source,
        };
        disk::create_private_dir(directory).map_err(failed)?;
        let acknowledged = walk::read_mark(directory).map_err(failed)?;
        let (mut outbox, mut accepted) = (Outbox::default(), BTreeSet::new());
        let key = PublicKey::of(&owner.key);
        let walked = walk(
            directory,
            &key,
            acknowledged,
            acknowledged,
            |record, _, place| {
                visit(record);
                if record.sequence > acknowledged {
                    outbox.push(record, place);
                }
                if let Event::Receipt(receipt) = &record.event
                    && receipt.outcome == Outcome::Accepted
                {
                    accepted.insert(receipt.leaf);
                }
            },
        )?;
        if let Some((agent, incarnation)) = walked.verified.owner
            && (agent != owner.agent || incarnation != owner.incarnation)
        {
            let directory = directory.to_owned();
            return Err(OpenError::Owner {
                directory,
                agent,
                incarnation,
            });
        }
        let head = ChainHead {
            sequence: walked.verified.last,
            digest: walked.verified.digest,
        };
        let mut finished: VecDeque<_> = walked.segments.into();
        let (segment, length) = finished.pop_back().unwrap_or((1, 0));
        let path = directory.join(file_name(segment));
        let mut file = Appender::open(&path, disk.clone()).map_err(failed)?;
        file.truncate(length)
            .and_then(|()| file.sync())
            .map_err(failed)?;
        let tail = Tail {
            file,
            segment,
            head,
            acknowledged,
            outbox,
            finished,
        };
        let chain = Self {
            owner,
            directory: directory.to_owned(),
            disk,
            clock,
            limits,
            tail: Mutex::new(tail),
            sync_gate: Mutex::new(()),
            durable: watch::Sender::new(head.sequence),
            failure: watch::Sender::new(None),
        };
        let bad = walked.bad;
        Ok(Opened {
            chain,
            bad,
            accepted,
        })
    }
}
