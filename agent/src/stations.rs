//! The way of an order through the agent: which station it passed when. For people; nothing is decided by it.
//!
//! It keeps one generation per unit, the first time of each station, and a bounded number of both.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_protocol::{
    frame::INVENTORY_MAX,
    ids::{Generation, UnitId},
    record::Hop,
    time::Timestamp,
};

use crate::{metrics::Metrics, traces::Traces};

/// Stations kept per unit; further ones are not noted.
pub const STATIONS_MAX: usize = 32;
/// Bytes of a station's name kept of what others wrote.
const STATION_BYTES_MAX: usize = 64;

/// The frame of an intent arrived.
pub const RECEIVED: &str = "agent.received";
/// The intent is on the agent's disk.
pub const JOURNALLED: &str = "agent.journalled";
/// The instance's licence was validated through the agent.
pub const LICENSED: &str = "instance.licensed";
/// The instance fetched its configuration through the agent.
pub const CONFIGURED: &str = "instance.configured";

/// Where all parts of an agent note the stations of orders. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Stations {
    units: Arc<Mutex<BTreeMap<UnitId, Way>>>,
    traces: Traces,
    metrics: Metrics,
}

#[derive(Debug)]
struct Way {
    generation: Generation,
    hops: Vec<Hop>,
    /// Whether the way was taken: it is told once.
    told: bool,
}

impl Stations {
    /// A list whose stations are spans, too.
    #[must_use]
    pub fn traced(traces: Traces, metrics: Metrics) -> Self {
        let units = Arc::default();
        Self {
            units,
            traces,
            metrics,
        }
    }

    /// Where the spans of orders go.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// What is counted on the way.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Notes that a generation of a unit passed a station. The first time counts; an older generation is ignored,
    /// and so is one whose way was already taken.
    pub fn note(&self, unit: &UnitId, generation: Generation, station: &str, now: Timestamp) {
        self.edit(unit, generation, |way| way.push(station, now));
    }

    /// Takes over the stations that a generation passed before it reached this agent.
    pub fn carry(&self, unit: &UnitId, generation: Generation, before: &[Hop]) {
        self.edit(unit, generation, |way| {
            for hop in before {
                way.push(&hop.station, hop.at);
            }
        });
    }

    /// The way so far, in the order of passing.
    #[must_use]
    pub fn peek(&self, unit: &UnitId) -> Vec<Hop> {
        self.lock()
            .get(unit)
            .filter(|way| !way.told)
            .map_or_else(Vec::new, |way| way.hops.clone())
    }

    /// The whole way, once per generation: afterwards it is empty until a newer generation comes.
    #[must_use]
    pub fn take(&self, unit: &UnitId) -> Vec<Hop> {
        let mut units = self.lock();
        units.get_mut(unit).map_or_else(Vec::new, |way| {
            way.told = true;
            std::mem::take(&mut way.hops)
        })
    }

    /// Forgets a unit that is gone.
    pub fn forget(&self, unit: &UnitId) {
        self.lock().remove(unit);
    }

    fn edit(&self, unit: &UnitId, generation: Generation, change: impl FnOnce(&mut Way)) {
        let mut units = self.lock();
        if units.len() >= INVENTORY_MAX && !units.contains_key(unit) {
            return;
        }
        let way = units
            .entry(unit.clone())
            .or_insert_with(|| Way::new(generation));
        if way.generation < generation {
            *way = Way::new(generation);
        }
        if way.generation == generation && !way.told {
            change(way);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<UnitId, Way>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            hops: Vec::new(),
            told: false,
        }
    }

    fn push(&mut self, station: &str, at: Timestamp) {
        let known = self.hops.iter().any(|hop| hop.station == station);
        if !known && self.hops.len() < STATIONS_MAX && station.len() <= STATION_BYTES_MAX {
            let station = station.to_owned();
            self.hops.push(Hop { station, at });
        }
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        ids::{Generation, UnitId},
        record::Hop,
        time::Timestamp,
    };

    use super::{STATIONS_MAX, Stations};

    fn unit() -> UnitId {
        "instance/demo-isp-0190a1b2".parse().unwrap()
    }

    fn hop(station: &str, at: u64) -> Hop {
        Hop {
            station: station.into(),
            at: Timestamp(at),
        }
    }

    #[test]
    fn the_first_time_of_a_station_counts_and_the_way_is_told_once() {
        let stations = Stations::default();
        stations.carry(&unit(), Generation(1), &[hop("api.accepted", 1)]);
        stations.note(&unit(), Generation(1), "agent.received", Timestamp(5));
        stations.note(&unit(), Generation(1), "agent.received", Timestamp(9));
        let way = vec![hop("api.accepted", 1), hop("agent.received", 5)];
        assert_eq!(stations.peek(&unit()), way);
        assert_eq!(stations.take(&unit()), way);
        stations.note(&unit(), Generation(1), "instance.licensed", Timestamp(10));
        assert_eq!(stations.take(&unit()), vec![]);
    }

    #[test]
    fn a_newer_generation_starts_afresh_and_an_older_one_is_ignored() {
        let stations = Stations::default();
        stations.note(&unit(), Generation(2), "agent.received", Timestamp(1));
        stations.note(&unit(), Generation(1), "agent.journalled", Timestamp(2));
        assert_eq!(stations.peek(&unit()), vec![hop("agent.received", 1)]);
        stations.note(&unit(), Generation(3), "agent.received", Timestamp(3));
        assert_eq!(stations.peek(&unit()), vec![hop("agent.received", 3)]);
    }

    #[test]
    fn stations_are_bounded() {
        let stations = Stations::default();
        for number in 0..100 {
            let station = format!("station.{number}");
            stations.note(&unit(), Generation(1), &station, Timestamp(number));
        }
        assert_eq!(stations.peek(&unit()).len(), STATIONS_MAX);
    }
}
