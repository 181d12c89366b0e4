//! What memory and disk entities of 512 bytes take: tenants of ours, keys of etcd. Told for 100,000 of them, of one node.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use dotmac_runtime::supervise;
use dotmac_tests::fleet::CONTROLLERS;
use hyper::StatusCode;
use serde_json::json;

use super::create;
use crate::{
    etcd::{Etcd, Verb},
    ground::Ground,
    memory::resident_mib,
    report::{Found, put},
    tell,
    wire::Wire,
};

/// Connections over which they are made.
const MAKERS: u64 = 32;
/// For how many the figures are told.
const PER: f64 = 100_000.0;

/// Makes so many entities here and there, and tells what they take.
pub(super) async fn compare(
    entities: u64,
    ground: &Ground,
    etcd: &Etcd,
    found: &mut Found,
) -> Result<()> {
    let stores = || CONTROLLERS.map(|name| ground.fleet.home().join(name).join("data/store"));
    let pids = || CONTROLLERS.map(|name| ground.fleet.process(name).map(|one| one.pid));
    let ours = pids().into_iter().collect::<Result<Vec<u32>>>()?;
    let before = (resident(&ours)?, disk(&stores())?);
    let theirs_before = (resident(&etcd.pids())?, disk(&[etcd.home()])?);
    make(ground, entities).await?;
    etcd.drive(Verb::Put, MAKERS, entities).await?;
    let nodes = 3.0;
    let per = PER / f64::from(u32::try_from(entities)?) / nodes;
    let figures = [
        ("", resident(&ours)? - before.0, disk(&stores())? - before.1),
        (
            "etcd_",
            resident(&etcd.pids())? - theirs_before.0,
            disk(&[etcd.home()])? - theirs_before.1,
        ),
    ];
    found.insert("entities".into(), json!(entities));
    for (prefix, memory, disk) in figures {
        let (memory, disk) = (memory * per, disk * per);
        put(found, format!("{prefix}memory_mib_per_100k"), memory);
        put(found, format!("{prefix}disk_mib_per_100k"), disk);
        let who = if prefix.is_empty() { "ours" } else { "etcd" };
        tell(&format!(
            "100,000 entities of 512 bytes on one node, {who}: {memory:.0} MiB of memory, {disk:.0} MiB of disk"
        ));
    }
    Ok(())
}

async fn make(ground: &Ground, entities: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut makers = Vec::new();
    for (number, target) in (0..MAKERS).zip(ground.targets.iter().cycle()) {
        let (target, next) = (target.clone(), Arc::clone(&next));
        makers.push(supervise::spawn("bench maker", async move {
            let mut wire = Wire::open(&target, number).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= entities {
                    return Ok(());
                }
                let (status, body) = wire.ask(&create(number)).await?;
                let text = String::from_utf8_lossy(&body);
                anyhow::ensure!(status == StatusCode::CREATED, "create: {status}: {text}");
            }
        }));
    }
    for maker in makers {
        maker.await??;
    }
    Ok(())
}

fn resident(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| resident_mib(*pid)).sum()
}

/// Mebibytes below these directories.
pub(crate) fn disk(directories: &[impl AsRef<Path>]) -> Result<f64> {
    let mut bytes = 0;
    let mut left: Vec<_> = directories
        .iter()
        .map(|one| one.as_ref().to_owned())
        .collect();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(kept) if kept.is_dir() => left.push(entry.path()),
                Ok(kept) => bytes += std::os::unix::fs::MetadataExt::blocks(&kept) * 512,
                // A temporary file that was renamed meanwhile.
                Err(_) => {}
            }
        }
    }
    Ok(f64::from(u32::try_from(bytes / 1024)?) / 1024.0)
}
