//! The power of all three controllers is cut at one instant, under load, and comes back with what their disks hold. A cut
//! counts only if something was written and not on a disk.

use std::time::Duration;

use anyhow::{Result, ensure};
use dotmac_runtime::{entropy::Entropy, process::Signal};
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, NODES},
    images::{Images, Lost},
    load::Load,
    tally::Tally,
    tell,
};

/// How long writes may take to go on.
const WRITES_WITHIN: Duration = Duration::from_secs(60);
/// Cuts in a row that may take nothing, before the run is pointless.
const WITHOUT_EFFECT_MAX: u64 = 20;

/// Cuts the power so many times.
pub(crate) async fn run(count: u64, tally: &mut Tally) -> Result<()> {
    let home = crate::scratch("chaos-power-")?;
    let disks = (1..=NODES).map(|number| home.path().join(format!("controller-{number}/disk")));
    let mut images = Images::make(home.path(), &disks.collect::<Vec<_>>()).await?;
    let mut cluster = Cluster::on_loopback(home.path()).await?;
    cluster.start_all().await?;
    let (entropy, mut in_vain) = (Entropy::system(), 0);
    while tally.power_cuts < count {
        let load = Load::start(&cluster.client).await?;
        load.more(5 + entropy.below(60), WRITES_WITHIN).await?;
        let lost = cut(&mut cluster, &mut images, &home).await?;
        cluster.start_all().await?;
        load.more(5, WRITES_WITHIN).await?;
        crate::judge(&mut cluster, load, tally).await?;
        tally.unsynced_bytes += lost.bytes;
        if lost.bytes == 0 {
            tally.faults_without_effect += 1;
            in_vain += 1;
            ensure!(in_vain < WITHOUT_EFFECT_MAX, "no power cut has any effect");
            continue;
        }
        in_vain = 0;
        tally.power_cuts += 1;
        tally.cuts_within_a_commit += u64::from(lost.database_bytes > 0);
        tell(&format!(
            "{} of {count} power cuts, {} bytes lost of which {} of databases, {} acknowledged, {} lost",
            tally.power_cuts, lost.bytes, lost.database_bytes, tally.acknowledged, tally.lost
        ));
    }
    tally.double_votes += cluster.double_votes()?;
    cluster.stop().await?;
    images.remove().await
}

/// Cuts the power and gives the disks back as it left them.
async fn cut(cluster: &mut Cluster, images: &mut Images, home: &tempfile::TempDir) -> Result<Lost> {
    let copies = home.path().join("copies");
    std::fs::create_dir_all(&copies)?;
    let started = Instant::now();
    let frozen = images.freeze().await?;
    for seat in &cluster.seats {
        seat.signal(Signal::STOP)?;
    }
    images.copy(&copies).await?;
    drop(frozen);
    for seat in &mut cluster.seats {
        seat.end(Signal::KILL).await?;
    }
    let lost = images.restore(&copies).await?;
    std::fs::remove_dir_all(&copies)?;
    let took = started.elapsed();
    ensure!(took < WRITES_WITHIN, "a power cut took {took:?}");
    Ok(lost)
}
