//! Free ports for a fleet: a whole range that nobody listens on, away from those that the system gives to clients.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result};

/// Ports of one fleet, as `make up` lays them out.
const SPAN: u16 = 600;
/// Within the span, a port that no process of a fleet uses.
const MARK: u16 = 99;

/// A range of ports that is this program's as long as it is held.
#[derive(Debug)]
pub struct Reserved {
    /// The first port of the range.
    pub base: u16,
    _mark: TcpListener,
}

/// Finds a free range and keeps other harnesses out of it.
///
/// # Errors
/// When there is none.
pub fn reserve() -> Result<Reserved> {
    let clients = client_ports().unwrap_or((32_768, 60_999));
    let last = clients.0.min(32_768).saturating_sub(SPAN);
    let first = 10_000;
    let ranges = u32::from((last - first) / SPAN);
    let start = std::process::id() % ranges.max(1);
    (0..ranges)
        .map(|place| first + u16::try_from((start + place) % ranges).unwrap_or(0) * SPAN)
        .find_map(take)
        .context("no range of 600 ports is free")
}

fn take(base: u16) -> Option<Reserved> {
    let mark = TcpListener::bind((Ipv4Addr::LOCALHOST, base + MARK)).ok()?;
    let is_free = (base..base + SPAN)
        .filter(|port| *port != base + MARK)
        .all(|port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
    is_free.then_some(Reserved { base, _mark: mark })
}

/// The range from which the system gives ports to outgoing connections.
fn client_ports() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::reserve;

    #[test]
    fn two_ranges_never_overlap() {
        let (one, other) = (reserve().unwrap(), reserve().unwrap());
        assert!(one.base.abs_diff(other.base) >= super::SPAN);
    }
}
