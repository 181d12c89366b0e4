//! Which port belongs to whom in a local fleet. All of them follow from one base, so that two fleets live side by side.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    ops::RangeInclusive,
};

use super::layout::Settings;

/// Controllers of a local fleet.
pub(crate) const CONTROLLERS: u16 = 3;
/// Regions of a local fleet; one agent each.
pub(crate) const REGIONS: [&str; 5] = [
    "aws-eu-west-1",
    "azure-westeurope",
    "gcp-europe-west1",
    "do-fra1",
    "byov-lagos",
];
/// The base when DOTMAC_PORT_BASE is not set.
pub(crate) const BASE_DEFAULT: u16 = 8000;

const QUIC_OFFSET: u16 = 10;
const INSTANCE_API_OFFSET: u16 = 20;
const INSTANCES_OFFSET: u16 = 100;
const INSTANCES_EACH: u16 = 100;

/// All ports of one fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    base: u16,
}

/// One port that a process listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// TCP on the loopback.
    Tcp(u16),
    /// UDP on the loopback.
    Udp(u16),
}

impl Ports {
    /// The ports above a base; `None` when they do not fit below 65536 or reach privileged ports.
    pub(crate) fn from_base(base: u16) -> Option<Self> {
        let agents = u16::try_from(REGIONS.len()).expect("five");
        let span = INSTANCES_OFFSET + agents * INSTANCES_EACH;
        (base >= 1024 && base.checked_add(span).is_some()).then_some(Self { base })
    }

    /// HTTP API of controller 1, 2 or 3.
    pub(crate) fn api(self, node: u16) -> u16 {
        self.base + node - 1
    }

    /// QUIC endpoint (UDP) of controller 1, 2 or 3.
    pub(crate) fn link(self, node: u16) -> u16 {
        self.base + QUIC_OFFSET + node - 1
    }

    /// Platform API of the agent in the region at this place.
    pub(crate) fn instance_api(self, region: u16) -> u16 {
        self.base + INSTANCE_API_OFFSET + region
    }

    /// What instances of the agent in the region at this place listen on.
    pub(crate) fn instances(self, region: u16) -> RangeInclusive<u16> {
        let first = self.base + INSTANCES_OFFSET + region * INSTANCES_EACH;
        first..=first + INSTANCES_EACH - 1
    }
}

impl Port {
    /// Whether nobody listens there; `false` too when the system does not say.
    pub(crate) fn is_free(self) -> bool {
        match self {
            Self::Tcp(port) => TcpListener::bind(loopback(port)).is_ok(),
            Self::Udp(port) => UdpSocket::bind(loopback(port)).is_ok(),
        }
    }

    /// The line to show when it is taken. A fleet that exists keeps its ports: its controllers know each other by them.
    pub(crate) fn taken(self, who: &str, settings: &Settings, exists: bool) -> String {
        let (protocol, port) = match self {
            Self::Tcp(port) => ("TCP", port),
            Self::Udp(port) => ("UDP", port),
        };
        let base = settings.port_base;
        let way_out = if exists {
            format!(
                "this fleet was made with DOTMAC_PORT_BASE={base} and keeps its ports: end the program that uses it, \
                 or make another fleet with DOTMAC_HOME and DOTMAC_PORT_BASE"
            )
        } else {
            format!("DOTMAC_PORT_BASE (now {base}) moves every port")
        };
        format!("{protocol} port {port} for {who} is in use: {way_out}")
    }
}

fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::TcpListener};

    use super::{CONTROLLERS, Port, Ports, REGIONS, loopback};

    fn all(base: u16) -> Vec<u16> {
        let ports = Ports::from_base(base).unwrap();
        let regions = 0..u16::try_from(REGIONS.len()).unwrap();
        let controllers = (1..=CONTROLLERS).flat_map(|node| [ports.api(node), ports.link(node)]);
        let agents = regions.flat_map(|region| {
            std::iter::once(ports.instance_api(region)).chain(ports.instances(region))
        });
        controllers.chain(agents).collect()
    }

    #[test]
    fn no_two_processes_share_a_port_and_two_fleets_share_none() {
        let one = all(8000);
        let set: BTreeSet<_> = one.iter().copied().collect();
        assert_eq!(set.len(), one.len());
        assert_eq!((one[0], one[1], one[5]), (8000, 8010, 8012));
        assert!(set.contains(&8024) && set.contains(&8100) && set.contains(&8599));
        assert!(all(9000).iter().all(|port| !set.contains(port)));
    }

    #[test]
    fn a_base_that_does_not_fit_is_refused() {
        for base in [0, 80, 1023, 64_936, u16::MAX] {
            assert_eq!(Ports::from_base(base), None, "{base}");
        }
        assert!(Ports::from_base(64_935).is_some());
    }

    #[test]
    fn a_port_in_use_is_seen() {
        // Below those that the system gives to others while this looks.
        let (port, listener) = (10_000..32_768)
            .find_map(|port| {
                let free = Port::Tcp(port).is_free();
                let listener = TcpListener::bind(loopback(port)).ok().filter(|_| free)?;
                Some((Port::Tcp(port), listener))
            })
            .unwrap();
        assert!(!port.is_free());
        drop(listener);
        assert!(port.is_free());
    }
}
