//! The child's output file. The child appends to it by itself, so that it needs nobody alive to write; the shim takes
//! the oldest part away when there is too much.
//!
//! Bound: between `bytes_max` and twice that; a burst exceeds it by what is written between two looks. Nothing is lost
//! in between where the file system can take away a range (ext4, xfs). Elsewhere the newest part is copied to a second
//! file and the first begins anew, which loses what is written in that moment.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FallocateFlags, FlockOperation, fallocate, flock, inotify},
};
use tokio::time::Instant;

use super::{files::SlotFiles, signals::Signals};

/// While the output grows it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often it is looked at where the system tells nobody that it grew: a user has 128 inotify instances by default
/// (`fs.inotify.max_user_instances`), and every shim takes one.
const LOOK_UNTOLD_EVERY: Duration = Duration::from_millis(250);

/// File systems take away whole blocks only; none has larger ones.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Keeps the output within its bound.
pub(super) struct OutputBound {
    files: SlotFiles,
    bytes_max: u64,
    /// Told when it grew; `None` when the system has no more of these to give.
    grown: Option<OwnedFd>,
    next_look: Instant,
}

/// Opens the output for a child: every write goes to the end, wherever that is after a cut.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

impl OutputBound {
    pub(super) fn watch(files: &SlotFiles, bytes_max: u64) -> Self {
        Self::told_by(growth_of(&files.output()).ok(), files, bytes_max)
    }

    fn told_by(grown: Option<OwnedFd>, files: &SlotFiles, bytes_max: u64) -> Self {
        let mut bound = Self {
            files: files.clone(),
            bytes_max: bytes_max.max(BLOCK_BYTES),
            grown,
            next_look: Instant::now(),
        };
        bound.bound();
        bound
    }

    /// Waits for a signal, for growth, or for `limit`; cuts the output if it is full.
    pub(super) fn wait(&mut self, signals: &Signals, limit: Option<Duration>) {
        let until_look = self.next_look.saturating_duration_since(Instant::now());
        let muted = !until_look.is_zero();
        let limit = match (limit, muted) {
            (Some(limit), true) => Some(limit.min(until_look)),
            (None, true) => Some(until_look),
            (limit, false) => limit,
        };
        let limit = match &self.grown {
            Some(_) => limit,
            None => Some(limit.map_or(LOOK_UNTOLD_EVERY, |limit| limit.min(LOOK_UNTOLD_EVERY))),
        };
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let signal = PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN);
        let Some(grown) = self.grown.as_ref().filter(|_| !muted) else {
            let _woken = poll(&mut [signal], limit.as_ref());
            signals.clear();
            if self.grown.is_none() {
                self.bound();
            }
            return;
        };
        let mut wake = [signal, PollFd::new(grown, PollFlags::IN)];
        let _woken = poll(&mut wake, limit.as_ref());
        let grew = !wake[1].revents().is_empty();
        signals.clear();
        if grew {
            self.forget_growth();
            self.bound();
            self.next_look = Instant::now() + LOOK_EVERY;
        }
    }

    /// Cuts the output if it is full. A failure leaves it as it is: the next look tries again.
    pub(super) fn bound(&mut self) {
        let length = fs::metadata(self.files.output()).map_or(0, |file| file.len());
        if length >= self.bytes_max.saturating_mul(2) {
            drop(self.cut());
        }
    }

    fn cut(&self) -> io::Result<()> {
        let full = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.files.output())?;
        // Whoever looks at the file and at what was cut off it sees both before or both after.
        flock(&full, FlockOperation::LockExclusive)?;
        let surplus = full.metadata()?.len().saturating_sub(self.bytes_max);
        let surplus = surplus / BLOCK_BYTES * BLOCK_BYTES;
        let cut = match fallocate(&full, FallocateFlags::COLLAPSE_RANGE, 0, surplus) {
            Ok(()) => surplus,
            Err(_) => self.copy_and_truncate(&full)?,
        };
        let total = self.files.output_cut().saturating_add(cut);
        self.files.write_output_cut(total)
    }

    fn copy_and_truncate(&self, mut full: &File) -> io::Result<u64> {
        let length = full.metadata()?.len();
        full.seek(SeekFrom::Start(length.saturating_sub(self.bytes_max)))?;
        let mut before = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.files.output_before())?;
        // Up to the end, wherever it is by then; at most one more bound, should the child write faster than this reads.
        let mut newest = full.take(self.bytes_max.saturating_mul(2));
        io::copy(&mut newest, &mut before)?;
        let length = full.metadata()?.len();
        full.set_len(0)?;
        Ok(length)
    }

    fn forget_growth(&self) {
        let Some(grown) = &self.grown else { return };
        let mut room = [MaybeUninit::uninit(); 1_024];
        let mut reader = inotify::Reader::new(grown, &mut room);
        while reader.next().is_ok() {}
    }
}

fn growth_of(output: &Path) -> io::Result<OwnedFd> {
    let grown = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&grown, output, inotify::WatchFlags::MODIFY)?;
    Ok(grown)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::{BLOCK_BYTES, OutputBound, open};
    use crate::shim::{files::SlotFiles, signals::Signals};

    #[test]
    fn law_11_output_is_bounded_on_a_host_that_has_no_inotify_instance_left() {
        let directory = tempfile::tempdir().unwrap();
        let files = SlotFiles::new(directory.path());
        let mut output = open(&files.output()).unwrap();
        let mut bound = OutputBound::told_by(None, &files, BLOCK_BYTES);
        let written = BLOCK_BYTES * 4;
        let line = vec![b'x'; usize::try_from(written).unwrap()];
        output.write_all(&line).unwrap();
        // The other end of the pair is gone, so this returns at once, as it does when a signal came.
        bound.wait(&Signals::none(), None);
        let left = fs::metadata(files.output()).unwrap().len();
        assert!(left <= BLOCK_BYTES, "{left} bytes are left");
        assert_eq!(files.output_total(), written);
    }
}
