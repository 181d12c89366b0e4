//! Every reason for which a controller will not start: one line with what to do next, an exit code for its kind, and
//! nothing changed. docs/operations/starting.md is the table.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{cli, fleet::Fleet, programs};

use crate::refusals::listing;

/// One controller's directory, to be broken.
struct Place {
    home: PathBuf,
    port: u16,
    at: PathBuf,
}

/// What has to live as long as the reason.
type Kept = Box<dyn std::any::Any + Send>;

/// What is done to it; what it gives is kept until the controller was tried.
type Break = fn(&Place) -> Result<Kept>;

/// A reason: its name, how it comes about, the exit code, and what the line says.
type Case = (&'static str, Break, i32, &'static str);

const CASES: [Case; 19] = [
    (
        "an unknown key",
        |place| place.edit("node = 1", "node = 1\nnonsense = 2"),
        3,
        "nonsense",
    ),
    (
        "no seal key",
        |place| place.remove("seal.key"),
        3,
        "seal.key cannot be read",
    ),
    (
        "another seal key",
        |place| place.put("seal.key", &"7f".repeat(32)),
        3,
        "does not open with the seal key",
    ),
    (
        "an open seal key",
        |place| place.open_to_all("seal.key"),
        3,
        "run chmod 600 on it",
    ),
    (
        "no genesis",
        |place| place.edit("genesis.json", "nowhere.json"),
        3,
        "nowhere.json cannot be used",
    ),
    (
        "another's number",
        |place| place.edit("node = 1", "node = 2"),
        5,
        "names controller 2 with another incarnation",
    ),
    (
        "no such number",
        |place| place.edit("node = 1", "node = 9"),
        5,
        "its number is not in the cluster",
    ),
    ("a wiped disk", Place::wipe, 5, "the disk was wiped"),
    (
        "a wiped store",
        |place| Ok(Box::new(fs::remove_dir_all(place.at.join("data/store"))?)),
        5,
        "is not the one that",
    ),
    (
        "no keys",
        |place| Ok(Box::new(fs::remove_dir_all(place.at.join("data"))?)),
        5,
        "it cannot come back under this number",
    ),
    (
        "another cluster",
        Place::found_otherwise,
        5,
        "founded otherwise than",
    ),
    (
        "no version",
        |place| place.remove("data/store/FORMAT"),
        5,
        "not a storage directory",
    ),
    (
        "newer data",
        |place| place.put("data/store/FORMAT", "dotmac controller storage 9\n"),
        4,
        "holds data of version 9, newer than",
    ),
    ("lost writes", Place::lose_writes, 6, "data/store/records"),
    (
        "another process",
        Place::hold_store,
        7,
        "is in use by another process",
    ),
    ("a tcp port in use", Place::hold_api, 7, "api.listen"),
    (
        "a udp port in use",
        Place::hold_link,
        7,
        "link.listen cannot be used",
    ),
    (
        "a clock of before",
        Place::set_clock,
        8,
        "clock says 2001-01-0",
    ),
    (
        "a full disk",
        Place::fill_disk,
        7,
        "bytes left, and a start needs",
    ),
];

