//! The tasks that watch what runs: one waits for the end of a shim, others ask its probes. All they ever do is wake the
//! unit's task, which then looks for itself.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use dotmac_runtime::{clock::Clock, entropy::Entropy, process::ProcessIdentity, supervise};
use reqwest::Client;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
    task::AbortHandle,
};

use crate::{
    driver::SlotName,
    metrics::Metrics,
    probe::{self, Board, Inquiry, Kind},
    reports::UnitTally,
};

/// What is to be watched of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) slot: SlotName,
    pub(super) launch: u64,
    pub(super) shim: ProcessIdentity,
    /// Empty while it stops.
    pub(super) inquiries: Vec<Inquiry>,
}

/// All watching tasks of a unit.
pub(super) struct Watchers {
    tally: UnitTally,
    watched: BTreeMap<SlotName, Watched>,
    board: Board,
    wake: Arc<Notify>,
    client: Client,
    clock: Clock,
    entropy: Entropy,
    metrics: Metrics,
}

struct Watched {
    live: Live,
    tasks: Vec<AbortHandle>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Watchers {
    pub(super) fn new(
        tally: UnitTally,
        board: Board,
        wake: Arc<Notify>,
        client: Client,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
    ) -> Self {
        Self {
            tally,
            watched: BTreeMap::new(),
            board,
            wake,
            client,
            clock,
            entropy,
            metrics,
        }
    }

    /// Watches exactly this from now on.
    pub(super) fn follow(&mut self, live: Vec<Live>) {
        let mut before = std::mem::take(&mut self.watched);
        for live in live {
            let slot = live.slot.clone();
            let watched = match before.remove(&slot) {
                Some(watched) if watched.live == live => watched,
                other => {
                    drop(other);
                    self.watch(live)
                }
            };
            self.watched.insert(slot, watched);
        }
        for slot in before.keys() {
            self.board.forget(slot);
        }
    }

    fn watch(&self, live: Live) -> Watched {
        let mut tasks = Vec::new();
        let (shim, wake) = (live.shim.clone(), Arc::clone(&self.wake));
        let waiting = supervise::spawn("shim watch", async move {
            ended(&shim).await;
            wake.notify_one();
        });
        tasks.push(waiting.abort_handle());
        // How available a component is: whether it is ready or, where nobody asks that, alive.
        let asks_ready = live.inquiries.iter().any(|one| one.kind == Kind::Ready);
        for inquiry in &live.inquiries {
            let is_counted = inquiry.kind == Kind::Ready || !asks_ready;
            let counter = is_counted.then(|| self.tally.counter(&live.slot.component));
            let offset_ms = self.entropy.below(inquiry.probe.period_ms.into());
            let asking = probe::keep_asking(
                inquiry.clone(),
                self.client.clone(),
                self.board.clone(),
                self.clock.clone(),
                self.metrics.clone(),
                offset_ms,
                counter,
            );
            tasks.push(supervise::spawn("probe", asking).abort_handle());
        }
        Watched { live, tasks }
    }
}

/// Waits for the end of a process, and takes its exit status where it is a child of this one.
async fn ended(process: &ProcessIdentity) {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Some(Ok(pinned)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)) else {
        return;
    };
    // Pinned first and compared then: it is this process, or it has ended.
    if !process.is_alive() {
        take_status(&pinned);
        return;
    }
    #[allow(
        deprecated,
        reason = "unsound only for descriptors closed behind its back; this one is owned"
    )]
    match AsyncFd::with_interest(pinned, Interest::READABLE) {
        Ok(pinned) => {
            drop(pinned.readable().await);
            take_status(pinned.get_ref());
        }
        // No file descriptor is left: the unit's task looks again by itself a little later.
        Err(error) => tracing::warn!(%error, "the end of a process is noticed late"),
    }
}

fn take_status(pinned: &OwnedFd) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _status = waitid(WaitId::PidFd(pinned.as_fd()), options);
}
