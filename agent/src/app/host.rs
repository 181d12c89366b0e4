//! Small joints between parts that do not know each other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use dotmac_protocol::{
    frame::Question,
    ids::UnitId,
    record::{Event, HealthStatus, Outcome},
};
use tokio::sync::{mpsc, watch};

use crate::{
    chain::Chain,
    link::Host,
    logs,
    platform::PlatformKeys,
    reconcile::{Reconciler, Statuses},
    stations::Stations,
    unit::{About, Recorder},
};

/// What the link asks of the reconciler.
#[derive(Debug)]
pub(super) struct LinkHost {
    statuses: watch::Receiver<Arc<Statuses>>,
    data_dir: PathBuf,
}

impl LinkHost {
    pub(super) fn new(reconciler: &Reconciler, data_dir: &Path) -> Self {
        Self {
            statuses: reconciler.status(),
            data_dir: data_dir.to_owned(),
        }
    }
}

impl Host for LinkHost {
    fn health(&self, unit: &UnitId) -> HealthStatus {
        let statuses = self.statuses.borrow();
        statuses
            .get(unit)
            .map_or(HealthStatus::Unknown, |status| status.health)
    }

    fn logs(&self, question: &Question) -> Result<mpsc::Receiver<String>, String> {
        let Question::Logs {
            unit,
            component,
            lines,
            follow,
            ..
        } = question;
        logs::read(&self.data_dir, unit, component.as_ref(), *lines, *follow)
            .map_err(|error| error.to_string())
    }
}

/// Records into the chain; when the record says that a unit is gone, its secrets and its way are forgotten.
pub(super) struct Afterwards {
    pub(super) chain: Arc<Chain>,
    pub(super) platform: Arc<PlatformKeys>,
    pub(super) stations: Stations,
}

impl Recorder for Afterwards {
    fn record(&self, about: &About, event: Event) {
        let is_removed =
            matches!(&event, Event::Receipt(receipt) if receipt.outcome == Outcome::Removed);
        self.chain.record(about, event);
        if let Some(unit) = about.unit.as_ref().filter(|_| is_removed) {
            self.platform.forget(unit);
            self.stations.forget(unit);
        }
    }
}
