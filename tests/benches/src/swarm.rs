//! Many agents in few processes: each enrols with a join token of its own, keeps a link of its own over a socket of its
//! own, verifies what it is sent, and has its own journal and chain on the disk. Only what they order is not made: the
//! driver of [`agent`] keeps units in memory.
//!
//! ```text
//!   Swarm (this program) -- join tokens in a file --> child process: agents
//!         ^                                                  |
//!         +---- one line of JSON whenever something changed--+
//! ```

mod agent;
mod process;

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_protocol::{frame::JoinToken, ids::RegionId};
use dotmac_runtime::{disk, entropy::Entropy, supervise};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::{Instant, timeout},
};

pub(crate) use self::process::run as run_process;
use crate::{
    ground::{Ground, post},
    tell,
    wire::Wire,
};

/// The region of simulated agents.
pub(crate) const REGION: &str = "bench-swarm";
/// Join tokens asked for at once.
const TOKENS_AT_ONCE: usize = 32;
/// Milliseconds for which a join token counts.
const TOKEN_MS: u64 = 3_600_000;
/// How long all agents may need to enrol and connect, or to connect again.
pub(crate) const CONNECTED_WITHIN: Duration = Duration::from_secs(300);

/// What the agents of one process did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Agents that hold a certificate.
    pub(crate) enrolled: usize,
    /// Agents with a session, by controller.
    pub(crate) connected: BTreeMap<u64, usize>,
    /// Sessions that began.
    pub(crate) sessions: usize,
    /// Orders on disk, with their receipts.
    pub(crate) accepted: usize,
    /// Why an agent ended, which none should.
    pub(crate) ended: Option<String>,
}

impl Seen {
    /// Agents with a session.
    pub(crate) fn connected(&self) -> usize {
        self.connected.values().sum()
    }

    fn join(&mut self, other: &Self) {
        self.enrolled += other.enrolled;
        for (node, count) in &other.connected {
            *self.connected.entry(*node).or_default() += count;
        }
        self.sessions += other.sessions;
        self.accepted += other.accepted;
        self.ended = self.ended.take().or_else(|| other.ended.clone());
    }
}

/// How many agents, and where they live.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Size {
    /// Simulated agents
    #[arg(long, default_value_t = 1000)]
    pub(crate) agents: usize,
    /// Processes that they share
    #[arg(long, default_value_t = 2)]
    pub(crate) processes: usize,
    /// Directory for what they keep on disk, in place of the fleet's; one in memory (/dev/shm) shows what is the disk's part
    #[arg(long)]
    pub(crate) agents_home: Option<std::path::PathBuf>,
}

/// Running agents; they end with this value.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) agents: usize,
    children: Vec<Child>,
    seen: Vec<watch::Receiver<Seen>>,
    _home: tempfile::TempDir,
}

/// How long it took until all agents were there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Until the last one had a certificate.
    pub(crate) enrolled: Duration,
    /// Until the last one had a session.
    pub(crate) connected: Duration,
}

impl Swarm {
    /// Admits tokens, starts the processes, and waits until every agent has enrolled and is connected.
    ///
    /// # Errors
    /// When they are not in time.
    pub(crate) async fn start(ground: &Ground, size: &Size) -> Result<(Self, Arrival)> {
        let region = json!({"id": REGION, "description": "simulated agents"});
        ground.body(&post("/api/v1/regions", &region)).await?;
        let tokens = tokens(ground, size.agents).await?;
        let parent = size.agents_home.as_deref().unwrap_or(ground.fleet.home());
        let home = tempfile::Builder::new()
            .prefix("swarm-")
            .tempdir_in(parent)?;
        let mut swarm = Self {
            agents: size.agents,
            children: Vec::new(),
            seen: Vec::new(),
            _home: home,
        };
        let started = Instant::now();
        let share = size.agents.div_ceil(size.processes.max(1));
        for (number, tokens) in tokens.chunks(share.max(1)).enumerate() {
            let directory = swarm._home.path().join(number.to_string());
            swarm.spawn(&directory, tokens)?;
        }
        let all = size.agents;
        swarm
            .until("every agent is enrolled", |seen| seen.enrolled >= all)
            .await?;
        let enrolled = started.elapsed();
        swarm
            .until("every agent is connected", |seen| seen.connected() >= all)
            .await?;
        let connected = started.elapsed();
        tell(&format!(
            "{all} agents enrolled in {:.1} s and connected in {:.1} s",
            enrolled.as_secs_f64(),
            connected.as_secs_f64()
        ));
        Ok((
            swarm,
            Arrival {
                enrolled,
                connected,
            },
        ))
    }

