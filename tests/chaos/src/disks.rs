//! Disks that fail once, and disks that fill up. A C library, compiled here and preloaded, lets the n-th sync or write of one
//! controller's files fail: the process must end, and come back without loss. Small disks are filled to the reserve, where
//! controllers stay readable and take no writes until there is room, and to the last byte.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::{entropy::Entropy, process::Signal};
use dotmac_tests::wait::until;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    client::Request,
    cluster::{Cluster, NODES, RESERVE_BYTES},
    images::Image,
    load::Load,
    shell,
    tally::Tally,
    tell,
};

/// The source of the library that fails.
const SOURCE: &str = include_str!("../faults/failing_disk.c");
/// MiB of a small disk: segments of the database, two snapshots, and the reserve.
const DISK_MIB: u64 = 96;
/// Calls after which the one comes that fails, at most.
const NTH_MAX: u64 = 150;
/// How long the failing call may take to come.
const FAILS_WITHIN: Duration = Duration::from_secs(30);
/// How long writes may take to go on.
const WRITES_WITHIN: Duration = Duration::from_secs(60);
const EIO: u32 = 5;
const ENOSPC: u32 = 28;

/// What a disk does.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The n-th sync returns EIO.
    Sync,
    /// The n-th write returns EIO.
    Write,
    /// The n-th write returns ENOSPC.
    Full,
    /// A follower's disk is filled to its reserve.
    ReserveOfFollower,
    /// All disks are filled to their reserve.
    ReserveOfAll,
    /// A follower's disk is filled to the last byte.
    LastByte,
}

const FAULTS: [Fault; 8] = [
    Fault::Sync,
    Fault::Full,
    Fault::ReserveOfFollower,
    Fault::Sync,
    Fault::Write,
    Fault::ReserveOfAll,
    Fault::Sync,
    Fault::LastByte,
];

/// Makes so many disks fail.
pub(crate) async fn run(count: u64, tally: &mut Tally) -> Result<()> {
    let home = crate::scratch("chaos-disks-")?;
    let mut disks = Vec::new();
    for number in 1..=NODES {
        let file = home.path().join(format!("{number}.img"));
        let at = home.path().join(format!("controller-{number}/disk"));
        disks.push(Image::make(file, at, DISK_MIB).await?);
    }
    let mut scene = Scene {
        cluster: Cluster::on_loopback(home.path()).await?,
        library: compile(&home).await?,
        entropy: Entropy::system(),
    };
    scene.cluster.start_all().await?;
    while tally.disk_faults + tally.faults_without_effect < count * 2 && tally.disk_faults < count {
        let fault = FAULTS[usize::try_from(tally.disk_faults)? % FAULTS.len()];
        let load = Load::start(&scene.cluster.client).await?;
        load.more(5, WRITES_WITHIN).await?;
        let has_happened = scene.fail(fault, &load).await;
        let has_happened = has_happened.with_context(|| format!("{fault:?}"))?;
        load.more(5, WRITES_WITHIN).await?;
        crate::judge(&mut scene.cluster, load, tally).await?;
        if has_happened {
            tally.disk_faults += 1;
        } else {
            tally.faults_without_effect += 1;
        }
        tell(&format!(
            "{} of {count} disk faults ({fault:?}), {} acknowledged, {} lost",
            tally.disk_faults, tally.acknowledged, tally.lost
        ));
    }
    ensure!(tally.disk_faults >= count, "too many faults did not happen");
    tally.double_votes += scene.cluster.double_votes()?;
    scene.cluster.stop().await?;
    for disk in disks {
        disk.unmount().await?;
    }
    Ok(())
}

/// Compiles the library that fails.
async fn compile(home: &TempDir) -> Result<PathBuf> {
    let (source, library) = (home.path().join("fault.c"), home.path().join("fault.so"));
    fs::write(&source, SOURCE)?;
    let (source, to) = (source.display(), library.display());
    shell::run(&format!("cc -shared -fPIC -O2 -o {to} {source} -ldl")).await?;
    Ok(library)
}

struct Scene {
    cluster: Cluster,
    library: PathBuf,
    entropy: Entropy,
}

impl Scene {
    /// Lets one fault happen and end; gives whether it happened.
    async fn fail(&mut self, fault: Fault, load: &Load) -> Result<bool> {
        let leader = self.cluster.leader().await?;
        let below = self.entropy.below(NODES as u64);
        let anybody = usize::try_from(below)?;
        let follower = (leader + 1) % NODES;
        match fault {
            Fault::Sync => self.fail_call(anybody, "sync", EIO).await,
            Fault::Write => self.fail_call(anybody, "write", EIO).await,
            Fault::Full => self.fail_call(anybody, "write", ENOSPC).await,
            Fault::ReserveOfFollower => self.fill_to_reserve(&[follower], load).await,
            Fault::ReserveOfAll => self.fill_to_reserve(&[0, 1, 2], load).await,
            Fault::LastByte => self.fill_to_the_last_byte(follower).await,
        }
    }

