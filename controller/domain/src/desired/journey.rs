//! The way of the order that made a deployment, station by station: a story for people, by which nothing is decided.

use dotmac_protocol::{ids::DeploymentId, record::Hop, time::Timestamp};

use crate::state::State;

/// Stations of a journey at most; later ones are left out.
pub const JOURNEY_MAX: usize = 64;
/// Bytes of a station's name at most; a longer one is left out.
pub const STATION_BYTES_MAX: usize = 64;

impl State {
    /// Notes a station once, while the first order is under way.
    pub(crate) fn note_hop(&mut self, id: &DeploymentId, station: &str, at: Timestamp) {
        let Some(deployment) = self.deployments.get(id) else {
            return;
        };
        let is_known = deployment.journey.iter().any(|hop| hop.station == station);
        let is_full = deployment.journey.len() >= JOURNEY_MAX || station.len() > STATION_BYTES_MAX;
        if is_known || is_full || deployment.deployed_at.is_some() {
            return;
        }
        let hop = Hop {
            station: station.into(),
            at,
        };
        let updated = deployment.updated_at;
        self.change_deployment(id, updated, |deployment| deployment.journey.push(hop));
    }
}
