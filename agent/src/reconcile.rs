//! Keeps every unit what its order says, cut off or not: one task per unit looks, plans and acts again whenever
//! something changes. A wake-up carries no data, so a restart takes the same path.
//!
//! ```text
//!   Desired (watch) --+
//!   end of a shim ----+--> wake --> turn: look -> book -> plan (pure) -> act -> report --> status (watch)
//!   probe verdict ----+                                                          |
//!   time -------------+                                                     Recorder
//! ```
//! It refuses to remove what it merely does not know: a unit that is on disk and not in Desired is left alone.

mod act;
pub mod environment;
pub mod goal;
pub mod health;
mod look;
pub mod memory;
mod missed;
pub mod plan;
pub mod report;
mod status;
mod turn;
mod watchers;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dotmac_protocol::{
    frame::INVENTORY_MAX,
    ids::{PartName, UnitId},
};
use dotmac_runtime::{clock::Clock, entropy::Entropy, supervise};
use reqwest::Client;
use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::{AbortHandle, JoinHandle},
};

pub use self::status::{Statuses, UnitStatus};
use self::{
    environment::Environments,
    plan::Backoff,
    turn::{Hands, Shared, Turn},
    watchers::Watchers,
};
use crate::{
    driver::process::{ProcessDriver, ports::PortBook},
    limits::ControlGroups,
    logs::{self, LogsError},
    probe::{self, Board},
    reports::Tally,
    stations::Stations,
    unit::{Desired, Platform, Recorder, Wanted},
};

/// Turns at the same time: each may fork and sync.
const TURNS_MAX: usize = 8;
/// How long a unit is left alone whose files cannot be read.
const DISK_PAUSE: Duration = Duration::from_secs(5);

/// Where and how.
#[derive(Debug, Clone)]
pub struct ReconcileConfig {
    /// The agent's data directory; units lie in `units/`.
    pub data_dir: PathBuf,
    /// The program that is run as `PROGRAM shim DIRECTORY`: the agent's own.
    pub shim_program: PathBuf,
    /// Ports for components.
    pub ports: RangeInclusive<u16>,
    /// Bytes of output kept per slot at least; at twice that the oldest are taken away.
    pub output_bytes_max: u64,
    /// How restarts are slowed down.
    pub backoff: Backoff,
    /// Where probes are counted.
    pub tally: Tally,
}

impl ReconcileConfig {
    /// The default for [`ReconcileConfig::output_bytes_max`].
    pub const OUTPUT_BYTES_MAX: u64 = 8 * 1024 * 1024;
}

/// Why nothing is reconciled.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The data directory is not usable.
    #[error("data directory {} cannot be used", path.display())]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The running reconciler.
#[allow(
    missing_debug_implementations,
    reason = "it leads to secrets, which must not be printable"
)]
pub struct Reconciler {
    environments: Environments,
    data_dir: PathBuf,
    statuses: watch::Receiver<Arc<Statuses>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Starts to keep what `desired` says.
///
/// # Errors
/// When the data directory cannot be used.
pub fn start(
    config: ReconcileConfig,
    desired: watch::Receiver<Arc<Desired>>,
    recorder: Arc<dyn Recorder>,
    platform: Arc<dyn Platform>,
    stations: Stations,
    clock: Clock,
    entropy: Entropy,
) -> Result<Reconciler, ReconcileError> {
    let usable = |source| ReconcileError::DataDir {
        path: config.data_dir.clone(),
        source,
    };
    let data_dir = std::path::absolute(&config.data_dir).map_err(usable)?;
    dotmac_runtime::disk::create_private_dir(&data_dir.join("units")).map_err(usable)?;
    let driver = ProcessDriver {
        shim_program: config.shim_program,
        ports: PortBook::new(config.ports),
        groups: ControlGroups::detect(&data_dir),
        output_bytes_max: config.output_bytes_max,
        search_path: std::env::var_os("PATH")
            .unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        clock: clock.clone(),
    };
    let shared = Arc::new(Shared {
        data_dir: data_dir.clone(),
        driver,
        backoff: config.backoff,
        recorder,
        platform,
        stations,
        clock,
    });
    reserve_ports(&shared);
    let (statuses, statuses_receiver) = watch::channel(Arc::default());
    let (stop, stopped) = watch::channel(false);
    let environments = Environments {
        shared: Arc::clone(&shared),
        desired: desired.clone(),
    };
    let units = Units {
        shared,
        entropy,
        tally: config.tally,
        client: probe::client(),
        turns: Arc::new(Semaphore::new(TURNS_MAX)),
        statuses: Arc::new(statuses),
        stopped,
        tasks: BTreeMap::new(),
    };
    let task = supervise::spawn("reconcile", units.keep(desired));
    Ok(Reconciler {
        environments,
        data_dir,
        statuses: statuses_receiver,
        stop,
        task,
    })
}

impl Reconciler {
    /// How all units are; changes whenever one does.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Statuses>> {
        self.statuses.clone()
    }

