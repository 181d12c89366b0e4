//! Disks that are slow, and disks that are full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    api::{Answer, Api, DEPLOYMENTS},
    cli,
    clients::Clients,
    deployment,
    fleet::{CONTROLLERS, Fleet, GRACE_MS},
    runner,
    wait::{throughout, until},
};
use serde_json::{Value, json};

/// Where the cluster tells how it is.
const STATUS: &str = "/api/v1/cluster/status";
/// What is told apart from a reserve of 256 MiB.
const DISK_BYTES: u64 = 400 << 20;
const FILLED_BYTES: u64 = 200 << 20;
/// What fills more than half of the reserve, too.
const MORE_BYTES: u64 = 100 << 20;

pub(crate) async fn on_one_core_with_half_a_second_a_sync_a_fleet_becomes_ready_and_says_so()
-> Result<()> {
    let fleet = Fleet::prepare("slow-disk")?;
    let Some(library) = slow_disk(fleet.home())? else {
        return runner::skip("a C compiler (cc) and taskset are needed to slow a disk down".into());
    };
    let told = slow(&fleet, &library).await;
    told.map_err(|error| {
        fleet.keep();
        error.context(fleet.tails())
    })
}

async fn slow(fleet: &Fleet, library: &Path) -> Result<()> {
    let (home, dotmac) = (
        fleet.home().display().to_string(),
        fleet.home().join("bin/dotmac"),
    );
    let dotmac = dotmac.display().to_string();
    let variables = [
        ("DOTMAC_PORT_BASE", fleet.port_base().to_string()),
        ("DOTMAC_GRACE_MS", GRACE_MS.to_string()),
        ("LD_PRELOAD", library.display().to_string()),
    ];
    let words = [
        "-c", "0", &dotmac, "--home", &home, "local", "up", "--detach",
    ];
    cli::run(Path::new("taskset"), &words, &variables)
        .await?
        .ok()?;
    let began = status(fleet).await?;
    let term = began["term"].as_u64().context("no term")?;
    ensure!(term <= 3, "it took {term} terms to find a leader: {began}");

    let clients = Clients::start(&fleet.api()?, 1);
    throughout(Duration::from_secs(12), async || {
        let now = status(fleet).await?;
        ensure!(now["term"] == term, "another election: {now}");
        Ok(())
    })
    .await?;
    let acknowledged = clients.stop().await?;
    ensure!(!acknowledged.is_empty(), "nothing was written");
    let now = status(fleet).await?;
    for node in now["nodes"].as_array().context("no nodes")? {
        let said = deployment::text(node, "slow_disk");
        ensure!(said.contains("a sync of its disk takes 0."), "{node}");
    }
    let said = fleet.dotmac(&["cluster", "status"]).await?.ok()?.out;
    ensure!(
        said.contains("controller 2 is slow: a sync of its disk"),
        "{said}"
    );
    let api = fleet.api()?;
    let ready = api.get("/health/ready").await?;
    ensure!(
        ready["status"] == "ready" && ready["slow_disk"].is_string(),
        "{ready}"
    );
    let health = api
        .get("/api/v1/tenant-orchestration/cluster/health")
        .await?;
    let reasons = health["reasons"].as_array().context("no reasons")?;
    let slow = reasons
        .iter()
        .filter(|one| deployment::text(one, "reason").contains("is slow"));
    ensure!(slow.count() == 3, "{health}");
    acknowledged.are_kept_once(&api).await?;
    fleet.down().await
}

pub(crate) async fn at_the_reserve_a_cluster_turns_read_only_and_recovers_when_there_is_room()
-> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return runner::leave("disks of a few megabytes can only be made by root".into());
    }
    let fleet = Fleet::prepare("reserve")?;
    let mut disks = Vec::new();
    for name in CONTROLLERS {
        let Some(disk) = Disk::mount(fleet.home().join(name).join("data"))? else {
            return runner::leave("no file system can be mounted here".into());
        };
        disks.push(disk);
    }
    let told = full(&fleet, &disks).await;
    told.map_err(|error| {
        fleet.keep();
        error.context(fleet.tails())
    })
}

