//! Which ports of the configured range belong to which slot. A slot keeps its ports over restarts and upgrades, unless
//! a stranger took one meanwhile. It never gives a port to two.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dotmac_protocol::ids::{PartName, UnitId};

use crate::driver::{SlotName, StartError};

/// The ports of one agent.
#[derive(Debug)]
pub struct PortBook {
    range: RangeInclusive<u16>,
    held: Mutex<BTreeMap<u16, (UnitId, SlotName)>>,
}

impl PortBook {
    /// A book in which nothing is held.
    #[must_use]
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            held: Mutex::default(),
        }
    }

    /// Notes ports that a slot holds already, as its unit remembers them.
    pub fn reserve(&self, unit: &UnitId, slot: &SlotName, ports: impl IntoIterator<Item = u16>) {
        let mut held = self.lock();
        for port in ports {
            held.entry(port)
                .or_insert_with(|| (unit.clone(), slot.clone()));
        }
    }

    /// Ports for a slot in which nothing runs: those it had, where they are still free, and new ones.
    ///
    /// # Errors
    /// When the range is used up; the slot then holds what it held.
    pub fn claim<'a>(
        &self,
        unit: &UnitId,
        slot: &SlotName,
        names: impl IntoIterator<Item = &'a PartName>,
        had: &BTreeMap<PartName, u16>,
    ) -> Result<BTreeMap<PartName, u16>, StartError> {
        let mut held = self.lock();
        let mut claimed = BTreeMap::new();
        for name in names {
            let kept = had.get(name).copied().filter(|port| {
                let mine = held
                    .get(port)
                    .is_none_or(|(of, at)| of == unit && at == slot);
                mine && self.range.contains(port) && is_free(*port)
            });
            let port = kept.or_else(|| {
                let mut free = self.range.clone().filter(|port| !held.contains_key(port));
                free.find(|port| is_free(*port))
            });
            let Some(port) = port else {
                held.retain(|port, _| {
                    !claimed.values().any(|new| new == port) || had.values().any(|old| old == port)
                });
                let (first, last) = (*self.range.start(), *self.range.end());
                return Err(StartError::Ports { first, last });
            };
            held.insert(port, (unit.clone(), slot.clone()));
            claimed.insert(name.clone(), port);
        }
        held.retain(|port, (of, at)| {
            (&*of, &*at) != (unit, slot) || claimed.values().any(|mine| mine == port)
        });
        Ok(claimed)
    }

    /// Gives the ports of a slot back.
    pub fn release(&self, unit: &UnitId, slot: &SlotName) {
        self.lock()
            .retain(|_, (of, at)| (&*of, &*at) != (unit, slot));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, (UnitId, SlotName)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::{Ipv4Addr, TcpListener},
    };

    use dotmac_protocol::ids::{PartName, UnitId};

    use super::PortBook;
    use crate::driver::SlotName;

    fn slot(text: &str) -> SlotName {
        text.parse().unwrap()
    }

    #[test]
    fn a_slot_keeps_its_port_and_no_port_has_two_owners() {
        let unit: UnitId = "instance/demo-isp-0190a1b2".parse().unwrap();
        let name: PartName = "http".parse().unwrap();
        let book = PortBook::new(10_000..=19_999);
        let first = book
            .claim(&unit, &slot("web.0"), [&name], &BTreeMap::new())
            .unwrap();
        let second = book
            .claim(&unit, &slot("web.1"), [&name], &BTreeMap::new())
            .unwrap();
        assert_ne!(first, second);
        let again = book.claim(&unit, &slot("web.0"), [&name], &first).unwrap();
        assert_eq!(first, again);
        let stolen = book.claim(&unit, &slot("web.2"), [&name], &first).unwrap();
        assert_ne!(stolen, first, "what another slot holds is not given away");
        book.release(&unit, &slot("web.0"));
        let inherited = book.claim(&unit, &slot("web.3"), [&name], &first).unwrap();
        assert_eq!(inherited, first);
    }

    #[test]
    fn a_port_that_a_stranger_took_is_replaced_and_a_full_range_is_an_error() {
        let unit: UnitId = "instance/demo-isp-0190a1b2".parse().unwrap();
        let name: PartName = "http".parse().unwrap();
        let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = stranger.local_addr().unwrap().port();
        let had = BTreeMap::from([(name.clone(), taken)]);
        let narrow = PortBook::new(taken..=taken);
        assert!(narrow.claim(&unit, &slot("web.0"), [&name], &had).is_err());
        let wide = PortBook::new(20_000..=60_000);
        wide.reserve(&unit, &slot("web.0"), [taken]);
        let claimed = wide.claim(&unit, &slot("web.0"), [&name], &had).unwrap();
        assert_ne!(claimed, had);
    }
}