    /// The task that keeps units, to see whether it runs.
    #[must_use]
    pub fn task(&self) -> AbortHandle {
        self.task.abort_handle()
    }

    /// What the copies of units are started with.
    #[must_use]
    pub fn environments(&self) -> Environments {
        self.environments.clone()
    }

    /// The output of a unit, in pieces of at most [`logs::PIECE_BYTES_MAX`] bytes; see [`logs::read`].
    ///
    /// # Errors
    /// When the unit has no output here.
    pub fn logs(
        &self,
        unit: &UnitId,
        component: Option<&PartName>,
        lines: u32,
        follow: bool,
    ) -> Result<mpsc::Receiver<String>, LogsError> {
        logs::read(&self.data_dir, unit, component, lines, follow)
    }

    /// Stops reconciling, after what is being done right now. Instances keep running.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the reconciler did not end well");
        }
    }
}

/// Before any unit's task runs, so that no port is given away that another unit holds; units that are on disk and in no
/// order keep theirs too.
fn reserve_ports(shared: &Shared) {
    for unit in units_on_disk(&shared.data_dir) {
        let files = crate::driver::process::UnitFiles::new(&shared.data_dir, &unit);
        match memory::Memory::load(&unit, &files) {
            Ok(memory) => {
                for (slot, remembered) in &memory.slots {
                    let ports = remembered.ports.values().copied();
                    shared.driver.ports.reserve(&unit, slot, ports);
                }
            }
            Err(error) => tracing::warn!(%unit, %error, "the unit's memory cannot be read"),
        }
    }
}

fn units_on_disk(data_dir: &Path) -> Vec<UnitId> {
    let entries = std::fs::read_dir(data_dir.join("units"))
        .into_iter()
        .flatten()
        .flatten();
    let units = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        format!("instance/{name}").parse().ok()
    });
    units.collect()
}

struct Units {
    shared: Arc<Shared>,
    entropy: Entropy,
    tally: Tally,
    client: Client,
    turns: Arc<Semaphore>,
    statuses: Arc<watch::Sender<Arc<Statuses>>>,
    stopped: watch::Receiver<bool>,
    tasks: BTreeMap<UnitId, (watch::Sender<Wanted>, JoinHandle<()>)>,
}