async fn full(fleet: &Fleet, disks: &[Disk]) -> Result<()> {
    fleet.up().await?;
    let id = fleet.deploy("Kept ISP", "do-fra1").await?;
    let before: Vec<_> = CONTROLLERS
        .iter()
        .map(|name| fleet.process(name))
        .collect::<Result<_>>()?;
    // One full disk is its controller's matter alone, if it does not lead.
    let (leader, _) = fleet.leader().await?;
    let follower = (1..=3).find(|node| *node != leader).unwrap_or(1);
    let others: Vec<usize> = (1..=3).filter(|node| *node != follower).collect();
    let all = fleet.api()?;
    let api = all.of_nodes(&others);
    let write = async |api: &Api, name: &str| {
        api.post("/api/v1/tenants", &json!({"tenant_name": name}))
            .await
    };
    disks[follower - 1].fill()?;
    let refuses = format!("controller {follower} takes no writes");
    until(
        "its controller says so",
        Duration::from_secs(10),
        async || {
            let health = api
                .get("/api/v1/tenant-orchestration/cluster/health")
                .await?;
            let told = health["reasons"].to_string().contains(&refuses);
            Ok(told.then_some(()))
        },
    )
    .await?;
    let body = json!({"tenant_name": "One Full Disk"});
    let through_leader = all.of_node(leader).post("/api/v1/tenants", &body).await?;
    through_leader.ok(201)?;

    // Fuller still it keeps nothing new, says why, and does not take the leader down: nobody is elected anew.
    disks[follower - 1].fill_more()?;
    let term = status(fleet).await?["term"].clone();
    throughout(Duration::from_secs(4), async || {
        let body = json!({"tenant_name": "Two Have Room"});
        let done = all.of_node(leader).post("/api/v1/tenants", &body).await?;
        ensure!(done.status == 201, "{done:?}");
        ensure!(status(fleet).await?["term"] == term, "another election");
        Ok(())
    })
    .await?;
    let behind = write(&all.of_node(follower), "Through the Full One").await?;
    says_reserve(&behind)?;

    disks[follower - 1].empty()?;
    disks[leader - 1].fill()?;
    check_full_leader(fleet, &all.of_node(follower), leader).await?;

    for disk in disks {
        disk.fill()?;
    }
    let refused = until("writes are refused", Duration::from_secs(10), async || {
        let answer = write(&api, "All Full").await?;
        Ok((answer.status == 503).then_some(answer))
    })
    .await?;
    says_reserve(&refused)?;
    throughout(Duration::from_secs(3), async || {
        let read = api.get(&format!("{DEPLOYMENTS}/{id}")).await?;
        ensure!(read["status"] == "active", "{read}");
        Ok(())
    })
    .await?;
    for node in 1..=3 {
        let asked = all.of_node(node);
        let ready = asked
            .ask(reqwest::Method::GET, "/health/ready", None, None)
            .await?;
        ensure!(ready.status == 503, "{ready:?}");
        ensure!(
            ready.body["reason"] == "its storage takes no writes",
            "{ready:?}"
        );
    }
    for disk in disks {
        disk.empty()?;
    }
    until(
        "writes are taken again",
        Duration::from_secs(15),
        async || Ok((write(&api, "Room Again").await?.status == 201).then_some(())),
    )
    .await?;
    for (name, before) in CONTROLLERS.iter().zip(&before) {
        ensure!(fleet.process(name)? == *before, "{name} was restarted");
    }
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    fleet.down().await
}

/// The leader alone is full: a controller with room names it, and the whole is unhealthy, because nothing is written.
async fn check_full_leader(fleet: &Fleet, follower: &Api, leader: usize) -> Result<()> {
    let body = json!({"tenant_name": "Full Leader"});
    let names = format!("controller {leader}, which leads, takes no writes: the disk has ");
    let refused = until("the leader refuses", Duration::from_secs(10), async || {
        let answer = follower.post("/api/v1/tenants", &body).await?;
        let is_named = deployment::text(&answer.body, "detail").starts_with(&names);
        Ok(is_named.then_some(answer))
    })
    .await?;
    says_reserve(&refused)?;
    let next = deployment::text(&refused.body, "next");
    ensure!(
        next.contains("stop it so that another one leads"),
        "{refused:?}"
    );
    let health = follower
        .get("/api/v1/tenant-orchestration/cluster/health")
        .await?;
    let controllers = health["controllers"].as_array().context("none")?;
    ensure!(
        controllers.iter().all(|one| one["takes_writes"] == false),
        "{health}"
    );
    let ran = fleet.dotmac(&["cluster", "health"]).await?.with_code(1)?;
    let why = format!("storage: controller {leader} takes no writes: ");
    ensure!(ran.out.contains(&why), "{ran:?}");
    Ok(())
}

/// That an answer refuses for now, and says that a disk is at its reserve.
fn says_reserve(answer: &Answer) -> Result<()> {
    let detail = deployment::text(&answer.body, "detail");
    ensure!(
        answer.status == 503
            && answer.headers.contains_key("retry-after")
            && detail.contains("reserve"),
        "{answer:?}"
    );
    Ok(())
}

/// A file system of its own for one controller.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Result<Option<Self>> {
        fs::create_dir_all(&at)?;
        let size = format!("size={DISK_BYTES},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at)
            .status()?;
        Ok(mounted.success().then_some(Self(at)))
    }

    fn fill(&self) -> Result<()> {
        self.write("filler", FILLED_BYTES)
    }

    fn fill_more(&self) -> Result<()> {
        self.write("more", MORE_BYTES)
    }

    fn write(&self, name: &str, bytes: u64) -> Result<()> {
        let block = vec![1; 1 << 20];
        let mut file = fs::File::create(self.0.join(name))?;
        for _ in 0..bytes >> 20 {
            std::io::Write::write_all(&mut file, &block)?;
        }
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        for name in ["filler", "more"] {
            let path = self.0.join(name);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn status(fleet: &Fleet) -> Result<Value> {
    fleet.api()?.get(STATUS).await
}

/// A library that makes every sync of a controller or an agent take half a second longer, if it can be built.
fn slow_disk(home: &Path) -> Result<Option<PathBuf>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/slow-disk/slow.c");
    let library = home.join("slow.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    let pinned = Command::new("taskset").args(["-c", "0", "true"]).status();
    let works = |ran: std::io::Result<std::process::ExitStatus>| ran.is_ok_and(|one| one.success());
    Ok((works(built) && works(pinned)).then_some(library))
}
