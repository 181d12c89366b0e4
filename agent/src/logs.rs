//! The last lines of what the copies of a unit wrote, and what they go on to write. Memory per question is bounded;
//! who reads too slowly slows only his own answer.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use dotmac_protocol::ids::{PartName, UnitId};
use dotmac_runtime::supervise;
use rustix::fs::inotify;
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use crate::{
    driver::{SlotName, process::UnitFiles},
    shim::files::SlotFiles,
};

/// Bytes of a piece of an answer at most.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Lines of the past at most.
pub const LINES_MAX: u32 = 10_000;
/// Bytes of the past at most, per slot.
const PAST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes that are cleaned of secrets before the last lines are taken from them.
const CLEANED_BYTES: u64 = 64 * 1024;
/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 8;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum LogsError {
    /// This agent has nothing of it.
    #[error("unit {0} has no output on this agent")]
    Unknown(UnitId),
    /// Nothing tells when more is written.
    #[error("the output cannot be followed")]
    Follow(#[source] io::Error),
}

/// The last `lines` lines per slot, of one component or all; with `follow` also what comes, until the receiver is
/// dropped. Where there are several slots each line begins with its slot's name.
///
/// # Errors
/// When the unit has no output here.
pub fn read(
    data_dir: &Path,
    unit: &UnitId,
    component: Option<&PartName>,
    lines: u32,
    follow: bool,
) -> Result<mpsc::Receiver<String>, LogsError> {
    let mut slots = slots(&UnitFiles::new(data_dir, unit));
    slots.retain(|slot| component.is_none_or(|one| *one == slot.name.component));
    if slots.is_empty() {
        return Err(LogsError::Unknown(unit.clone()));
    }
    let watch = follow
        .then(|| watch(&slots))
        .transpose()
        .map_err(LogsError::Follow)?;
    let named = slots.len() > 1;
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    supervise::spawn("logs", async move {
        let lines = lines.min(LINES_MAX);
        drop(tell(slots, named, lines, watch, &pieces).await);
    });
    Ok(receiver)
}

/// The last lines of one slot, at most `bytes_max` bytes.
#[must_use]
pub fn tail(files: &SlotFiles, lines: u32, bytes_max: u64) -> String {
    let (mut text, start) = last_bytes(&files.output(), bytes_max);
    if start == 0 && count(&text) < lines {
        let (before, _) = last_bytes(&files.output_before(), bytes_max - text.len() as u64);
        text = before + &text;
    }
    last_lines(&text, lines).to_owned()
}

/// The last whole lines of a slot, at most `lines` of them and `bytes_max` bytes, as `clean` leaves them. It is shown
/// whole lines only, and before anything is cut: a part of a secret would not be known for one.
#[must_use]
pub fn cleaned_tail(
    files: &SlotFiles,
    lines: u32,
    bytes_max: usize,
    clean: impl Fn(&str) -> String,
) -> String {
    let text = tail(files, u32::MAX, CLEANED_BYTES);
    let is_cut = files.output_total() > text.len() as u64;
    let whole = if is_cut {
        text.split_once('\n').map_or("", |(_, rest)| rest)
    } else {
        &text
    };
    let cleaned = clean(whole);
    let last = last_lines(&cleaned, lines);
    let mut begin = last.len().saturating_sub(bytes_max);
    while !last.is_char_boundary(begin) {
        begin += 1;
    }
    last[begin..].to_owned()
}

struct Slot {
    name: SlotName,
    files: SlotFiles,
    /// Bytes of all that was ever written, up to here, were told.
    position: u64,
}

fn slots(unit: &UnitFiles) -> Vec<Slot> {
    let entries = std::fs::read_dir(unit.root.join("run"))
        .into_iter()
        .flatten()
        .flatten();
    let mut slots: Vec<Slot> = entries
        .filter_map(|entry| {
            let name: SlotName = entry.file_name().to_str()?.parse().ok()?;
            let files = unit.slot(&name);
            Some(Slot {
                name,
                files,
                position: 0,
            })
        })
        .collect();
    slots.sort_by(|left, right| left.name.cmp(&right.name));
    slots
}

fn watch(slots: &[Slot]) -> io::Result<AsyncFd<OwnedFd>> {
    let grown = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    for slot in slots {
        let path: PathBuf = slot.files.output();
        if path.exists() {
            inotify::add_watch(&grown, &path, inotify::WatchFlags::MODIFY)?;
        }
    }
    #[allow(
        deprecated,
        reason = "unsound only for descriptors closed behind its back; this one is owned"
    )]
    AsyncFd::with_interest(grown, Interest::READABLE)
}

/// Ends when the reader does.
async fn tell(
    mut slots: Vec<Slot>,
    named: bool,
    lines: u32,
    watch: Option<AsyncFd<OwnedFd>>,
    pieces: &mpsc::Sender<String>,
) -> Result<(), mpsc::error::SendError<String>> {
    for slot in &mut slots {
        slot.position = slot.files.output_total();
        let past = tail(&slot.files, lines, PAST_BYTES_MAX);
        send(slot, named, &past, pieces).await?;
    }
    let Some(watch) = watch else {
        return Ok(());
    };
    loop {
        let mut grown = tokio::select! {
            grown = watch.readable() => match grown {
                Ok(grown) => grown,
                Err(_) => return Ok(()),
            },
            () = pieces.closed() => return Ok(()),
        };
        forget(watch.get_ref());
        grown.clear_ready();
        for slot in &mut slots {
            loop {
                let news = slot.news();
                if news.is_empty() {
                    break;
                }
                send(slot, named, &news, pieces).await?;
            }
        }
    }
}

