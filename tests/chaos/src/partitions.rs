//! The network falls apart under load, in every shape that three controllers know, also in one direction only. A
//! partition counts only if the kernel dropped packets of everyone who was not to be heard.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::entropy::Entropy;
use dotmac_tests::wait::until;
use tokio::{process::Command, time::Instant};

use crate::{
    cluster::{Cluster, NODES, RESERVE_BYTES},
    load::Load,
    networks::{Network, dropped},
    tally::Tally,
    tell,
};

/// Partitions between two judgements.
const ROUND: u64 = 3;
/// How long writes may take to go on.
const WRITES_WITHIN: Duration = Duration::from_secs(60);
/// How long packets may take to be dropped: followers send nothing of their own accord for a while.
const DROPPED_WITHIN: Duration = Duration::from_secs(10);
/// Milliseconds that a partition lasts at most after packets were dropped.
const LASTS_MS: u64 = 3_000;

/// Makes the namespaces and a process within them that does the rest: its clients must be in there, too.
pub(crate) async fn run(count: u64, tally: &mut Tally) -> Result<()> {
    let name = format!("chaos{}", std::process::id());
    let network = Network::named(&name);
    let ran = async {
        network.make().await?;
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &network.hub()]);
        inside.arg(std::env::current_exe()?).arg("partitions");
        inside.args(["--count", &count.to_string(), "--network", &name]);
        inside.stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = inside.kill_on_drop(true).output().await?;
        ensure!(
            output.status.success(),
            "the partitions ended: {}",
            output.status
        );
        Ok(serde_json::from_slice::<Tally>(&output.stdout)?)
    };
    let ran = ran.await;
    network.remove().await;
    tally.add(ran?);
    Ok(())
}

/// Makes so many partitions, from within the clients' namespace.
pub(crate) async fn run_inside(count: u64, network: &str, tally: &mut Tally) -> Result<()> {
    let network = Network::named(network);
    let home = crate::scratch("chaos-partitions-")?;
    let mut cluster = Cluster::make(home.path(), network.places(), RESERVE_BYTES).await?;
    cluster.start_all().await?;
    let entropy = Entropy::system();
    while tally.partitions < count {
        let load = Load::start(&cluster.client).await?;
        let goal = count.min(tally.partitions + ROUND);
        while tally.partitions < goal {
            load.more(5, WRITES_WITHIN).await?;
            let leader = cluster.leader().await?;
            let shape = SHAPES[usize::try_from(tally.partitions)? % SHAPES.len()];
            let packets = partition(&mut cluster, &network, &entropy, &shape.cuts(leader)).await;
            let packets = packets.with_context(|| format!("{shape:?}"))?;
            tally.partitions += 1;
            tally.packets_dropped += packets;
            load.more(5, WRITES_WITHIN)
                .await
                .with_context(|| format!("after {shape:?}"))?;
            cluster.ready().await?;
        }
        crate::judge(&mut cluster, load, tally).await?;
        tell(&format!(
            "{} of {count} partitions, {} packets dropped, {} acknowledged, {} lost",
            tally.partitions, tally.packets_dropped, tally.acknowledged, tally.lost
        ));
    }
    tally.double_votes += cluster.double_votes()?;
    cluster.stop().await
}

/// What falls apart.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// The leader on its own.
    Leader,
    /// A follower on its own.
    Follower,
    /// Everybody on his own.
    Everybody,
    /// Nobody hears the leader; it hears everybody.
    LeaderUnheard,
    /// The leader hears nobody; everybody hears it.
    LeaderDeaf,
    /// Nobody hears one follower.
    FollowerUnheard,
    /// One follower hears nobody.
    FollowerDeaf,
    /// Leader and one follower do not hear each other; the other follower is a bridge.
    BridgeToLeader,
    /// The followers do not hear each other.
    BridgeAtLeader,
    /// In a ring, each hears only one of the others.
    Ring,
}

const SHAPES: [Shape; 10] = [
    Shape::Leader,
    Shape::LeaderUnheard,
    Shape::Follower,
    Shape::BridgeToLeader,
    Shape::LeaderDeaf,
    Shape::Everybody,
    Shape::FollowerUnheard,
    Shape::Ring,
    Shape::FollowerDeaf,
    Shape::BridgeAtLeader,
];

impl Shape {
    /// Who is not heard by whom any more.
    fn cuts(self, leader: usize) -> Vec<(usize, usize)> {
        let (one, other) = ((leader + 1) % NODES, (leader + 2) % NODES);
        let alone = |node: usize| {
            let rest = (0..NODES).filter(move |rest| *rest != node);
            rest.flat_map(move |rest| [(node, rest), (rest, node)])
                .collect::<Vec<_>>()
        };
        match self {
            Self::Leader => alone(leader),
            Self::Follower => alone(one),
            Self::Everybody => {
                let mut all = alone(leader);
                all.extend([(one, other), (other, one)]);
                all
            }
            Self::LeaderUnheard => vec![(leader, one), (leader, other)],
            Self::LeaderDeaf => vec![(one, leader), (other, leader)],
            Self::FollowerUnheard => vec![(one, leader), (one, other)],
            Self::FollowerDeaf => vec![(leader, one), (other, one)],
            Self::BridgeToLeader => vec![(leader, one), (one, leader)],
            Self::BridgeAtLeader => vec![(one, other), (other, one)],
            Self::Ring => vec![(leader, one), (one, other), (other, leader)],
        }
    }
}

/// One partition: cut, seen to drop packets at every controller that is to hear less, kept for a while, mended.
async fn partition(
    cluster: &mut Cluster,
    network: &Network,
    entropy: &Entropy,
    cuts: &[(usize, usize)],
) -> Result<u64> {
    let pids: Vec<u32> = cluster
        .seats
        .iter()
        .map(|seat| seat.pid())
        .collect::<Result<_>>()?;
    let counts = || {
        pids.iter()
            .map(|pid| dropped(*pid))
            .collect::<Result<Vec<_>>>()
    };
    let before = counts()?;
    for (from, to) in cuts {
        network.cut(*from, *to).await?;
    }
    let started = Instant::now();
    let happened = until("packets are dropped", DROPPED_WITHIN, async || {
        let now = counts()?;
        let is_dropping = cuts.iter().all(|(_, to)| now[*to] > before[*to]);
        Ok(is_dropping.then_some(()))
    })
    .await;
    // Elections, leases and deadlines end at different times: so do the partitions.
    let lasts = Duration::from_millis(entropy.below(LASTS_MS));
    tokio::time::sleep_until(started + lasts).await;
    for (from, to) in cuts {
        network.mend(*from, *to).await?;
    }
    happened?;
    let after = counts()?;
    cluster.all_run()?;
    Ok(after.iter().sum::<u64>() - before.iter().sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::SHAPES;

    #[test]
    fn every_shape_cuts_something_and_no_two_cut_the_same() {
        let mut all: Vec<_> = SHAPES.iter().map(|shape| shape.cuts(1)).collect();
        for cuts in &mut all {
            cuts.sort_unstable();
            assert!(!cuts.is_empty());
            assert!(
                cuts.iter()
                    .all(|(from, to)| from != to && *from < 3 && *to < 3)
            );
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), SHAPES.len());
    }
}
