//! The agent's signed record chain: outbox for the controllers and audit file for people in one.
//!
//! ```text
//!   append: sign, link, write -> one fsync for all who wait -> durable
//!   controllers: batch from the acknowledged mark, again and again, the same bytes -> acknowledge
//! ```
//! It never drops what was not acknowledged: at its bound it takes no more and says so. Acknowledged segments stay
//! readable up to a bound of their own. It refuses to continue a chain whose unacknowledged part was changed.

mod error;
mod open;
mod outbox;
mod rewind;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dotmac_protocol::{
    codec,
    frame::{REPORT_RECORDS_MAX, Report},
    ids::{AgentId, IncarnationId, UnitId},
    keys::Signature,
    line,
    record::{ChainHead, Event, Outcome, RECORD_DOMAIN, Record, SignedRecord, cut_detail},
};
use dotmac_runtime::{
    clock::Clock,
    disk::{Appender, SharedDisk},
};
use ed25519_dalek::SigningKey;
use tokio::sync::watch;

pub use self::{
    error::{Ahead, AppendError, OpenError},
    open::Opened,
    walk::{BadRecord, Verified, verify},
};
use self::{
    outbox::Outbox,
    walk::{EXTENSION, Place},
};
use crate::unit::{About, Recorder};

/// Bytes of records in one batch at most: well within [`Report`]'s limit.
const BATCH_BYTES_MAX: usize = <Report as codec::Format>::BYTES_MAX / 2;

/// How much a chain keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLimits {
    /// Bytes after which a new segment begins.
    pub segment_bytes: u64,
    /// Bytes of acknowledged segments that are kept for people.
    pub audit_bytes_max: u64,
    /// Bytes that were not acknowledged yet, above which no new work is taken and neither health nor minutes of
    /// probes are recorded any more; at half as many again no reports of instances are, at twice as many nothing is.
    /// Of that, no unit has more reports waiting than there is room left, so that none takes another's.
    pub outbox_bytes_max: u64,
}

impl Default for ChainLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 4 * 1024 * 1024,
            audit_bytes_max: 64 * 1024 * 1024,
            outbox_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Whose chain it is.
#[allow(missing_debug_implementations, reason = "it holds the signing key")]
pub struct Owner {
    /// The agent.
    pub agent: AgentId,
    /// Its life on this disk.
    pub incarnation: IncarnationId,
    /// Signs the records.
    pub key: SigningKey,
}

/// The chain of one agent, for many writers.
#[allow(missing_debug_implementations, reason = "it holds the signing key")]
pub struct Chain {
    owner: Owner,
    directory: PathBuf,
    disk: SharedDisk,
    clock: Clock,
    limits: ChainLimits,
    tail: Mutex<Tail>,
    /// Held while syncing: whoever waits for it finds its own record synced by the one before.
    sync_gate: Mutex<()>,
    durable: watch::Sender<u64>,
    failure: watch::Sender<Option<String>>,
}

struct Tail {
    file: Appender,
    segment: u64,
    head: ChainHead,
    acknowledged: u64,
    /// Places of the records behind the acknowledged mark.
    outbox: Outbox,
    /// First sequence and bytes of the finished segments, oldest first.
    finished: VecDeque<(u64, u64)>,
}

/// Records to send, in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Sequence of the first; the one behind the acknowledged mark.
    pub first: u64,
    /// At most [`REPORT_RECORDS_MAX`]; none when all is acknowledged.
    pub records: Vec<SignedRecord>,
}

impl Chain {
    /// Appends one event. It is on disk, synced, when this returns its sequence. Waits for the disk.
    ///
    /// # Errors
    /// When it was not appended.
    pub fn append(&self, about: &About, event: Event) -> Result<u64, AppendError> {
        let sequence = self.write(about, event)?;
        self.sync_through(sequence)?;
        Ok(sequence)
    }

