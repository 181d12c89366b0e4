//! One fleet of `make up` in a home of its own: three controllers, five agents, real processes. It is gone, with every
//! process and its home, when it is dropped.
//! Longer than 400 lines: it is the one place through which stories reach a fleet.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    api::{Api, DEPLOYMENTS},
    cli::{self, Ran},
    deployment, ports, processes, programs,
    wait::{throughout, until},
};

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

/// Keeps the supervisor from starting some processes as long as it lives.
#[derive(Debug)]
pub struct Hold {
    files: Vec<PathBuf>,
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

    /// Asks for a deployment of the demo instance, and gives its id once it is active.
    ///
    /// # Errors
    /// When it is not accepted or not active in time.
    pub async fn deploy(&self, name: &str, region: &str) -> Result<String> {
        let body = json!({"tenant_name": name, "region": region, "resource_tier": "small"});
        self.deploy_as(&body).await
    }

    /// Asks for a deployment with this body, and gives its id once it is active.
    ///
    /// # Errors
    /// When it is not accepted or not active in time.
    pub async fn deploy_as(&self, body: &Value) -> Result<String> {
        let id = self.create(body).await?;
        self.until_status(&id, "active", ACTIVE_WITHIN).await?;
        Ok(id)
    }

    /// Asks for a deployment and gives its id at once.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn create(&self, body: &Value) -> Result<String> {
        let created = self.api()?.post(DEPLOYMENTS, body).await?.ok(201)?;
        deployment::id(&created)
    }

    /// One deployment as the API shows it.
    ///
    /// # Errors
    /// When it is not shown.
    pub async fn deployment(&self, id: &str) -> Result<Value> {
        self.api()?.get(&format!("{DEPLOYMENTS}/{id}")).await
    }

    /// Waits until a deployment has this status.
    ///
    /// # Errors
    /// When it does not in time; with what it was last.
    pub async fn until_status(&self, id: &str, status: &str, within: Duration) -> Result<Value> {
        until(&format!("{id} is {status}"), within, async || {
            let shown = self.deployment(id).await?;
            if shown["status"] == status {
                return Ok(Some(shown));
            }
            let (found, why) = (
                deployment::text(&shown, "status"),
                deployment::waiting(&shown),
            );
            bail!("it is {found}: {why}")
        })
        .await
    }

    /// Tells a demo instance how to behave.
    ///
    /// # Errors
    /// When it does not answer; one that is told to crash does not.
    pub async fn control(&self, id: &str, order: &Value) -> Result<Value> {
        control(&deployment::address(&self.deployment(id).await?)?, order).await
    }

    /// Tells a demo instance to end with an exit code, and waits until its process is gone.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn crash(&self, id: &str, exit_code: u8) -> Result<ProcessIdentity> {
        let process = deployment::process(&self.deployment(id).await?)?;
        let order = json!({"mode": "crash", "exit_code": exit_code});
        // It ends instead of answering.
        let _ = self.control(id, &order).await;
        until(
            "the instance has ended",
            Duration::from_secs(5),
            async || Ok((!process.is_alive()).then_some(())),
        )
        .await?;
        Ok(process)
    }

    /// The story of a tenant, oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn story(&self, tenant: &str) -> Result<Vec<Value>> {
        self.api()?
            .list(&format!("/api/v1/audit?tenant={tenant}&limit=200"), "after")
            .await
    }

    /// Waits until a tenant's story has an action whose detail holds `words`.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn until_told(
        &self,
        tenant: &str,
        action: &str,
        words: &str,
        within: Duration,
    ) -> Result<Value> {
        until(
            &format!("the story of {tenant} tells {action} {words:?}"),
            within,
            async || {
                let story = self.story(tenant).await?;
                Ok(story.into_iter().find(|record| {
                    record["action"] == action && deployment::text(record, "detail").contains(words)
                }))
            },
        )
        .await
    }

    /// Asks for the deletion of a deployment.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn delete(&self, id: &str) -> Result<Value> {
        let path = format!("{DEPLOYMENTS}/{id}");
        self.api()?
            .ask(Method::DELETE, &path, None, None)
            .await?
            .ok(202)
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

/// Tells the demo instance on this address how to behave.
///
/// # Errors
/// When it does not answer; one that is told to crash does not.
pub async fn control(address: &str, order: &Value) -> Result<Value> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    let request = client.post(format!("http://{address}/control")).json(order);
    Ok(request.send().await?.error_for_status()?.json().await?)
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

impl Hold {
    /// Holds processes of the fleet in this home, in the name of this program.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub fn take(home: &Path, names: &[&str]) -> Result<Self> {
        let own = serde_json::to_vec(&ProcessIdentity::own())?;
        let mut hold = Self { files: Vec::new() };
        for name in names {
            let file = home.join("run").join(format!("{name}.hold.pid"));
            fs::write(&file, &own)?;
            hold.files.push(file);
        }
        Ok(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}