    fn spawn(&mut self, directory: &Path, tokens: &[JoinToken]) -> Result<()> {
        disk::create_private_dir(directory)?;
        let texts: Vec<String> = tokens.iter().map(JoinToken::to_text).collect();
        let file = directory.join("join.tokens");
        // A token is no argument: others could read it there.
        disk::write_atomic(&file, texts.join("\n").as_bytes(), 0o600)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("swarm")
            .arg("--directory")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let (heard, seen) = watch::channel(Seen::default());
        supervise::spawn("bench swarm", async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(seen) = serde_json::from_str::<Seen>(&line) {
                    heard.send_replace(seen);
                }
            }
        });
        self.children.push(child);
        self.seen.push(seen);
        Ok(())
    }

    /// All processes together, as they said last.
    pub(crate) fn seen(&self) -> Seen {
        let mut all = Seen::default();
        for seen in &self.seen {
            all.join(&seen.borrow());
        }
        all
    }

    /// Waits until what all processes together saw is as wanted.
    ///
    /// # Errors
    /// When it is not in time, or an agent ended.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let waiting = async {
            let mut changes = self.seen.clone();
            loop {
                let seen = self.seen();
                ensure!(seen.ended.is_none(), "an agent ended: {:?}", seen.ended);
                if is_so(&seen) {
                    return Ok(seen);
                }
                let changed = changes.iter_mut().map(|one| Box::pin(one.changed()));
                let (changed, ..) = futures::future::select_all(changed).await;
                changed.context("a process of agents ended")?;
            }
        };
        timeout(CONNECTED_WITHIN, waiting)
            .await
            .with_context(|| format!("not in time: {what}: {:?}", self.seen()))?
    }

    /// Processes of the agents, for those who look at them.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().filter_map(Child::id).collect()
    }
}

/// Single-use tokens, made as `dotmac agents token` makes them.
async fn tokens(ground: &Ground, count: usize) -> Result<Vec<JoinToken>> {
    let share = count.div_ceil(TOKENS_AT_ONCE).max(1);
    let makers = (0..count).step_by(share).enumerate();
    let makers = makers.zip(ground.targets.iter().cycle());
    let makers = makers.map(|((number, first), target)| async move {
        let mut wire = Wire::open(target, number as u64).await?;
        let mut tokens = Vec::new();
        for _ in first..(first + share).min(count) {
            tokens.push(token(&mut wire).await?);
        }
        anyhow::Ok(tokens)
    });
    let made = futures::future::try_join_all(makers).await?;
    Ok(made.into_iter().flatten().collect())
}

async fn token(wire: &mut Wire) -> Result<JoinToken> {
    let entropy = Entropy::system();
    let region: RegionId = REGION.parse()?;
    let (id, secret) = (entropy.hex(8), entropy.bytes::<32>());
    let digest = JoinToken::secret_digest(&secret).to_string();
    let body = json!({"id": id, "secret_digest": digest, "region": REGION, "ttl_ms": TOKEN_MS});
    let (status, answer) = wire.ask(&post("/api/v1/agents/tokens", &body)).await?;
    let text = String::from_utf8_lossy(&answer);
    ensure!(status.is_success(), "join token: {status}: {text}");
    let made: Value = serde_json::from_str(&text)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let controllers = made["controllers"].as_array().context("no controllers")?;
    Ok(JoinToken {
        id: id.parse()?,
        secret,
        region,
        trust_root: text(&made["trust_root"]).parse()?,
        controllers: controllers.iter().map(text).collect(),
    })
}
