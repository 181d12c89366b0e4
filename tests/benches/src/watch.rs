//! Watch fan-out: many event streams of one tenant, one change at a time, and how long after its acknowledgement the last
//! watcher has heard of each. A watcher that misses a change fails the run.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Body;
use bytes::BytesMut;
use dotmac_runtime::supervise;
use futures::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    ground::{Ground, rename},
    wire::{Ask, Target, Wire},
};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What begins the name of a tenant that is watched; the number of the change follows.
const NAME: &str = "Watched ";
/// Streams opened at a time.
const OPENED_AT_ONCE: usize = 32;

/// Milliseconds of every change.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// From the request to its acknowledgement.
    pub(crate) write_ms: Vec<f64>,
    /// From the acknowledgement to the last watcher; below zero when all had heard before.
    pub(crate) last_ms: Vec<f64>,
    /// From the request to the last watcher.
    pub(crate) whole_ms: Vec<f64>,
}

impl Heard {
    /// Takes the changes of another round.
    pub(crate) fn join(&mut self, other: Self) {
        self.write_ms.extend(other.write_ms);
        self.last_ms.extend(other.last_ms);
        self.whole_ms.extend(other.whole_ms);
    }
}

/// What a watcher tells.
#[derive(Debug)]
enum Note {
    /// It has the current state.
    Synced,
    /// It heard of the change of this number.
    Change(u64, Instant),
    /// It has ended.
    Ended(String),
}

/// Makes changes of one tenant, one after the other, before this many watchers of it.
pub(crate) async fn fan_out(
    ground: &Ground,
    tenant: &str,
    watchers: u64,
    changes: u64,
) -> Result<Heard> {
    let path = format!("/api/v1/events?types=tenant&tenant_id={tenant}");
    let (notes, mut heard) = mpsc::channel(usize::try_from(watchers)?);
    let streams = open(&ground.targets, watchers, &path, &notes).await?;
    for _ in 0..watchers {
        match next(&mut heard).await? {
            Note::Synced => {}
            other => bail!("instead of the current state: {other:?}"),
        }
    }
    let writer = ground.targets.first().context("there is no controller")?;
    let mut writer = Wire::open(writer, 0).await?;
    let mut found = Heard::default();
    for number in 1..=changes {
        let ask = rename(tenant, &format!("{NAME}{number}"));
        let asked = Instant::now();
        let (status, body) = writer.ask(&ask).await?;
        let acknowledged = Instant::now();
        ensure!(
            status == ask.expected,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        let mut last = asked;
        for _ in 0..watchers {
            match next(&mut heard).await? {
                Note::Change(which, at) if which == number => last = last.max(at),
                other => bail!("instead of change {number}: {other:?}"),
            }
        }
        let millis = |from: Instant, to: Instant| match to.checked_duration_since(from) {
            Some(after) => after.as_secs_f64() * 1000.0,
            None => from.duration_since(to).as_secs_f64() * -1000.0,
        };
        found.write_ms.push(millis(asked, acknowledged));
        found.last_ms.push(millis(acknowledged, last));
        found.whole_ms.push(millis(asked, last));
    }
    for stream in streams {
        stream.abort();
    }
    Ok(found)
}

/// Opens event streams that are only read; they end when the handles are aborted.
pub(crate) async fn idle(
    targets: &[Target],
    count: u64,
    path: &str,
) -> Result<Vec<JoinHandle<()>>> {
    let (notes, mut heard) = mpsc::channel(OPENED_AT_ONCE);
    let streams = open(targets, count, path, &notes).await?;
    let mut synced = 0;
    while synced < count {
        match next(&mut heard).await? {
            Note::Synced => synced += 1,
            Note::Change(..) => {}
            Note::Ended(why) => bail!("a watcher ended: {why}"),
        }
    }
    supervise::spawn("bench watchers", async move {
        while heard.recv().await.is_some() {}
    });
    Ok(streams)
}

async fn next(heard: &mut mpsc::Receiver<Note>) -> Result<Note> {
    let note = timeout(PATIENCE, heard.recv()).await;
    note.context("a watcher did not hear in time")?
        .context("no watcher is left")
}

async fn open(
    targets: &[Target],
    count: u64,
    path: &str,
    notes: &mpsc::Sender<Note>,
) -> Result<Vec<JoinHandle<()>>> {
    let ask = Ask::get(path);
    let places = (0..count).zip(targets.iter().cycle());
    let opening = places.map(|(number, target)| {
        let (ask, notes) = (ask.clone(), notes.clone());
        async move {
            let mut wire = Wire::open(target, number).await?;
            let response = wire.send(&ask).await?;
            let status = response.status();
            ensure!(status == ask.expected, "{}: {status}", ask.path);
            let reading = async move {
                // The connection lives as long as its sender.
                let _wire = wire;
                let ended = read(Body::new(response.into_body()), &notes).await;
                let why = ended.map_or_else(|error| error.to_string(), |()| "it was closed".into());
                let _ = notes.send(Note::Ended(why)).await;
            };
            Ok(supervise::spawn("bench watcher", reading))
        }
    });
    let opened: Vec<Result<_>> = futures::stream::iter(opening)
        .buffered(OPENED_AT_ONCE)
        .collect()
        .await;
    opened.into_iter().collect()
}

async fn read(body: Body, notes: &mpsc::Sender<Note>) -> Result<()> {
    let mut chunks = body.into_data_stream();
    let mut pending = BytesMut::new();
    let mut is_synced = false;
    while let Some(chunk) = chunks.next().await {
        let at = Instant::now();
        pending.extend_from_slice(&chunk?);
        while let Some(end) = pending.windows(2).position(|two| two == b"\n\n") {
            let event = pending.split_to(end + 2);
            let text = std::str::from_utf8(&event)?;
            if text.contains("event: synced\n") {
                is_synced = true;
                notes.send(Note::Synced).await?;
            } else if let Some(number) = number_of(text).filter(|_| is_synced) {
                notes.send(Note::Change(number, at)).await?;
            }
        }
    }
    Ok(())
}

/// The number in the name of the tenant that an event shows.
fn number_of(event: &str) -> Option<u64> {
    let (_, rest) = event.split_once(NAME)?;
    let digits = rest.split(|one: char| !one.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn an_event_tells_which_change_it_shows() {
        let event = "id: 7\nevent: tenant\ndata: {\"tenant_name\":\"Watched 42\",\"x\":1}\n\n";
        assert_eq!(number_of(event), Some(42));
        assert_eq!(number_of(": heartbeat\n\n"), None);
    }
}
