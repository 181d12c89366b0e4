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

use super::missed::{self, Missed};
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
    missed: BTreeMap<SlotName, Counting>,
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

/// The absence of one copy, and the task that counts it.
struct Counting {
    missed: Missed,
    task: AbortHandle,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.task.abort();
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
            missed: BTreeMap::new(),
            board,
            wake,
            client,
            clock,
            entropy,
            metrics,
        }
    }

    /// Watches exactly this from now on, and counts exactly those as missed.
    pub(super) fn follow(&mut self, live: Vec<Live>, missed: Vec<Missed>) {
        let mut before = std::mem::take(&mut self.missed);
        for missed in missed {
            let slot = missed.slot.clone();
            let counting = before.remove(&slot).filter(|one| one.missed == missed);
            let counting = counting.unwrap_or_else(|| self.count(missed));
            self.missed.insert(slot, counting);
        }
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

    fn count(&self, missed: Missed) -> Counting {
        let counter = self.tally.counter(&missed.slot.component);
        let (clock, entropy) = (self.clock.clone(), self.entropy.clone());
        let counting = missed::keep_counting(missed.period_ms, counter, clock, entropy);
        let task = supervise::spawn("missed", counting).abort_handle();
        Counting { missed, task }
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use dotmac_protocol::record::reports::ProbeMinute;
    use dotmac_runtime::{clock::Clock, entropy::Entropy};
    use tokio::sync::Notify;

    use super::{Missed, Watchers};
    use crate::{
        fixture::{NOW, unit},
        metrics::Metrics,
        probe::{self, Board},
        reports::Tally,
    };

    #[tokio::test]
    async fn minutes_without_a_process_exist_and_hold_nothing_but_failures() {
        let (clock, hand) = Clock::manual(NOW);
        let (tally, wake) = (Tally::default(), Arc::new(Notify::new()));
        let mut watchers = Watchers::new(
            tally.of(&unit("demo")),
            Board::new(Arc::clone(&wake)),
            wake,
            probe::client(),
            clock.clone(),
            Entropy::seeded(1),
            Metrics::default(),
        );
        let missed = ["web.0", "web.1"].map(|slot| Missed {
            slot: slot.parse().unwrap(),
            period_ms: 5,
        });
        // A turn of the unit that changes nothing goes on counting.
        watchers.follow(Vec::new(), missed.to_vec());
        watchers.follow(Vec::new(), missed.to_vec());
        let counted = async {
            let mut minutes: Vec<ProbeMinute> = Vec::new();
            while minutes.len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                hand.advance_millis(60_000);
                minutes.extend(tally.take(&unit("demo"), clock.now(), |_| true));
            }
            minutes
        };
        let patience = Duration::from_secs(10);
        let minutes = tokio::time::timeout(patience, counted).await.unwrap();
        assert!(
            minutes
                .iter()
                .all(|one| one.probes > 0 && one.failed == one.probes),
            "{minutes:?}"
        );
        let task = |watchers: &Watchers, one: &Missed| watchers.missed[&one.slot].task.clone();
        let [first, second] = [0, 1].map(|at| task(&watchers, &missed[at]));
        watchers.follow(Vec::new(), missed[..1].to_vec());
        let ended = async {
            while !second.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(patience, ended).await.unwrap();
        assert!(!first.is_finished());
    }
}
