//! One fleet of `make up` in a home of its own: three controllers, five agents, real processes. It is gone, with every
//! process and its home, when it is dropped.
//! Longer than 400 lines: it is the one place through which stories reach a fleet.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    api::Api,
    cli::{self, Ran},
    ports, processes, programs,
    wait::{throughout, until},
};

mod deployments;
mod hold;

pub use self::{deployments::control, hold::Hold};

/// The controllers' names.
pub const CONTROLLERS: [&str; 3] = ["controller-1", "controller-2", "controller-3"];
/// The agents' names, which are their regions, too.
pub const AGENTS: [&str; 5] = [
    "aws-eu-west-1",
    "azure-westeurope",
    "gcp-europe-west1",
    "do-fra1",
    "byov-lagos",
];

/// How long a deployment may take to become active when that is not what is measured.
pub const ACTIVE_WITHIN: Duration = Duration::from_secs(30);
/// How long the fleet may take to find a leader again when that is not what is measured.
pub const LEADER_WITHIN: Duration = Duration::from_secs(20);
/// Milliseconds between deletion and removal in these fleets.
pub const GRACE_MS: u64 = 6_000;
/// Lines of each log told after a failure.
const TAIL_LINES: usize = 12;
/// Characters of each line told after a failure.
const TAIL_CHARS: usize = 400;

/// One fleet.
#[allow(missing_debug_implementations, reason = "its client holds a token")]
pub struct Fleet {
    home: PathBuf,
    temp: Option<TempDir>,
    ports: ports::Reserved,
    is_kept: AtomicBool,
}

impl Fleet {
    /// A home with the programs and free ports; nothing runs.
    ///
    /// # Errors
    /// When there is no place or no range of ports for it.
    pub fn prepare(name: &str) -> Result<Self> {
        let temp = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(programs::homes()?)?;
        let home = temp.path().canonicalize()?;
        programs::install(&home)?;
        let ports = ports::reserve()?;
        Ok(Self {
            home,
            temp: Some(temp),
            ports,
            is_kept: AtomicBool::new(false),
        })
    }

    /// A running fleet.
    ///
    /// # Errors
    /// When it does not come up; with the tails of its logs.
    pub async fn start(name: &str) -> Result<Self> {
        let fleet = Self::prepare(name)?;
        match fleet.up().await {
            Ok(_) => Ok(fleet),
            Err(error) => {
                fleet.keep();
                Err(error.context(fleet.tails()))
            }
        }
    }

    /// `make up DETACH=1`; gives how long it took.
    ///
    /// # Errors
    /// With what it wrote, when it fails.
    pub async fn up(&self) -> Result<Duration> {
        let started = Instant::now();
        self.dotmac(&["local", "up", "--detach"]).await?.ok()?;
        Ok(started.elapsed())
    }

    /// `make down`, after which nothing may be left.
    ///
    /// # Errors
    /// When it fails, or a process is left.
    pub async fn down(&self) -> Result<()> {
        self.dotmac(&["local", "down"]).await?.ok()?;
        let left = self.processes();
        ensure!(left.is_empty(), "`down` left {left:?}");
        Ok(())
    }

    /// Where everything lies.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The first of its ports.
    #[must_use]
    pub fn port_base(&self) -> u16 {
        self.ports.base
    }

    /// A client with the admin's token.
    ///
    /// # Errors
    /// When there is no token yet.
    pub fn api(&self) -> Result<Api> {
        let path = self.home.join("admin.token");
        let token = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Api::new(self.ports.base, Some(token.trim().to_owned()))
    }

    /// Runs the installed `dotmac` on this fleet.
    ///
    /// # Errors
    /// When it cannot be started or does not end; what it says is the caller's to judge.
    pub async fn dotmac(&self, arguments: &[&str]) -> Result<Ran> {
        let home = self.home.display().to_string();
        let all = [&["--home", home.as_str()][..], arguments].concat();
        let variables = [
            ("DOTMAC_PORT_BASE", self.ports.base.to_string()),
            ("DOTMAC_GRACE_MS", GRACE_MS.to_string()),
        ];
        cli::run(&self.home.join("bin/dotmac"), &all, &variables).await
    }

    /// Runs the installed `dotmac` on this fleet with somebody at its terminal who types this.
    ///
    /// # Errors
    /// When it cannot be started or does not end; what it says is the caller's to judge.
    pub async fn dotmac_at_terminal(&self, arguments: &[&str], typed: &str) -> Result<Ran> {
        let home = self.home.display().to_string();
        let all = [&["--home", home.as_str()][..], arguments].concat();
        cli::run_at_terminal(&self.home.join("bin/dotmac"), &all, &[], typed).await
    }

    /// Runs `dotmac … -o json` and reads what it wrote.
    ///
    /// # Errors
    /// When it fails or writes something else.
    pub async fn dotmac_json(&self, arguments: &[&str]) -> Result<Value> {
        self.dotmac(&[arguments, &["-o", "json"]].concat())
            .await?
            .ok()?
            .json()
    }

    /// Everything of it that runs, instances too.
    #[must_use]
    pub fn processes(&self) -> Vec<processes::Process> {
        processes::below(&self.home)
    }

