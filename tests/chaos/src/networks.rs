//! Network namespaces: one for each controller and one, with a bridge between them, for the clients, so that no packet
//! leaves what was made here. Who shall not hear whom is a rule in the receiver's namespace that drops by source; the
//! kernel counts what it drops.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result};

use crate::{
    cluster::NODES,
    seat::Place,
    shell::{run, run_all},
};

const API_PORT: u16 = 8443;
const LINK_PORT: u16 = 7443;
/// Priority of the rule that finds the own addresses; those that drop come before it.
const LOCAL_RULE: u32 = 100;

/// Names of the namespaces and addresses in them.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    name: String,
}

impl Network {
    /// A name for one; nothing is made.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// The namespace of the clients, with the bridge.
    pub(crate) fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// The namespace of a controller.
    fn node(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// Makes the namespaces.
    pub(crate) async fn make(&self) -> Result<()> {
        let hub = self.hub();
        let mut lines = vec![
            format!("ip netns add {hub}"),
            format!("ip -n {hub} link set lo up"),
            format!("ip -n {hub} link add hub type bridge"),
            format!("ip -n {hub} addr add 10.77.0.254/24 dev hub"),
            format!("ip -n {hub} link set hub up"),
        ];
        for index in 0..NODES {
            let (node, address) = (self.node(index), Self::address(index));
            let in_node = format!("ip netns exec {node}");
            lines.extend([
                format!("ip netns add {node}"),
                format!("ip -n {hub} link add node{index} type veth peer name eth0 netns {node}"),
                format!("ip -n {hub} link set node{index} master hub up"),
                format!("ip -n {node} link set lo up"),
                format!("ip -n {node} addr add {address}/24 dev eth0"),
                format!("ip -n {node} link set eth0 up"),
                // A connection that is known already would pass by the rules.
                format!("{in_node} sysctl -q -w net.ipv4.ip_early_demux=0"),
                format!("ip -n {node} rule add pref {LOCAL_RULE} lookup local"),
                format!("ip -n {node} rule del pref 0"),
            ]);
        }
        run_all(&lines).await
    }

    /// Removes what was made of it.
    pub(crate) async fn remove(&self) {
        for namespace in (0..NODES).map(|index| self.node(index)).chain([self.hub()]) {
            // It may not have been made.
            let _ = run(&format!("ip netns del {namespace}")).await;
        }
    }

    /// Where the controllers listen.
    pub(crate) fn places(&self) -> [Place; NODES] {
        [0, 1, 2].map(|index| {
            let address = IpAddr::V4(Self::address(index));
            Place {
                api: SocketAddr::new(address, API_PORT),
                link: SocketAddr::new(address, LINK_PORT),
                namespace: Some(self.node(index)),
            }
        })
    }

    /// From now on `to` hears nothing of `from`.
    pub(crate) async fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.rule("add", from, to).await
    }

    /// From now on `to` hears `from` again.
    pub(crate) async fn mend(&self, from: usize, to: usize) -> Result<()> {
        self.rule("del", from, to).await
    }

    async fn rule(&self, verb: &str, from: usize, to: usize) -> Result<()> {
        let (node, source) = (self.node(to), Self::address(from));
        let preference = from + 1;
        let line = format!("ip -n {node} rule {verb} pref {preference} from {source}/32 blackhole");
        run(&line).await.map(|_| ())
    }
}

/// Packets that the namespace of a process has dropped because a rule said so.
pub(crate) fn dropped(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = names.zip(values).context("no counters of IP")?;
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let found = both.find(|(name, _)| *name == "InAddrErrors");
    let (_, value) = found.context("no counter of dropped packets")?;
    Ok(value.parse()?)
}
