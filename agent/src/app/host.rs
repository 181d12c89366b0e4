//! Small joints between parts that do not know each other.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use dotmac_protocol::{
    frame::Question,
    ids::{PartName, UnitId},
    record::{Event, HealthStatus, Outcome},
};
use dotmac_runtime::supervise;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::{
    chain::Chain,
    link::Host,
    logs,
    platform::PlatformKeys,
    reconcile::{Reconciler, Statuses, environment::Environments},
    reports::Reports,
    stations::Stations,
    unit::{About, Recorder},
};

/// Copies whose environment waits for a slow reader.
const COPIES_WAITING_MAX: usize = 1;

/// What the link asks of the reconciler.
pub(super) struct LinkHost {
    statuses: watch::Receiver<Arc<Statuses>>,
    environments: Environments,
    data_dir: PathBuf,
}

impl LinkHost {
    pub(super) fn new(reconciler: &Reconciler, data_dir: &Path) -> Self {
        Self {
            statuses: reconciler.status(),
            environments: reconciler.environments(),
            data_dir: data_dir.to_owned(),
        }
    }

    /// One line of JSON a copy.
    async fn environment(
        &self,
        unit: UnitId,
        component: Option<PartName>,
    ) -> Result<mpsc::Receiver<String>, String> {
        let environments = self.environments.clone();
        let reading =
            tokio::task::spawn_blocking(move || environments.of(&unit, component.as_ref()));
        let copies = match reading.await {
            Ok(copies) => copies.map_err(|error| error.to_string())?,
            Err(_) => return Err("the agent failed while it looked".to_owned()),
        };
        let (pieces, receiver) = mpsc::channel(COPIES_WAITING_MAX);
        supervise::spawn("environment", async move {
            for copy in copies {
                let mut line =
                    serde_json::to_string(&copy).expect("names and texts have a JSON form");
                line.push('\n');
                if pieces.send(line).await.is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

impl Host for LinkHost {
    fn health(&self, unit: &UnitId) -> HealthStatus {
        let statuses = self.statuses.borrow();
        statuses
            .get(unit)
            .map_or(HealthStatus::Unknown, |status| status.health)
    }

    fn answer(&self, question: Question) -> BoxFuture<'_, Result<mpsc::Receiver<String>, String>> {
        Box::pin(async move {
            match question {
                Question::Logs {
                    unit,
                    component,
                    lines,
                    follow,
                    ..
                } => logs::read(&self.data_dir, &unit, component.as_ref(), lines, follow)
                    .map_err(|error| error.to_string()),
                Question::Environment {
                    unit, component, ..
                } => self.environment(unit, component).await,
            }
        })
    }
}

/// Records into the chain; when the record says that a unit is gone, its secrets, its way and its reports are forgotten.
pub(super) struct Afterwards {
    pub(super) chain: Arc<Chain>,
    pub(super) platform: Arc<PlatformKeys>,
    pub(super) stations: Stations,
    pub(super) reports: Arc<Reports>,
}

impl Recorder for Afterwards {
    fn record(&self, about: &About, event: Event) {
        let is_removed =
            matches!(&event, Event::Receipt(receipt) if receipt.outcome == Outcome::Removed);
        self.chain.record(about, event);
        if let Some(unit) = about.unit.as_ref().filter(|_| is_removed) {
            self.platform.forget(unit);
            self.stations.forget(unit);
            self.reports.forget(unit);
        }
    }
}