    /// The process of this name, by its pid file.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self, name: &str) -> Result<ProcessIdentity> {
        let path = self.home.join("run").join(format!("{name}.pid"));
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let identity: ProcessIdentity = serde_json::from_slice(&bytes)?;
        ensure!(identity.is_alive(), "{name} does not run");
        Ok(identity)
    }

    /// Kills a process of this name as a crash would (`kill -9`), and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or survives.
    pub async fn kill(&self, name: &str) -> Result<ProcessIdentity> {
        let process = self.process(name)?;
        process.send_signal(Signal::KILL)?;
        until(
            "the killed process is gone",
            Duration::from_secs(5),
            async || Ok((!process.is_alive()).then_some(())),
        )
        .await?;
        Ok(process)
    }

    /// Kills processes and keeps them down until the hold is dropped.
    ///
    /// # Errors
    /// When one does not run.
    pub async fn kill_and_hold(&self, names: &[&str]) -> Result<Hold> {
        let hold = Hold::take(&self.home, names)?;
        for name in names {
            self.kill(name).await?;
        }
        // Longer than the supervisor's pause: the hold holds.
        throughout(Duration::from_millis(400), async || {
            let back = names.iter().find(|name| self.process(name).is_ok());
            ensure!(back.is_none(), "{back:?} is back in spite of the hold");
            Ok(())
        })
        .await?;
        Ok(hold)
    }

    /// Waits until a process of this name runs that is not `before`.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn back(&self, name: &str, before: &ProcessIdentity) -> Result<ProcessIdentity> {
        until(
            &format!("{name} is back"),
            Duration::from_secs(20),
            async || {
                let now = self.process(name)?;
                Ok((now != *before).then_some(now))
            },
        )
        .await
    }

    /// Number and name of the controller that leads.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn leader(&self) -> Result<(usize, &'static str)> {
        let api = self.api()?;
        let node = until("a controller leads", LEADER_WITHIN, async || {
            let status = api.get("/api/v1/cluster/status").await?;
            let leader = status["leader"]
                .as_u64()
                .and_then(|node| usize::try_from(node).ok());
            Ok(leader.filter(|node| (1..=3).contains(node)))
        })
        .await?;
        Ok((node, CONTROLLERS[node - 1]))
    }

    /// Waits until every controller takes the same one for the leader and has applied what it has.
    ///
    /// # Errors
    /// When they do not agree in time.
    pub async fn settled(&self) -> Result<()> {
        let api = self.api()?;
        until("three controllers agree", LEADER_WITHIN, async || {
            let status = api.get("/api/v1/cluster/status").await?;
            let nodes = status["nodes"].as_array().context("no nodes")?;
            let leads = nodes
                .iter()
                .filter(|node| node["state"] == "leader")
                .count();
            let follows = nodes
                .iter()
                .filter(|node| node["state"] == "follower")
                .count();
            Ok(((leads, follows) == (1, 2)).then_some(()))
        })
        .await
    }

    /// Waits until all five agents are connected.
    ///
    /// # Errors
    /// When one is not in time.
    pub async fn agents_connected(&self) -> Result<()> {
        let api = self.api()?;
        until(
            "five agents are connected",
            Duration::from_secs(30),
            async || {
                let agents = api.list("/api/v1/agents", "cursor").await?;
                let connected = agents
                    .iter()
                    .filter(|agent| agent["status"] == "connected")
                    .count();
                Ok((connected == AGENTS.len()).then_some(()))
            },
        )
        .await
    }

    /// Leaves home and logs on the disk, for whoever looks into a failure; `true` the first time.
    pub fn keep(&self) -> bool {
        !self.is_kept.swap(true, Ordering::Relaxed)
    }

    /// The last lines of every log.
    #[must_use]
    pub fn tails(&self) -> String {
        let names = CONTROLLERS.iter().chain(&AGENTS).chain(&["supervisor"]);
        let mut text = format!(
            "home: {} (port base {})\n",
            self.home.display(),
            self.ports.base
        );
        for name in names {
            for log in ["controller.log", "agent.log", "supervisor.log", "crash.log"] {
                let path = self.home.join(name).join(log);
                let Ok(bytes) = fs::read(&path) else { continue };
                let lines = String::from_utf8_lossy(&bytes);
                // Elections fill pages and are the least interesting.
                let lines: Vec<String> = lines
                    .lines()
                    .filter(|line| !line.contains("openraft::"))
                    .map(|line| line.chars().take(TAIL_CHARS).collect())
                    .collect();
                let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
                if !last.is_empty() {
                    text.push_str(&format!("--- {name}/{log}\n{}\n", last.join("\n")));
                }
            }
        }
        text
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if !self.processes().is_empty() {
            let down = std::process::Command::new(self.home.join("bin/dotmac"))
                .args(["--home".as_ref(), self.home.as_os_str()])
                .args(["local", "down"])
                .output();
            let left = self.processes();
            for process in &left {
                // Nothing may outlive the tests, whatever the product does.
                let _ = process.identity.send_signal(Signal::KILL);
            }
            let is_clean = left.is_empty();
            assert!(
                is_clean || std::thread::panicking(),
                "`down` left {left:?}: {down:?}"
            );
        }
        if self.is_kept.load(Ordering::Relaxed)
            && let Some(temp) = self.temp.take()
        {
            let _ = temp.keep();
        }
    }
}
