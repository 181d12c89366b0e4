//! Reports of a unit that wait for their record: cut into what fits into one, in order, and taken together as far as one
//! holds them. It knows sizes and who waits; it writes nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dotmac_protocol::record::reports::{
    PAYLOAD_BYTES_MAX, REPORTS_BYTES_MAX, Report, WORD_BYTES_MAX,
};
use tokio::sync::oneshot;

use super::Refusal;

/// Bytes of a unit's reports that wait for the disk; above it new ones are refused for a moment.
const WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What waits of one unit.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    is_writing: bool,
}

/// Reports that fit into one record, and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) reports: Vec<Report>,
    pub(super) is_frozen: bool,
    pub(super) done: oneshot::Sender<Result<(), Refusal>>,
    bytes: usize,
}

/// The right to write a unit's reports. However it ends, the next one to come may write.
pub(super) struct Turn<'a> {
    queue: &'a Queue,
    is_over: bool,
}

impl Queue {
    /// Lets reports wait; says whether the caller has to see to it that somebody takes a turn.
    pub(super) fn push(&self, waiting: Vec<Waiting>) -> Result<bool, Refusal> {
        let bytes: usize = waiting.iter().map(|one| one.bytes).sum();
        let mut state = self.lock();
        if state.bytes + bytes > WAITING_BYTES_MAX {
            return Err(Refusal::Busy);
        }
        state.bytes += bytes;
        state.waiting.extend(waiting);
        Ok(!std::mem::replace(&mut state.is_writing, true))
    }

    /// For whom [`Queue::push`] told to.
    pub(super) fn turn(&self) -> Turn<'_> {
        Turn {
            queue: self,
            is_over: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Somebody who waits for the next record, and brings no reports.
    pub(super) fn empty() -> (Self, oneshot::Receiver<Result<(), Refusal>>) {
        let (done, answer) = oneshot::channel();
        let waiting = Self {
            reports: Vec::new(),
            is_frozen: false,
            done,
            bytes: 0,
        };
        (waiting, answer)
    }
}

impl Turn<'_> {
    /// What goes into the next record; `None` when nothing waits: the turn is over.
    pub(super) fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.waiting.front()
            && (group.is_empty() || bytes + next.bytes <= REPORTS_BYTES_MAX)
        {
            bytes += next.bytes;
            group.extend(queue.waiting.pop_front());
        }
        queue.bytes -= bytes;
        if group.is_empty() {
            queue.is_writing = false;
            self.is_over = true;
            return None;
        }
        Some(group)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            *self.queue.lock() = State::default();
        }
    }
}

/// Cuts reports into what fits into records.
pub(super) fn chunks(
    reports: Vec<Report>,
    is_frozen: bool,
    answers: &mut Vec<oneshot::Receiver<Result<(), Refusal>>>,
) -> Vec<Waiting> {
    let mut chunks: Vec<Waiting> = Vec::new();
    for report in reports {
        let more = bytes_of(&report);
        match chunks.last_mut() {
            Some(last) if last.bytes + more <= REPORTS_BYTES_MAX => {
                last.bytes += more;
                last.reports.push(report);
            }
            _ => {
                let (done, answer) = oneshot::channel();
                answers.push(answer);
                chunks.push(Waiting {
                    reports: vec![report],
                    bytes: more,
                    is_frozen,
                    done,
                });
            }
        }
    }
    chunks
}

/// Bytes of an encoded minute without its component's name at most: three numbers of 9 bytes, three of 5, two tags.
pub(super) const MINUTE_BYTES: usize = 48;

/// Bytes that a report takes at most when it is encoded: numbers take 9 at most, texts their own and up to 9.
pub(super) fn bytes_of(report: &Report) -> usize {
    match report {
        Report::Usage(usage) => {
            let texts = [&usage.revenue_today, &usage.outstanding_invoices];
            128 + texts
                .into_iter()
                .flatten()
                .map(|text| text.len() + 10)
                .sum::<usize>()
        }
        Report::Event(event) => {
            64 + event.event_id.len() + event.event_type.len() + event.payload.len()
        }
        Report::Claim(claim) => {
            let texts = [
                &claim.status,
                &claim.api_status,
                &claim.radius_status,
                &claim.database_status,
                &claim.redis_status,
                &claim.app_version,
                &claim.config_version,
            ];
            64 + texts.iter().map(|text| text.len() + 9).sum::<usize>()
        }
        Report::Minute(minute) => MINUTE_BYTES + minute.component.as_str().len(),
        Report::Plugin(used) => 48 + used.plugin_id.len() + used.metric_name.len(),
    }
}

/// A single report always fits: its texts are bounded where they are read.
const _: () = assert!(PAYLOAD_BYTES_MAX + 10 * WORD_BYTES_MAX + 256 <= REPORTS_BYTES_MAX);