impl Units {
    async fn keep(mut self, mut desired: watch::Receiver<Arc<Desired>>) {
        let mut stopped = self.stopped.clone();
        let wanted = Arc::clone(&desired.borrow());
        for unit in units_on_disk(&self.shared.data_dir) {
            if !wanted.contains_key(&unit) {
                tracing::warn!(%unit, "on disk and in no order: left alone");
            }
        }
        loop {
            let wanted = Arc::clone(&desired.borrow_and_update());
            for one in wanted.values() {
                self.hand_over(one);
            }
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { break },
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        // Without new orders the old ones are kept until the end.
        drop(stopped.wait_for(|stopped| *stopped).await);
        for (unit, (_, task)) in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%unit, %error, "the unit's task did not end well");
            }
        }
    }

    fn hand_over(&mut self, wanted: &Wanted) {
        if let Some((orders, _)) = self.tasks.get(&wanted.unit) {
            orders.send_if_modified(|order| {
                let newer = order != wanted;
                if newer {
                    order.clone_from(wanted);
                }
                newer
            });
            return;
        }
        if self.tasks.len() >= INVENTORY_MAX {
            tracing::error!(unit = %wanted.unit, "more than {INVENTORY_MAX} units: not kept");
            return;
        }
        let (orders, order) = watch::channel(wanted.clone());
        let wake = Arc::new(Notify::new());
        let board = Board::new(Arc::clone(&wake));
        let unit = UnitTask {
            unit: wanted.unit.clone(),
            shared: Arc::clone(&self.shared),
            watchers: Watchers::new(
                self.tally.of(&wanted.unit),
                board.clone(),
                Arc::clone(&wake),
                self.client.clone(),
                self.shared.clock.clone(),
                self.entropy.clone(),
                self.shared.stations.metrics().clone(),
            ),
            board,
            wake,
            turns: Arc::clone(&self.turns),
            statuses: Arc::clone(&self.statuses),
            order,
            stopped: self.stopped.clone(),
        };
        let task = supervise::spawn("unit", unit.keep());
        self.tasks.insert(wanted.unit.clone(), (orders, task));
    }
}

struct UnitTask {
    unit: UnitId,
    shared: Arc<Shared>,
    watchers: Watchers,
    board: Board,
    wake: Arc<Notify>,
    turns: Arc<Semaphore>,
    statuses: Arc<watch::Sender<Arc<Statuses>>>,
    order: watch::Receiver<Wanted>,
    stopped: watch::Receiver<bool>,
}

impl UnitTask {
    /// A turn that panicked lost what was in memory only: the unit is taken over again from disk.
    async fn keep(mut self) {
        while !*self.stopped.borrow() {
            if self.take_turns().await.is_some() {
                return;
            }
            let mut stopped = self.stopped.clone();
            drop(tokio::time::timeout(DISK_PAUSE, stopped.wait_for(|stopped| *stopped)).await);
        }
    }

    async fn take_turns(&mut self) -> Option<()> {
        let opened = Hands::open(Arc::clone(&self.shared), &self.unit, self.board.clone());
        let mut hands = opened
            .inspect_err(|error| tracing::error!(unit = %self.unit, %error, "the unit's memory cannot be read"))
            .ok()?;
        let mut stopped = self.stopped.clone();
        loop {
            let wanted = self.order.borrow_and_update().clone();
            let permit = self.turns.acquire().await.ok()?;
            let took = tokio::task::spawn_blocking(move || {
                let turn = hands.turn(&wanted);
                (hands, turn)
            });
            let (back, turn) = took
                .await
                .inspect_err(|error| tracing::error!(unit = %self.unit, %error, "a turn failed"))
                .ok()?;
            drop(permit);
            hands = back;
            let pause_ms = turn.wake_at.millis_since(self.shared.clock.now());
            self.publish(turn);
            tokio::select! {
                // The sender lives as long as this task is waited for.
                changed = self.order.changed() => changed.ok()?,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(pause_ms.min(turn::RESYNC_MS))) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return Some(()),
            }
        }
    }

    fn publish(&mut self, turn: Turn) {
        self.watchers.follow(turn.live, turn.missed);
        self.statuses.send_if_modified(|statuses| {
            if statuses.get(&self.unit) == Some(&turn.status) {
                return false;
            }
            Arc::make_mut(statuses).insert(self.unit.clone(), turn.status);
            true
        });
    }
}
