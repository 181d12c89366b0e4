//! Law 3: a controller that lies, with its key, its data and its leadership, moves nobody.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::process::ProcessIdentity;
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{ACTIVE_WITHIN, AGENTS, Fleet, GRACE_MS},
    processes, search,
    wait::{throughout, until},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// The lying controller as a process.
struct Liar {
    lines: Lines<BufReader<ChildStdout>>,
    input: Option<ChildStdin>,
    child: Child,
}

impl Liar {
    fn start(fleet: &Fleet, name: &str) -> Result<Self> {
        let config = fleet.home().join(name).join("controller.toml");
        let mut child = Command::new(env!("CARGO_BIN_EXE_forger"))
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("it has no output")?;
        let input = child.stdin.take();
        Ok(Self {
            lines: BufReader::new(output).lines(),
            input,
            child,
        })
    }

    async fn says(&mut self, within: Duration) -> Result<Value> {
        let line = tokio::time::timeout(within, self.lines.next_line()).await;
        let line = line
            .context("the forger says nothing")??
            .context("the forger ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input.take());
        tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await??;
        Ok(())
    }
}

/// Point 5 and law 3.
pub(crate) async fn law_3_what_one_controller_signs_alone_moves_nobody(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let mut before = Vec::new();
    for region in AGENTS {
        let id = fleet.deploy(&format!("Honest {region}"), region).await?;
        before.push(deployment::process(&fleet.deployment(&id).await?)?);
    }
    let instances = shims(&fleet);
    fleet.settled().await?;
    let hold = fleet.kill_and_hold(&["controller-1"]).await?;
    let mut liar = Liar::start(&fleet, "controller-1")?;
    liar.says(Duration::from_secs(20)).await?;
    seize_leadership(&fleet, &mut liar).await?;
    let lies = liar.says(Duration::from_secs(60)).await?;
    let tried = lies["tried"].as_array().context("nothing was tried")?;
    ensure!(
        tried.len() == 7 && lies["direct"].as_array().map(Vec::len) == Some(8),
        "{lies}"
    );
    // The log took them (Raft does not tell lies from truth), so it is up to signers and agents. A token is none before
    // it is proven.
    let is_token = |one: &&Value| deployment::text(one, "what").contains("token");
    let accepted = tried.iter().filter(|one| one["accepted"] == true);
    ensure!(
        accepted.clone().count() == tried.len() - 1 && !accepted.clone().any(|one| is_token(&one)),
        "the log took or refused too much: {lies}"
    );

    // The forged admin asks an honest controller, which knows no such token.
    let token = deployment::text(&lies, "token").to_owned();
    let honest = fleet.api()?.of_nodes(&[2, 3]);
    let forged = honest.with_token(Some(token));
    let by_token = forged
        .post(
            DEPLOYMENTS,
            &json!({"tenant_name": "By a forged token", "region": "do-fra1"}),
        )
        .await?;
    ensure!(by_token.status == 401, "{by_token:?}");
    let made: Vec<String> = tried
        .iter()
        .filter_map(|one| Some(one["deployment"].as_str()?.to_owned()))
        .collect();
    refused_by_the_others(&fleet).await?;
    // Longer than the grace time of the forged deletion, so that its tombstone was sealed, too.
    throughout(Duration::from_millis(GRACE_MS + 4_000), async || {
        processes::all_alive(&before)?;
        let now = shims(&fleet);
        ensure!(
            now == instances,
            "instances were {instances:?} and are {now:?}"
        );
        Ok(())
    })
    .await?;
    for id in &made {
        let shown = honest
            .get(&format!("{DEPLOYMENTS}/{id}?consistency=stale"))
            .await?;
        let status = deployment::text(&shown, "status");
        ensure!(
            matches!(status, "pending" | "provisioning"),
            "{id} is {status}: {shown}"
        );
        ensure!(
            !deployment::waiting(&shown).is_empty(),
            "it does not say what it waits for: {shown}"
        );
        ensure!(
            shown["components"].as_array().is_none_or(Vec::is_empty),
            "{shown}"
        );
    }
    agents_said_no(&fleet, deployment::text(&lies, "agent")).await?;
    liar.end().await?;
    drop(hold);
    fleet.settled().await?;
    // The liar is gone, and honest orders are obeyed.
    let id = fleet
        .create(&json!({"tenant_name": "Honest again", "region": "byov-lagos"}))
        .await?;
    fleet.until_status(&id, "active", ACTIVE_WITHIN).await?;
    processes::all_alive(&before)
}

/// Ends other gateways, so that agents look for another one, until the forger has all it wants and says so.
async fn seize_leadership(fleet: &Fleet, liar: &mut Liar) -> Result<()> {
    let honest = fleet.api()?.of_nodes(&[2, 3]);
    let others = ["controller-2", "controller-3"];
    for turn in 0..30 {
        if let Ok(said) = liar.says(Duration::from_secs(3)).await {
            ensure!(said["leads"] == true, "{said}");
            for name in others {
                // The lies are told to two honest controllers that are there.
                until(
                    "an honest controller is back",
                    Duration::from_secs(20),
                    async || Ok(fleet.process(name).ok()),
                )
                .await?;
            }
            return Ok(());
        }
        let Ok(status) = honest.get("/api/v1/cluster/status").await else {
            continue;
        };
        if status["leader"] == 1 {
            let name = others[turn % 2];
            let before = fleet.process(name)?;
            drop(fleet.kill_and_hold(&[name]).await?);
            fleet.back(name, &before).await?;
        }
    }
    bail!("the forger never led")
}

/// Both honest controllers say which waves they did not sign, and why.
async fn refused_by_the_others(fleet: &Fleet) -> Result<()> {
    let api = fleet.api()?.of_nodes(&[2, 3]);
    until(
        "both honest controllers refuse to sign",
        Duration::from_secs(20),
        async || {
            let status = api.get("/api/v1/cluster/status").await?;
            for node in status["nodes"]
                .as_array()
                .context("no nodes")?
                .iter()
                .skip(1)
            {
                let refusals = node["refusals"].to_string();
                ensure!(
                    refusals.contains("is not proven"),
                    "controller {}: {refusals}",
                    node["id"]
                );
            }
            Ok(Some(()))
        },
    )
    .await
}

/// The agent that got self-signed waves over its own session wrote down that it does not believe them.
async fn agents_said_no(fleet: &Fleet, agent: &str) -> Result<()> {
    let region = AGENTS
        .iter()
        .find(|region| agent.starts_with(**region))
        .context("which agent?")?;
    until(
        "the agent says that it does not believe",
        Duration::from_secs(10),
        async || {
            let (found, _) = search::files_with(&fleet.home().join(region), b"lacks signatures")?;
            Ok(found
                .iter()
                .any(|file| file.path.ends_with("agent.log"))
                .then_some(()))
        },
    )
    .await
}

/// Every instance's shim.
fn shims(fleet: &Fleet) -> Vec<ProcessIdentity> {
    let processes = fleet.processes().into_iter();
    let shims = processes.filter(|process| process.command.contains("dotmac-agent shim "));
    let mut shims: Vec<_> = shims.map(|process| process.identity).collect();
    shims.sort();
    shims
}
