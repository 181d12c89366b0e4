//! What waits for the controllers' acknowledgement: where it lies, how many bytes it is, and how much of it are the
//! reports of which unit. It decides how much one unit may have waiting, and leaves the rest to the others.

use std::collections::{BTreeMap, VecDeque};

use dotmac_protocol::{
    ids::UnitId,
    record::{Event, Record},
};

use super::walk::Place;

/// Records that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    places: VecDeque<(Place, Option<UnitId>)>,
    bytes: u64,
    reported: BTreeMap<UnitId, u64>,
}

impl Outbox {
    /// A record that has to wait.
    pub(super) fn push(&mut self, record: &Record, place: Place) {
        let bytes = u64::from(place.length);
        let reporter = match record.event {
            Event::Reports(_) => record.unit.clone(),
            Event::Receipt(_) | Event::Health(_) | Event::Audit { .. } => None,
        };
        if let Some(unit) = &reporter {
            *self.reported.entry(unit.clone()).or_default() += bytes;
        }
        self.bytes += bytes;
        self.places.push_back((place, reporter));
    }

    /// The oldest `count` do not wait any more.
    pub(super) fn release(&mut self, count: usize) {
        let count = count.min(self.places.len());
        for (place, reporter) in self.places.drain(..count) {
            let bytes = u64::from(place.length);
            self.bytes -= bytes;
            let Some(unit) = reporter else { continue };
            if let Some(waiting) = self.reported.get_mut(&unit) {
                *waiting -= bytes;
                if *waiting == 0 {
                    self.reported.remove(&unit);
                }
            }
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a unit may report more while at most so many bytes may wait: its own must not be more than what is still
    /// free. So one that floods takes half, the next a quarter, and one that reports little finds room.
    pub(super) fn has_room_for(&self, unit: Option<&UnitId>, bytes_max: u64) -> bool {
        let own = unit.and_then(|unit| self.reported.get(unit));
        let own = own.copied().unwrap_or_default();
        own < bytes_max.saturating_sub(self.bytes)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where what waits lies, oldest first.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().map(|(place, _)| place)
    }
}
