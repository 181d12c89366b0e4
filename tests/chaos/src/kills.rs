//! `kill -9` of leaders and followers under load, sometimes of a majority at once. Failover is the time from the kill of a
//! leader to the acknowledgement of a write that a client asked for right after it, retrying as documented.

use std::time::Duration;

use anyhow::{Context as _, Result};
use dotmac_runtime::{entropy::Entropy, process::Signal};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    client::{Client, Request},
    cluster::{Cluster, NODES},
    load::Load,
    tally::Tally,
    tell,
};

/// Kills between two judgements.
const ROUND: u64 = 5;
/// Milliseconds after which a failover is worth a word.
const SLOW_MS: u64 = 2_500;
/// How long writes may take to go on.
const WRITES_WITHIN: Duration = Duration::from_secs(30);

/// Kills so many processes.
pub(crate) async fn run(count: u64, tally: &mut Tally) -> Result<()> {
    let home = crate::scratch("chaos-kills-")?;
    let mut cluster = Cluster::on_loopback(home.path()).await?;
    cluster.start_all().await?;
    let entropy = Entropy::system();
    while tally.kills < count {
        let load = Load::start(&cluster.client).await?;
        let goal = count.min(tally.kills + ROUND);
        while tally.kills < goal {
            load.more(5, WRITES_WITHIN).await?;
            kill(&mut cluster, &entropy, tally).await?;
        }
        load.more(5, WRITES_WITHIN).await?;
        crate::judge(&mut cluster, load, tally).await?;
        tell(&format!(
            "{} of {count} kills, {} acknowledged, {} lost",
            tally.kills, tally.acknowledged, tally.lost
        ));
    }
    tally.double_votes += cluster.double_votes()?;
    cluster.stop().await
}

/// Kills one or two, and brings them back.
async fn kill(cluster: &mut Cluster, entropy: &Entropy, tally: &mut Tally) -> Result<()> {
    let leader = cluster.leader().await?;
    let follower = (leader + 1 + usize::from(entropy.below(2) == 1)) % NODES;
    let victims = match entropy.below(20) {
        0..10 => vec![leader],
        10..17 => vec![follower],
        17..19 => vec![leader, follower],
        _ => vec![follower, (NODES * 2 - leader - follower) % NODES],
    };
    let client = cluster.client.clone();
    for victim in &victims {
        let status = cluster.seats[*victim].end(Signal::KILL).await?;
        anyhow::ensure!(status.code().is_none(), "a kill was no kill: {status}");
    }
    let killed = Instant::now();
    tally.kills += victims.len() as u64;
    if victims == [leader] {
        let probe = probe(&client, leader, entropy).await;
        let attempts = probe.context("no write after the leader was killed")?;
        let took = u64::try_from(killed.elapsed().as_millis())?;
        tally.failovers_ms.push(took);
        if took > SLOW_MS {
            let name = leader + 1;
            tell(&format!(
                "{took} ms after leader {name} was killed: {attempts:?}"
            ));
        }
    }
    for victim in victims {
        cluster.start(victim)?;
    }
    cluster.ready().await
}

/// A write that begins with the controller that is gone, or with another one: a client does not know.
/// Gives what was heard before it was acknowledged.
async fn probe(client: &Client, leader: usize, entropy: &Entropy) -> Option<Vec<String>> {
    let first = (leader + usize::from(entropy.below(2) == 1)) % NODES;
    let body = json!({"tenant_name": "after a kill"});
    let key = entropy.hex(16);
    let request = Request::change(Method::POST, "/api/v1/tenants", body, key);
    let reply = client.ask(first, &request, WRITES_WITHIN).await?;
    (reply.status == 201).then_some(reply.attempts)
}
