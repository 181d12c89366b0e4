//! Lets others see how the agent is: the status listener from the start on, figures and spans once it works.

use std::sync::Arc;

use dotmac_runtime::telemetry::{Service, Telemetry};
use tokio::{sync::watch, task::JoinHandle};

use super::{Agent, AppError, VERSION};
use crate::{
    license_time::LicenseTime,
    link::{Link, identity::Certificate},
    metrics::{Figures, Metrics},
    reconcile::Statuses,
    stations::Stations,
    status::{self, Status},
    trust::TrustStore,
};

impl Agent {
    /// Where the spans of this agent go, if anywhere.
    pub(super) fn telemetry(
        &self,
        certificate: &Certificate,
        trust: &TrustStore,
    ) -> Result<Telemetry, AppError> {
        let service = Service {
            name: "dotmac-agent",
            namespace: trust.current().cluster.to_string(),
            instance: certificate.agent.to_string(),
            version: VERSION,
        };
        let endpoint = self.config.telemetry.otlp_endpoint.as_ref();
        Telemetry::start(endpoint, service, &self.surroundings.clock).map_err(AppError::Telemetry)
    }

    /// From now on it can be asked how this agent is.
    pub(super) async fn tell(
        &self,
        metrics: &Metrics,
    ) -> Result<(Status, JoinHandle<()>), AppError> {
        let port_file = self.data.status_port_file();
        let bound = status::bind(self.config.status, &port_file).await;
        let status = Status::new(metrics.clone());
        let telling = status.serve(bound.map_err(AppError::Status)?);
        Ok((status, telling))
    }
}

/// From now on the metrics tell of what runs.
pub(super) fn of_work(
    stations: &Stations,
    license_time: LicenseTime,
    statuses: watch::Receiver<Arc<Statuses>>,
    link: &Arc<Link>,
) {
    stations.metrics().watch(Figures {
        statuses,
        link: Arc::clone(link),
        license_time,
        traces: stations.traces().clone(),
    });
}