    /// The next records to send, from the acknowledged mark on: always the same bytes for the same records.
    ///
    /// # Errors
    /// When the files cannot be read or are no longer what was written.
    pub fn batch(&self) -> io::Result<Batch> {
        let durable = *self.durable.borrow();
        let tail = self.tail();
        let count =
            usize::try_from(durable.saturating_sub(tail.acknowledged)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |place: &&Place| {
            bytes += usize::try_from(place.length).unwrap_or(usize::MAX);
            bytes <= BATCH_BYTES_MAX
        };
        let limit = count.min(REPORT_RECORDS_MAX);
        let places: Vec<Place> = tail
            .outbox
            .places()
            .take(limit)
            .take_while(fits)
            .copied()
            .collect();
        let first = tail.acknowledged + 1;
        drop(tail);
        let records: io::Result<_> = places.iter().map(|place| self.read(place)).collect();
        Ok(Batch {
            first,
            records: records?,
        })
    }

    /// Notes that records up to `through` are committed on a majority; they are not sent again.
    ///
    /// # Errors
    /// When the chain does not hold that many. A failing disk only means that they are sent once more.
    pub fn acknowledge(&self, through: u64) -> Result<(), Ahead> {
        let mut tail = self.tail();
        if through > tail.head.sequence {
            let last = tail.head.sequence;
            return Err(Ahead {
                acknowledged: through,
                last,
            });
        }
        if through <= tail.acknowledged {
            return Ok(());
        }
        let count = usize::try_from(through - tail.acknowledged).unwrap_or(usize::MAX);
        tail.outbox.release(count);
        tail.acknowledged = through;
        if let Err(error) = walk::write_mark(&self.directory, through) {
            tracing::warn!(%error, sequence = through, "the acknowledged mark cannot be written");
        } else {
            self.prune(&mut tail);
        }
        Ok(())
    }

    /// First and last sequence that wait for acknowledgement; 0 and 0 when none does.
    #[must_use]
    pub fn outbox(&self) -> (u64, u64) {
        let tail = self.tail();
        if tail.outbox.is_empty() {
            (0, 0)
        } else {
            (tail.acknowledged + 1, tail.head.sequence)
        }
    }

    /// Bytes that wait for acknowledgement, and above how many no new work is taken.
    #[must_use]
    pub fn outbox_bytes(&self) -> (u64, u64) {
        (self.tail().outbox.bytes(), self.limits.outbox_bytes_max)
    }

    /// Whether new work may be taken: its receipts would still be kept.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.failure.borrow().is_none() && self.tail().outbox.bytes() < self.limits.outbox_bytes_max
    }

    /// Whether a unit's reports may take minutes of probes along: these are left out before reports are refused.
    #[must_use]
    pub fn has_room_for_minutes(&self, unit: &UnitId) -> bool {
        let bytes_max = self.limits.outbox_bytes_max;
        self.has_room() && self.tail().outbox.has_room_for(Some(unit), bytes_max)
    }

