//! One bit of a record flips while its controller is stopped: of the log, the vote, a snapshot or the ledger. Started again, it
//! must refuse in a clear sentence, refuse to tell what is damaged, or make it good; never may it tell something else than
//! before. Most flips are looked at with the controller alone, beside one with the same files as they were; some in
//! a cluster that goes on meanwhile, into which the controller comes back, repaired from the copy if it refused.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::{entropy::Entropy, process::Signal, supervise};
use dotmac_tests::ports;

use crate::{
    client::{Client, Request},
    cluster::Cluster,
    load::Load,
    records::{self, Kind, Spot},
    shell,
    tally::Tally,
    tell,
};

mod lonely;

use lonely::{Lonely, refusal};

/// Controllers that are looked at alone at a time.
const ALONE: u16 = 3;
/// Records of each kind that are looked for.
const EACH: usize = 100;
/// Log entries that are written before: more than lie between two snapshots.
const ENTRIES: u64 = dotmac_controller::raft::SNAPSHOT_EVERY + 400;
/// Of so many flips one happens in a cluster that goes on.
const IN_CLUSTER: u64 = 25;
/// How long a controller may take to refuse, or to tell its State.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
const WRITES_WITHIN: Duration = Duration::from_secs(60);
/// Words of a refusal that are told.
const REFUSAL_WORDS: usize = 24;
/// The controller whose bits flip.
const VICTIM: usize = 2;

/// What came of a flip.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It refused, in these words.
    Refused(String),
    /// It made it good.
    Healed,
    /// Nothing depended on it.
    Nothing,
    /// It told something else, or said nothing.
    Wrong(String),
}

/// Flips bits until so many had an effect.
pub(crate) async fn run(count: u64, tally: &mut Tally) -> Result<()> {
    let home = crate::scratch("chaos-flips-")?;
    let mut cluster = Cluster::on_loopback(home.path()).await?;
    cluster.start_all().await?;
    fill(&cluster, tally).await?;
    in_cluster(
        &mut cluster,
        home.path(),
        (count / IN_CLUSTER).max(1),
        tally,
    )
    .await?;
    cluster.stop().await?;
    tally.double_votes += cluster.double_votes()?;
    let left = count.saturating_sub(tally.bit_flips);
    alone(&cluster, home.path(), left, tally).await
}

/// Writes until there is a snapshot, and a log behind it.
async fn fill(cluster: &Cluster, tally: &mut Tally) -> Result<()> {
    let path = "/api/v1/cluster/status";
    loop {
        let load = Load::start(&cluster.client).await?;
        load.more(400, Duration::from_secs(300)).await?;
        load.judge(tally).await?;
        let status = cluster.client.read(path, WRITES_WITHIN).await?;
        let applied = status["nodes"][VICTIM]["applied"].as_u64();
        if applied.is_some_and(|applied| applied > ENTRIES) {
            return Ok(());
        }
    }
}