    /// One call of one controller fails: it must end by itself, and come back.
    async fn fail_call(&mut self, victim: usize, call: &str, errno: u32) -> Result<bool> {
        let nth = 1 + self.entropy.below(NTH_MAX);
        let seat = &mut self.cluster.seats[victim];
        let report = seat.directory.join("fault.report");
        let _ = fs::remove_file(&report);
        let text = |path: &Path| path.display().to_string();
        seat.environment = [
            ("LD_PRELOAD", text(&self.library)),
            ("DOTMAC_FAULT_BELOW", text(&seat.data().join("store"))),
            ("DOTMAC_FAULT_CALL", call.to_owned()),
            ("DOTMAC_FAULT_NTH", nth.to_string()),
            ("DOTMAC_FAULT_ERRNO", errno.to_string()),
            ("DOTMAC_FAULT_REPORT", text(&report)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        seat.end(Signal::TERM).await?;
        self.cluster.start(victim)?;
        let seat = &mut self.cluster.seats[victim];
        seat.environment.clear();
        let ended = seat.gone(FAILS_WITHIN).await;
        let has_happened = report.exists();
        match ended {
            Ok(status) => {
                ensure!(has_happened, "ended by itself: {}", seat.tail());
                ensure!(
                    !status.success(),
                    "a failed disk ended in success: {}",
                    seat.tail()
                );
            }
            Err(_) if !has_happened => {
                seat.end(Signal::KILL).await?;
            }
            Err(_) => {
                let what = fs::read_to_string(&report)?;
                bail!("it went on after {what}: {}", seat.tail());
            }
        }
        self.cluster.start_all().await?;
        Ok(has_happened)
    }

    /// Disks reach their reserve: those controllers say so and stay readable; writes go on if a majority has room, and in
    /// any case when there is room again.
    async fn fill_to_reserve(&mut self, victims: &[usize], load: &Load) -> Result<bool> {
        let mut ballasts = Vec::new();
        for victim in victims {
            let disk = self.cluster.seats[*victim].disk();
            ballasts.push(fill(&disk, RESERVE_BYTES / 2)?);
        }
        let client = self.cluster.client.clone();
        for victim in victims {
            until("a full disk is told", Duration::from_secs(10), async || {
                let asked = client
                    .ask_once(*victim, &Request::get("/health/ready"))
                    .await?;
                Ok((asked.status == 503).then_some(()))
            })
            .await?;
            let (own, path) = (
                client.of(*victim),
                "/api/v1/tenants?limit=1&consistency=stale",
            );
            let shown = own.read(path, WRITES_WITHIN).await;
            shown.context("a full disk is not readable")?;
        }
        if victims.len() == NODES {
            let (body, key) = (json!({"tenant_name": "too much"}), self.entropy.hex(16));
            let write = Request::change(Method::POST, "/api/v1/tenants", body, key);
            let refused = client.ask_once(0, &write).await?;
            ensure!(
                refused.status >= 500,
                "a full disk took a write: {}",
                refused.status
            );
        } else {
            load.more(5, WRITES_WITHIN)
                .await
                .context("a majority has room")?;
        }
        for ballast in ballasts {
            fs::remove_file(ballast)?;
        }
        self.cluster.ready().await?;
        Ok(true)
    }

    /// A disk is full: the process ends, or at least takes nothing, and comes back when there is room.
    async fn fill_to_the_last_byte(&mut self, victim: usize) -> Result<bool> {
        let disk = self.cluster.seats[victim].disk();
        let ballast = fill(&disk, 0)?;
        let config = self.cluster.seats[victim].config();
        let text = fs::read_to_string(&config)?;
        let without = text.replace(
            &format!("reserve_bytes = {RESERVE_BYTES}"),
            "reserve_bytes = 0",
        );
        ensure!(without != text, "no reserve to take away");
        fs::write(&config, without)?;
        let seat = &mut self.cluster.seats[victim];
        seat.end(Signal::KILL).await?;
        self.cluster.start(victim)?;
        let seat = &mut self.cluster.seats[victim];
        let ended = seat.gone(FAILS_WITHIN).await;
        fs::remove_file(ballast)?;
        fs::write(&config, text)?;
        let has_happened = match ended {
            Ok(status) => {
                ensure!(
                    !status.success(),
                    "a full disk ended in success: {}",
                    seat.tail()
                );
                true
            }
            // What it wrote had room in segments that it had before.
            Err(_) => {
                seat.end(Signal::KILL).await?;
                false
            }
        };
        self.cluster.start_all().await?;
        Ok(has_happened)
    }
}

/// Fills a disk until so many bytes are left; gives the file that does it.
fn fill(disk: &Path, left: u64) -> Result<PathBuf> {
    let path = disk.join("ballast");
    let mut file = fs::File::create(&path)?;
    let piece = vec![0x5a; 256 * 1024];
    for size in [piece.len(), 4096] {
        loop {
            if left > 0 && free_bytes(disk)? <= left {
                break;
            }
            match file.write_all(&piece[..size]) {
                Ok(()) if file.sync_all().is_ok() => {}
                _ => break,
            }
        }
    }
    Ok(path)
}

fn free_bytes(disk: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(disk)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
