//! Three controllers as real processes, each with a configuration and a folder of its own, and what can be seen of them:
//! whether they are ready, who leads, the digests of their States, and whom their logs follow.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::process::Signal;
use dotmac_tests::{ports, programs, wait::until};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    client::{Client, Request},
    seat::{Place, Seat, in_words},
};

/// Controllers.
pub(crate) const NODES: usize = 3;
/// How long controllers may take until all are ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long they may take to have applied the same.
const AGREE_WITHIN: Duration = Duration::from_secs(30);
/// Free bytes that a disk keeps, unless told otherwise.
pub(crate) const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// Three controllers.
pub(crate) struct Cluster {
    /// In order of their numbers.
    pub(crate) seats: Vec<Seat>,
    /// A client of all of them with the admin's token.
    pub(crate) client: Client,
    program: PathBuf,
    _ports: Option<ports::Reserved>,
}

impl Cluster {
    /// A cluster on the loopback, made and not started.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn on_loopback(home: &Path) -> Result<Self> {
        let ports = ports::reserve()?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let place = |number: u16| Place {
            api: at(ports.base + number),
            link: at(ports.base + 100 + number),
            namespace: None,
        };
        let places = [1, 2, 3].map(place);
        let mut cluster = Self::make(home, places, RESERVE_BYTES).await?;
        cluster._ports = Some(ports);
        Ok(cluster)
    }

    /// A cluster at these places, made and not started. Disks that it is to have are mounted before.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn make(home: &Path, places: [Place; NODES], reserve: u64) -> Result<Self> {
        let programs = programs::directory()?;
        let program = programs.join("dotmac-controller");
        let seats = (1..).zip(places).map(|(number, place)| {
            let directory = home.join(format!("controller-{number}"));
            Seat::new(number, directory, place)
        });
        let seats: Vec<Seat> = seats.collect();
        let mut create = Command::new(programs.join("dotmac"));
        create.arg("--home").arg(home).args(["cluster", "create"]);
        for seat in &seats {
            fs::create_dir_all(seat.disk())?;
            write_configuration(home, seat, reserve)?;
            let card = seat.directory.join("card.json");
            let mut init = Command::new(&program);
            init.args(["init", "--config"]).arg(seat.config());
            fs::write(&card, succeed(&mut init).await?)?;
            create.arg("--card").arg(card);
        }
        let files = [
            ("--root-key-file", "root.key"),
            ("--approver-key-file", "approver.key"),
            ("--admin-token-file", "admin.token"),
            ("--out", "genesis.json"),
        ];
        for (option, name) in files {
            create.arg(option).arg(home.join(name));
        }
        create.args(["--region", "nowhere"]);
        succeed(&mut create).await?;
        let token = fs::read_to_string(home.join("admin.token"))?;
        let servers = seats.iter().map(|seat| {
            let scheme = if seat.place.api.ip().is_loopback() {
                "http"
            } else {
                "https"
            };
            format!("{scheme}://{}", seat.place.api)
        });
        Ok(Self {
            client: Client::new(servers.collect(), token.trim())?,
            seats,
            program,
            _ports: None,
        })
    }

    /// Starts one controller.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&mut self, index: usize) -> Result<()> {
        self.seats[index].start(&self.program)
    }

    /// Starts those that do not run, and waits until all are ready.
    ///
    /// # Errors
    /// When one ends, or is not ready in time.
    pub(crate) async fn start_all(&mut self) -> Result<()> {
        for index in 0..NODES {
            if !self.seats[index].is_running()? {
                self.start(index)?;
            }
        }
        self.ready().await
    }

    /// Waits until all are ready.
    ///
    /// # Errors
    /// When one ends by itself (`ended by itself` is in the words then), or is not ready in time.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        for index in 0..NODES {
            self.ready_one(index).await?;
        }
        Ok(())
    }

    /// Waits until this one is ready.
    ///
    /// # Errors
    /// When it ends by itself, or is not ready in time.
    pub(crate) async fn ready_one(&mut self, index: usize) -> Result<()> {
        let client = self.client.clone();
        let seat = &mut self.seats[index];
        let what = format!("controller {} is ready", seat.number);
        let end = tokio::time::Instant::now() + READY_WITHIN;
        while tokio::time::Instant::now() < end {
            if let Some(status) = seat.ended()? {
                let words = in_words(status);
                bail!("ended by itself ({words}): {}", seat.tail());
            }
            let asked = client.ask_once(index, &Request::get("/health/ready")).await;
            if asked.is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        bail!("not within {READY_WITHIN:?}: {what}: {}", seat.tail());
    }

    /// Fails if a process ended that nobody ended.
    ///
    /// # Errors
    /// Names the first.
    pub(crate) fn all_run(&mut self) -> Result<()> {
        for seat in &mut self.seats {
            if let Some(status) = seat.ended()? {
                let words = in_words(status);
                bail!("controller ended by itself ({words}): {}", seat.tail());
            }
        }
        Ok(())
    }

    /// Place of the controller that leads in `seats`.
    ///
    /// # Errors
    /// When none does in time.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let client = &self.client;
        until("a controller leads", READY_WITHIN, async || {
            let within = Duration::from_secs(5);
            let status = client.read("/api/v1/cluster/status", within).await?;
            let leader = status["leader"].as_u64();
            let leader = leader.and_then(|leader| usize::try_from(leader).ok());
            Ok(leader.and_then(|leader| leader.checked_sub(1)))
        })
        .await
    }

    /// Waits until all have applied the same, and tells whether their States are the same, too.
    ///
    /// # Errors
    /// When they do not come to the same index.
    pub(crate) async fn digests_agree(&self) -> Result<bool> {
        let client = &self.client;
        until("three States at one index", AGREE_WITHIN, async || {
            let path = "/api/v1/cluster/status?digests=true";
            let status = client.read(path, Duration::from_secs(10)).await?;
            let nodes = status["nodes"].as_array().context("no nodes")?;
            let of = |name: &str| -> BTreeSet<String> {
                nodes.iter().map(|node| node[name].to_string()).collect()
            };
            let (applied, digests) = (of("applied"), of("state_digest"));
            let all_tell = nodes.len() == NODES && !digests.contains("null");
            Ok((all_tell && applied.len() == 1).then_some(digests.len() == 1))
        })
        .await
    }

    /// Stops all with SIGTERM.
    ///
    /// # Errors
    /// When one does not end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        for seat in &mut self.seats {
            if seat.is_running()? {
                seat.end(Signal::TERM).await?;
            }
        }
        Ok(())
    }

    /// Votes that controllers have forgotten: how often a log follows a leader that comes before one that it followed
    /// already. Leaders are in order by term, and by number within a term: with openraft a second one may be elected in a
    /// term, and takes the first one's place.
    ///
    /// # Errors
    /// When a log cannot be read, or names no leader at all.
    pub(crate) fn double_votes(&self) -> Result<u64> {
        let (mut forgotten, mut followed) = (0, 0);
        for seat in &self.seats {
            let text = fs::read(seat.log())?;
            let mut newest = (0, 0);
            for line in String::from_utf8_lossy(&text).lines() {
                // The last line before a kill may be cut off.
                let Ok(line) = serde_json::from_str::<Value>(line) else {
                    continue;
                };
                let (Some(term), Some(leader)) = (line["term"].as_u64(), line["leader"].as_u64())
                else {
                    continue;
                };
                if (term, leader) < newest {
                    let number = seat.number;
                    crate::tell(&format!(
                        "controller {number} follows {leader} in term {term} after {newest:?}"
                    ));
                    forgotten += 1;
                }
                newest = newest.max((term, leader));
                followed += 1;
            }
        }
        ensure!(followed > 0, "no log names a leader");
        Ok(forgotten)
    }
}