/// Flips in a cluster that goes on.
async fn in_cluster(
    cluster: &mut Cluster,
    home: &Path,
    count: u64,
    tally: &mut Tally,
) -> Result<()> {
    let entropy = Entropy::system();
    let (kept, copy) = (home.join("kept"), home.join("copy"));
    let mut with_effect = 0;
    while with_effect < count {
        let load = Load::start(&cluster.client).await?;
        load.more(5, WRITES_WITHIN).await?;
        cluster.seats[VICTIM].end(Signal::TERM).await?;
        let data = cluster.seats[VICTIM].data();
        replace(&data, &kept).await?;
        replace(&data, &copy).await?;
        let spots = records::find(&data, &copy, 4)?;
        let spot = any(&spots, &entropy)?;
        let flip = spot.flip(&data, &entropy)?;
        cluster.start(VICTIM)?;
        let ready = cluster.ready_one(VICTIM).await;
        let found = match ready {
            Err(_) if !cluster.seats[VICTIM].is_running()? => {
                let seat = &mut cluster.seats[VICTIM];
                let refused = refusal(seat);
                replace(&kept, &data).await?;
                refused
            }
            Err(error) => return Err(error),
            Ok(()) => match records::set_aside(&data)? {
                damaged if damaged.is_empty() => Found::Nothing,
                damaged => {
                    // Or it would count for the next flip, too.
                    damaged.iter().try_for_each(fs::remove_file)?;
                    Found::Healed
                }
            },
        };
        cluster.start_all().await?;
        load.more(5, WRITES_WITHIN).await?;
        crate::judge(cluster, load, tally).await?;
        if found == Found::Nothing {
            cluster.seats[VICTIM].end(Signal::TERM).await?;
            flip.take_back()?;
            cluster.start_all().await?;
        }
        with_effect += u64::from(found != Found::Nothing);
        tell(&format!("{:?} in the cluster: {found:?}", spot.kind));
        note(tally, spot, found);
    }
    Ok(())
}

/// Flips with the controller alone.
async fn alone(cluster: &Cluster, home: &Path, count: u64, tally: &mut Tally) -> Result<()> {
    let (pristine, copy) = (cluster.seats[VICTIM].disk(), home.join("copy"));
    replace(&pristine.join("data"), &copy).await?;
    let spots = records::find(&pristine.join("data"), &copy, EACH)?;
    tell(&format!("{} places of records", spots.len()));
    let ports = ports::reserve()?;
    let mut reference = Lonely::make(home, &ports, 0, &cluster.client, pristine.clone())?;
    reference.begin().await?;
    let known = reference
        .state()
        .await?
        .map_err(|found| anyhow::anyhow!("{found:?}"))?;
    let shared = Arc::new(Shared {
        spots,
        reference: reference.client.clone(),
        known,
        left: AtomicU64::new(count),
        entropy: Entropy::system(),
        tally: Mutex::default(),
    });
    let mut workers = Vec::new();
    for number in 1..=ALONE {
        let lonely = Lonely::make(home, &ports, number, &cluster.client, pristine.clone())?;
        let shared = Arc::clone(&shared);
        workers.push(supervise::spawn("flips", async move {
            shared.work(lonely).await
        }));
    }
    for worker in workers {
        worker.await??;
    }
    reference.seat.end(Signal::KILL).await?;
    let found = std::mem::take(&mut *shared.tally.lock().expect("no worker panicked"));
    tally.add(found);
    Ok(())
}

/// What all workers share.
struct Shared {
    spots: Vec<Spot>,
    reference: Client,
    /// What the controller tells of its State when nothing is flipped.
    known: (u64, String),
    left: AtomicU64,
    entropy: Entropy,
    tally: Mutex<Tally>,
}

impl Shared {
    async fn work(&self, mut lonely: Lonely) -> Result<()> {
        while self.left.load(Ordering::SeqCst) > 0 {
            let spot = any(&self.spots, &self.entropy)?;
            let found = self.look(&mut lonely, spot).await;
            let found = found.with_context(|| format!("{spot:?}"))?;
            let mut tally = self.tally.lock().expect("no worker panicked");
            if found != Found::Nothing {
                let left = self.left.load(Ordering::SeqCst);
                self.left.store(left.saturating_sub(1), Ordering::SeqCst);
            }
            note(&mut tally, spot, found);
            if tally.bit_flips.is_multiple_of(50) {
                tell(&format!(
                    "{} bit flips with effect, {} without; {} refused, {} healed",
                    tally.bit_flips,
                    tally.faults_without_effect,
                    tally.flips_refused,
                    tally.flips_healed
                ));
            }
        }
        Ok(())
    }