impl Slot {
    /// Whole lines that were written since the last look, a piece at a time.
    fn news(&mut self) -> String {
        let Ok(mut file) = File::open(self.files.output()) else {
            return String::new();
        };
        let (cut, length) = self.files.extent(&file);
        // What was taken away before it was told is lost; a file that a stranger emptied begins anew.
        let mut start = self.position.saturating_sub(cut);
        if start > length {
            start = 0;
        }
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.take(PIECE_BYTES_MAX as u64).read_to_end(&mut bytes));
        if read.is_err() {
            return String::new();
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            bytes.truncate(last + 1);
        } else if bytes.len() < PIECE_BYTES_MAX {
            bytes.clear();
        }
        self.position = cut + start + bytes.len() as u64;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

async fn send(
    slot: &Slot,
    named: bool,
    text: &str,
    pieces: &mpsc::Sender<String>,
) -> Result<(), mpsc::error::SendError<String>> {
    let mut piece = String::new();
    for line in text.split_inclusive('\n') {
        let line = if named {
            format!("{} | {line}", slot.name)
        } else {
            line.to_owned()
        };
        for part in parts(&line) {
            if piece.len() + part.len() > PIECE_BYTES_MAX {
                pieces.send(std::mem::take(&mut piece)).await?;
            }
            piece.push_str(part);
        }
    }
    if piece.is_empty() {
        Ok(())
    } else {
        pieces.send(piece).await
    }
}

/// A line in parts that fit into pieces.
fn parts(mut line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while !line.is_empty() {
        let mut end = line.len().min(PIECE_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let (part, rest) = line.split_at(end);
        parts.push(part);
        line = rest;
    }
    parts
}

fn last_bytes(path: &Path, bytes_max: u64) -> (String, u64) {
    let read = || {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(bytes_max);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>((String::from_utf8_lossy(&bytes).into_owned(), start))
    };
    read().unwrap_or_default()
}

fn count(text: &str) -> u32 {
    u32::try_from(text.lines().count()).unwrap_or(u32::MAX)
}

fn last_lines(text: &str, lines: u32) -> &str {
    let surplus = count(text).saturating_sub(lines);
    let mut rest = text;
    for _ in 0..surplus {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    rest
}

fn forget(grown: &OwnedFd) {
    let mut room = [MaybeUninit::uninit(); 1_024];
    let mut reader = inotify::Reader::new(grown, &mut room);
    while reader.next().is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use dotmac_protocol::ids::UnitId;

    use super::{SlotName, UnitFiles, cleaned_tail, last_lines, read};

    fn unit() -> UnitId {
        "instance/demo-isp-0190a1b2".parse().unwrap()
    }

    #[test]
    fn the_last_lines_are_the_last_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last_lines("a\nb\nc", 1), "c");
        assert_eq!(last_lines("a", 5), "a");
        assert_eq!(last_lines("a\n", 0), "");
    }

    #[tokio::test]
    async fn what_is_written_later_follows_also_after_a_cut() {
        let data = tempfile::tempdir().unwrap();
        let slot = UnitFiles::new(data.path(), &unit()).slot(&"web.0".parse().unwrap());
        fs::create_dir_all(slot.directory()).unwrap();
        fs::write(slot.output_before(), "one\ntwo\n").unwrap();
        fs::write(slot.output(), "three\n").unwrap();
        let mut lines = read(data.path(), &unit(), None, 2, true).unwrap();
        assert_eq!(lines.recv().await.unwrap(), "two\nthree\n");
        let mut output = fs::File::options()
            .append(true)
            .open(slot.output())
            .unwrap();
        output.write_all(b"four\nfi").unwrap();
        assert_eq!(lines.recv().await.unwrap(), "four\n");
        output.write_all(b"ve\n").unwrap();
        assert_eq!(lines.recv().await.unwrap(), "five\n");
        output.set_len(0).unwrap();
        output.write_all(b"6\n").unwrap();
        assert_eq!(lines.recv().await.unwrap(), "6\n");
    }

    #[tokio::test]
    async fn an_unknown_unit_has_no_output() {
        let data = tempfile::tempdir().unwrap();
        assert!(read(data.path(), &unit(), None, 2, false).is_err());
    }

    #[test]
    fn no_part_of_a_secret_is_left_where_the_text_is_cut() {
        let home = tempfile::tempdir().unwrap();
        let unit = UnitFiles::new(home.path(), &"instance/demo".parse().unwrap());
        let slot: SlotName = "web.0".parse().unwrap();
        let files = unit.slot(&slot);
        fs::create_dir_all(files.output().parent().unwrap()).unwrap();
        let secret = "postgres://u:canary@host/database";
        let clean = |text: &str| text.replace(secret, "[secret]");
        // Wherever the cut falls, nothing of the secret stays.
        for length in 0..80 {
            let text = format!("{secret} {}\n", "x".repeat(length));
            fs::write(files.output(), text).unwrap();
            let shown = cleaned_tail(&files, 20, 60, clean);
            assert!(
                !shown.contains("canary") && !shown.contains("host/"),
                "{shown}"
            );
        }
    }
}