    /// The last sequence on disk, as it grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// Why the chain failed for good, once it did.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    fn write(&self, about: &About, event: Event) -> Result<u64, AppendError> {
        let mut tail = self.tail();
        if let Some(reason) = self.failure.borrow().clone() {
            return Err(AppendError::Failed(reason));
        }
        self.check_room(&tail, about, &event)?;
        let record = Record {
            agent: self.owner.agent.clone(),
            incarnation: self.owner.incarnation.clone(),
            sequence: tail.head.sequence + 1,
            previous: tail.head.digest,
            at: self.clock.now(),
            tenant: about.tenant.clone(),
            unit: about.unit.clone(),
            request: about.request.clone(),
            event: cut_texts(event),
        };
        let body = codec::encode(&record).map_err(AppendError::TooLarge)?;
        let signature = Signature::make(&self.owner.key, RECORD_DOMAIN, &body);
        let signed = SignedRecord { body, signature };
        let line = line::render(&record, &signed);
        if tail.file.length() >= self.limits.segment_bytes {
            self.rotate(&mut tail)?;
        }
        let place = Place {
            segment: tail.segment,
            offset: tail.file.length(),
            length: u32::try_from(line.len()).expect("a record's line is short"),
        };
        tail.file
            .append(line.as_bytes())
            .map_err(AppendError::Write)?;
        tail.head = ChainHead {
            sequence: record.sequence,
            digest: signed.digest(),
        };
        tail.outbox.push(&record, place);
        Ok(record.sequence)
    }

    fn check_room(&self, tail: &Tail, about: &About, event: &Event) -> Result<(), AppendError> {
        let (bytes, bytes_max) = (tail.outbox.bytes(), self.limits.outbox_bytes_max);
        let has_room = match event {
            Event::Health(_) => bytes < bytes_max,
            Event::Reports(_) => tail
                .outbox
                .has_room_for(about.unit.as_ref(), bytes_max / 2 * 3),
            Event::Receipt(_) | Event::Audit { .. } => bytes < bytes_max * 2,
        };
        if has_room {
            Ok(())
        } else {
            let waiting_bytes = bytes;
            Err(AppendError::Full { waiting_bytes })
        }
    }

    /// One fsync for all records written so far.
    fn sync_through(&self, sequence: u64) -> Result<(), AppendError> {
        let _gate = self
            .sync_gate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *self.durable.borrow() >= sequence {
            return Ok(());
        }
        let (written, path) = {
            let tail = self.tail();
            (tail.head.sequence, tail.file.path().to_owned())
        };
        self.disk
            .sync_data(&path)
            .map_err(|error| self.fail(&error))?;
        self.durable.send_replace(written);
        Ok(())
    }

    /// Finishes the segment and begins the next one. The finished one is synced first, so that later only the
    /// current one needs to be.
    fn rotate(&self, tail: &mut Tail) -> Result<(), AppendError> {
        tail.file.sync().map_err(|error| self.fail(&error))?;
        let next = tail.head.sequence + 1;
        let path = self.directory.join(file_name(next));
        let file = Appender::open(&path, self.disk.clone()).map_err(AppendError::Write)?;
        tail.finished.push_back((tail.segment, tail.file.length()));
        (tail.file, tail.segment) = (file, next);
        Ok(())
    }

    /// Drops the oldest finished segments that were acknowledged whole, while there are too many bytes of them.
    fn prune(&self, tail: &mut Tail) {
        let mut bytes: u64 = tail.finished.iter().map(|(_, bytes)| bytes).sum();
        while let Some((first, length)) = tail.finished.front().copied() {
            let next = tail.finished.get(1).map_or(tail.segment, |(next, _)| *next);
            if next > tail.acknowledged + 1 || bytes <= self.limits.audit_bytes_max {
                return;
            }
            if let Err(error) = std::fs::remove_file(self.directory.join(file_name(first))) {
                tracing::warn!(%error, sequence = first, "an old segment of the record chain stays");
                return;
            }
            bytes -= length;
            tail.finished.pop_front();
        }
    }

    fn read(&self, place: &Place) -> io::Result<SignedRecord> {
        let file = File::open(self.directory.join(file_name(place.segment)))?;
        let mut line = vec![0; usize::try_from(place.length).expect("a line is short")];
        file.read_exact_at(&mut line, place.offset)?;
        line::parse(&line).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    fn fail(&self, error: &io::Error) -> AppendError {
        let reason = format!("its file cannot be synced: {error}");
        self.failure.send_replace(Some(reason.clone()));
        AppendError::Failed(reason)
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Chain {
    fn record(&self, about: &About, event: Event) {
        if let Err(error) = self.append(about, event) {
            let unit = about.unit.as_ref().map(ToString::to_string);
            tracing::error!(%error, unit, "an event is not in the record chain");
        }
    }
}

fn file_name(first: u64) -> String {
    format!("{first:020}.{EXTENSION}")
}

fn cut_texts(event: Event) -> Event {
    match event {
        Event::Receipt(mut receipt) => {
            if let Outcome::Refused { reason } | Outcome::Failing { reason } = &mut receipt.outcome
            {
                *reason = cut_detail(reason);
            }
            Event::Receipt(receipt)
        }
        Event::Health(mut health) => {
            health.reason = cut_detail(&health.reason);
            Event::Health(health)
        }
        Event::Audit { action, detail } => Event::Audit {
            action,
            detail: cut_detail(&detail),
        },
        Event::Reports(reports) => Event::Reports(reports),
    }
}