pub(crate) async fn a_controller_that_will_not_start_says_why_and_what_to_do_next() -> Result<()> {
    let fleet = Fleet::start("starting").await?;
    fleet.deploy("Kept ISP", "do-fra1").await?;
    fleet.down().await?;
    let mut wrong = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let at = fleet.home().join(format!("case-{number}"));
        copy(&fleet.home().join("controller-1"), &at)?;
        let place = Place {
            home: fleet.home().to_owned(),
            port: fleet.port_base(),
            at,
        };
        if let Err(error) = refused(&place, case).await {
            wrong.push(format!("{}: {error:#}", case.0));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // It was always the copy: the controller itself starts.
    fleet.up().await?;
    fleet.down().await
}

async fn refused(place: &Place, (name, breaks, code, words): &Case) -> Result<()> {
    let kept = breaks(place).with_context(|| format!("{name} cannot be brought about"))?;
    if kept.is::<Unable>() {
        return Ok(());
    }
    let mut variables = Vec::new();
    if let Some(Clock(library)) = kept.downcast_ref::<Clock>() {
        variables.push(("LD_PRELOAD", library.display().to_string()));
        variables.push(("FAKETIME", "2001-01-01 12:00:00".to_owned()));
    }
    let before = listing(&place.at.join("data"));
    let config = place.at.join("controller.toml").display().to_string();
    let program = place.home.join("bin/dotmac-controller");
    let ran = cli::run(&program, &["run", "--config", &config], &variables).await?;
    let ran = ran.with_code(*code)?;
    let lines: Vec<&str> = ran.err.lines().collect();
    ensure!(lines.len() == 1, "not one line: {lines:?}");
    ensure!(
        lines[0].contains(words),
        "{words:?} is not in {:?}",
        lines[0]
    );
    ensure!(
        lines[0].contains("; next: "),
        "no next step: {:?}",
        lines[0]
    );
    // What reaches the store may make its lock and its mark; what is kept there stays as it is.
    if ![6, 7].contains(code) && !words.contains("otherwise") {
        let after = listing(&place.at.join("data"));
        ensure!(before == after, "from {before:?} to {after:?}");
    }
    drop(kept);
    Ok(())
}

/// A library that sets the clock.
struct Clock(PathBuf);
/// The case cannot be brought about on this machine.
struct Unable;
/// A file system that goes away with it.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Place {
    fn edit(&self, from: &str, to: &str) -> Result<Kept> {
        let path = self.at.join("controller.toml");
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{from:?} is not in {text}");
        fs::write(&path, text.replace(from, to))?;
        Ok(Box::new(()))
    }

    fn remove(&self, name: &str) -> Result<Kept> {
        fs::remove_file(self.at.join(name))?;
        Ok(Box::new(()))
    }

    fn put(&self, name: &str, text: &str) -> Result<Kept> {
        fs::write(self.at.join(name), text)?;
        Ok(Box::new(()))
    }

    fn open_to_all(&self, name: &str) -> Result<Kept> {
        fs::set_permissions(self.at.join(name), fs::Permissions::from_mode(0o644))?;
        Ok(Box::new(()))
    }

    /// A disk that was lost: the controller makes new keys.
    fn wipe(&self) -> Result<Kept> {
        fs::remove_dir_all(self.at.join("data"))?;
        self.init()?;
        Ok(Box::new(()))
    }

    fn init(&self) -> Result<Vec<u8>> {
        let config = self.at.join("controller.toml");
        let made = Command::new(self.home.join("bin/dotmac-controller"))
            .args(["init", "--config"])
            .arg(config)
            .output()?;
        ensure!(made.status.success(), "{made:?}");
        Ok(made.stdout)
    }

    /// Another cluster with this very controller in it.
    fn found_otherwise(&self) -> Result<Kept> {
        let card = self.at.join("card.json");
        fs::write(&card, self.init()?)?;
        let path = |name: &str| self.at.join(name).display().to_string();
        let made = Command::new(self.home.join("bin/dotmac"))
            .args([
                "cluster",
                "create",
                "--region",
                "elsewhere-1",
                "--cluster",
                "other",
            ])
            .args(["--card", &path("card.json"), "--out", &path("genesis.json")])
            .args(["--root-key-file", &path("root.key")])
            .args(["--approver-key-file", &path("approver.key")])
            .args(["--admin-token-file", &path("admin.token")])
            .output()?;
        ensure!(made.status.success(), "{made:?}");
        let known = self.home.join("genesis.json").display().to_string();
        self.edit(&known, &path("genesis.json"))
    }

    /// The end of the database is gone, as after a disk that lied.
    fn lose_writes(&self) -> Result<Kept> {
        let path = self.at.join("data/store/records/db");
        let file = fs::File::options().write(true).open(&path)?;
        file.set_len(file.metadata()?.len() / 3)?;
        Ok(Box::new(()))
    }

    fn hold_store(&self) -> Result<Kept> {
        let lock = fs::File::options()
            .write(true)
            .open(self.at.join("data/store/LOCK"))?;
        lock.try_lock()?;
        Ok(Box::new(lock))
    }

    fn hold_api(&self) -> Result<Kept> {
        let port = self.port;
        Ok(Box::new(TcpListener::bind(("127.0.0.1", port))?))
    }

    fn hold_link(&self) -> Result<Kept> {
        let port = self.port + 10;
        Ok(Box::new(UdpSocket::bind(("127.0.0.1", port))?))
    }

    fn set_clock(&self) -> Result<Kept> {
        Ok(match programs::peer("libfaketime") {
            Ok(library) => Box::new(Clock(library)),
            Err(_) => Box::new(Unable),
        })
    }

    /// A disk of its own that has no room for what a first start writes.
    fn fill_disk(&self) -> Result<Kept> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Box::new(Unable));
        }
        let store = self.at.join("data/store");
        fs::remove_dir_all(&store)?;
        fs::create_dir(&store)?;
        fs::remove_file(self.at.join("data/keys/store"))?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(&store)
            .status()?;
        Ok(if mounted.success() {
            Box::new(Mounted(store))
        } else {
            Box::new(Unable)
        })
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "{} cannot be copied", from.display());
    Ok(())
}