/// Writes a controller's configuration, and a certificate where its API needs one.
pub(crate) fn write_configuration(home: &Path, seat: &Seat, reserve_bytes: u64) -> Result<()> {
    let Place { api, link, .. } = &seat.place;
    let mut tls = String::new();
    if !api.ip().is_loopback() {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![api.ip().to_string()])?.self_signed(&key)?;
        fs::write(seat.directory.join("api.crt"), certificate.pem())?;
        let path = seat.directory.join("api.key");
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        tls.push_str("tls_certificate = \"api.crt\"\ntls_key = \"api.key\"\n");
    }
    let text = format!(
        "node = {number}\ndata_dir = \"disk/data\"\ngenesis = {genesis:?}\nseal_key_file = \"disk/seal.key\"\n\n\
         [api]\nlisten = \"{api}\"\nstop_notice_ms = 100\n{tls}\n\
         [link]\nlisten = \"{link}\"\nadvertise = \"{link}\"\n\n\
         [log]\nfile = \"controller.log\"\nbytes_max = 1000000000\n\n\
         [limits]\nrequests_per_second = 100000\nrequests_burst = 100000\n\n\
         [storage]\nreserve_bytes = {reserve_bytes}\n",
        number = seat.number,
        genesis = home.join("genesis.json"),
    );
    Ok(fs::write(seat.config(), text)?)
}

/// Runs a program of ours; gives what it wrote.
async fn succeed(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {told}");
    Ok(output.stdout)
}