    /// One flip.
    async fn look(&self, lonely: &mut Lonely, spot: &Spot) -> Result<Found> {
        lonely.prepare().await?;
        spot.flip(&lonely.seat.data(), &self.entropy)?;
        lonely.begin().await?;
        let state = lonely.state().await?;
        let found = match state {
            Err(found) => found,
            Ok(state) if state != self.known => {
                let known = &self.known;
                Found::Wrong(format!("its State is {state:?}, not {known:?}"))
            }
            Ok(_) => self.look_at_ledger(lonely, spot).await?,
        };
        if lonely.seat.is_running()? {
            lonely.seat.end(Signal::KILL).await?;
        }
        Ok(found)
    }

    /// Whether it tells the facts around a flipped one as before.
    async fn look_at_ledger(&self, lonely: &mut Lonely, spot: &Spot) -> Result<Found> {
        if let Kind::Ledger { stream, sequence } = &spot.kind {
            let after = sequence.saturating_sub(20);
            let path = format!(
                "/api/v1/audit/records?stream={stream}&after={after}&limit=40&consistency=stale"
            );
            let expected = self.reference.read(&path, TOLD_WITHIN).await?;
            let told = lonely.client.ask_once(0, &Request::get(&*path)).await;
            match told {
                Ok(told) if told.status == 200 && told.body == expected => {}
                Ok(told) if told.status >= 500 => {
                    let words = told.body["detail"].as_str().unwrap_or_default();
                    return Ok(Found::Refused(words.to_owned()));
                }
                Ok(told) => return Ok(Found::Wrong(format!("facts: {}", told.body))),
                Err(_) if !lonely.seat.is_running()? => return Ok(refusal(&mut lonely.seat)),
                Err(error) => return Err(error),
            }
        }
        let damaged = records::set_aside(&lonely.seat.data())?;
        Ok(if damaged.is_empty() {
            Found::Nothing
        } else {
            Found::Healed
        })
    }
}

fn note(tally: &mut Tally, spot: &Spot, found: Found) {
    match found {
        Found::Nothing => {
            tally.faults_without_effect += 1;
            return;
        }
        Found::Refused(words) => {
            tally.flips_refused += 1;
            *tally.refusals.entry(in_general(&words)).or_default() += 1;
        }
        Found::Healed => tally.flips_healed += 1,
        Found::Wrong(what) => {
            tally.silent_corruptions += 1;
            tally.fail(format!("a flip in {:?}: {what}", spot.kind));
        }
    }
    tally.bit_flips += 1;
}

/// A refusal without what differs from one to the next: paths, keys, numbers.
fn in_general(words: &str) -> String {
    let general = words.split_whitespace().map(|word| {
        let is_special = word.contains('/') || word.bytes().any(|byte| byte.is_ascii_digit());
        if is_special { "…" } else { word }
    });
    let mut general: Vec<&str> = general.take(REFUSAL_WORDS).collect();
    general.dedup();
    general.join(" ")
}

/// A place of any kind, each kind as often as every other one.
fn any<'s>(spots: &'s [Spot], entropy: &Entropy) -> Result<&'s Spot> {
    let is = [
        |kind: &Kind| matches!(kind, Kind::Log),
        |kind: &Kind| matches!(kind, Kind::Vote),
        |kind: &Kind| matches!(kind, Kind::Snapshot),
        |kind: &Kind| matches!(kind, Kind::Ledger { .. } | Kind::Head),
    ];
    let is = is[usize::try_from(entropy.below(4))?];
    let such: Vec<&Spot> = spots.iter().filter(|spot| is(&spot.kind)).collect();
    if such.is_empty() {
        bail!("a kind of record is nowhere in the files");
    }
    Ok(such[usize::try_from(entropy.below(such.len() as u64))?])
}

/// Puts a copy of a folder in another's place.
async fn replace(from: &Path, to: &Path) -> Result<()> {
    ensure!(from.is_dir(), "{} is no folder", from.display());
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    shell::run(&format!("cp -a {} {}", from.display(), to.display())).await?;
    Ok(())
}
