//! Every fact once (law 8), when the end comes between a commit and its acknowledgement.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{ACTIVE_WITHIN, AGENTS, CONTROLLERS, Fleet, control},
    wait::until,
};
use reqwest::Method;
use serde_json::json;

/// Processes that stand still until this is dropped.
pub(crate) struct Stopped(Vec<ProcessIdentity>);

impl Stopped {
    pub(crate) fn new(processes: Vec<ProcessIdentity>) -> Result<Self> {
        for process in &processes {
            process.send_signal(Signal::STOP)?;
        }
        Ok(Self(processes))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for process in &self.0 {
            // One that was killed meanwhile needs no waking.
            let _ = process.send_signal(Signal::CONT);
        }
    }
}

/// The agent's leg: its report is committed, and it dies before it hears of that.
pub(crate) async fn law_8_a_report_counts_once_when_the_agent_dies_before_its_acknowledgement(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let region = "do-fra1";
    let id = fleet.deploy("Reporting ISP", region).await?;
    acknowledged(&fleet, region).await?;
    let (stream, gateway) = (
        stream_of(&fleet, region).await?,
        gateway_of(&fleet, region).await?,
    );
    let address = deployment::address(&fleet.deployment(&id).await?)?;
    let mark = mark(&fleet, region)?;
    // Nothing is committed while two of three controllers stand still.
    let others = CONTROLLERS.iter().filter(|name| **name != gateway);
    let quorum = Stopped::new(
        others
            .map(|name| fleet.process(name))
            .collect::<Result<_>>()?,
    )?;
    control(&address, &json!({"mode": "sick"})).await?;
    until(
        "the agent wrote a record down",
        Duration::from_secs(10),
        async || Ok((lines(&fleet, region)? > mark).then_some(())),
    )
    .await?;
    // It has sent it, or will; then it stands still, and its record is committed without it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let agent = fleet.process(region)?;
    let frozen = Stopped::new(vec![agent.clone()])?;
    drop(quorum);
    until(
        "the record is committed",
        Duration::from_secs(15),
        async || Ok((head_of(&fleet, &stream).await? > mark).then_some(())),
    )
    .await?;
    ensure!(
        self::mark(&fleet, region)? == mark,
        "the acknowledgement arrived: the fault did not happen"
    );
    agent.send_signal(Signal::KILL)?;
    drop(frozen);

    fleet.back(region, &agent).await?;
    fleet.control(&id, &json!({"mode": "healthy"})).await?;
    fleet.until_status(&id, "active", ACTIVE_WITHIN).await?;
    once(&fleet, &[id]).await
}

/// The controllers' leg: an agent took an order, and its gateway dies before the receipt is committed.
pub(crate) async fn law_8_an_order_counts_once_when_its_gateway_dies_before_the_receipt(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let region = "byov-lagos";
    fleet.settled().await?;
    fleet.agents_connected().await?;
    let gateway = gateway_of(&fleet, region).await?;
    let agent = Stopped::new(vec![fleet.process(region)?])?;
    let id = fleet
        .create(&json!({"tenant_name": "Ordered ISP", "region": region}))
        .await?;
    fleet
        .until_told(&id, "wave.sealed", "", Duration::from_secs(5))
        .await?;
    // Signed, and on its way, within a second; then nothing is committed any more.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let others = CONTROLLERS.iter().filter(|name| **name != gateway);
    let quorum = Stopped::new(
        others
            .map(|name| fleet.process(name))
            .collect::<Result<_>>()?,
    )?;
    drop(agent);
    let started = until("the instance runs", Duration::from_secs(15), async || {
        let mut processes = fleet.processes().into_iter();
        let shim = processes
            .find(|process| process.command.contains("shim") && process.command.contains(&id));
        Ok(shim.map(|shim| shim.identity))
    })
    .await?;
    let killed = fleet.kill(gateway).await?;
    drop(quorum);
    let active = fleet
        .until_status(&id, "active", Duration::from_secs(40))
        .await?;
    fleet.back(gateway, &killed).await?;
    ensure!(
        started.is_alive() && deployment::restarts(&active) == 0,
        "it was started again: {active}"
    );
    let story = fleet.story(&id).await?;
    for action in ["intent.accepted", "intent.applied"] {
        let times = story
            .iter()
            .filter(|record| record["action"] == action)
            .count();
        ensure!(times == 1, "{action} is told {times} times");
    }
    once(&fleet, &[id]).await
}

/// Controllers die one after the other, wherever the reports happen to be.
pub(crate) async fn law_8_every_record_counts_once_while_controllers_keep_dying(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let mut ids = Vec::new();
    for region in AGENTS {
        ids.push(
            fleet
                .create(&json!({"tenant_name": format!("Flapping {region}"), "region": region}))
                .await?,
        );
    }
    for id in &ids {
        fleet.until_status(id, "active", ACTIVE_WITHIN).await?;
    }
    for round in 0..6 {
        let mode = if round % 2 == 0 { "sick" } else { "healthy" };
        for id in &ids {
            fleet.control(id, &json!({"mode": mode})).await?;
        }
        // The gateway of another agent each time; the leader is among them.
        let name = CONTROLLERS[round % 3];
        fleet.settled().await?;
        let before = fleet.kill(name).await?;
        fleet.back(name, &before).await?;
    }
    fleet.settled().await?;
    for id in &ids {
        fleet.control(id, &json!({"mode": "healthy"})).await?;
        fleet.until_status(id, "active", ACTIVE_WITHIN).await?;
    }
    once(&fleet, &ids).await
}

/// The caller's leg: the answer was lost, so he asks again with the same key, through another controller.
pub(crate) async fn law_8_a_retried_request_counts_once(fleet: Arc<Fleet>) -> Result<()> {
    let body = json!({"tenant_name": "Retried ISP", "region": "aws-eu-west-1"});
    let key = Some("the-same-key");
    let mut answers = Vec::new();
    for node in [1, 2, 3, 1] {
        let api = fleet.api()?.of_node(node);
        answers.push(
            api.ask(Method::POST, DEPLOYMENTS, Some(&body), key)
                .await?
                .ok(201)?,
        );
    }
    let ids: BTreeSet<&str> = answers
        .iter()
        .map(|answer| deployment::text(answer, "id"))
        .collect();
    ensure!(ids.len() == 1, "one request made {ids:?}");
    let id = deployment::id(&answers[0])?;
    let other = json!({"tenant_name": "Another ISP", "region": "aws-eu-west-1"});
    let mixed = fleet
        .api()?
        .ask(Method::POST, DEPLOYMENTS, Some(&other), key)
        .await?;
    ensure!(
        (400..500).contains(&mixed.status),
        "the key was taken for another request: {mixed:?}"
    );
    let story = fleet.story(&id).await?;
    let created = story
        .iter()
        .filter(|record| record["action"] == "deployment.created")
        .count();
    ensure!(created == 1, "created {created} times: {story:?}");
    Ok(())
}

/// That every agent's records are committed, all of them, each once, and that the tenants' stories say the same.
async fn once(fleet: &Fleet, tenants: &[String]) -> Result<()> {
    fleet.settled().await?;
    for region in AGENTS {
        acknowledged(fleet, region).await?;
        let stream = stream_of(fleet, region).await?;
        let path = format!("/api/v1/audit/records?stream={stream}&limit=500");
        let records = fleet.api()?.list(&path, "after").await?;
        let sequences: Vec<u64> = records
            .iter()
            .filter_map(|record| record["sequence"].as_u64())
            .collect();
        let expected: Vec<u64> = (1..=u64::try_from(sequences.len())?).collect();
        ensure!(
            sequences == expected,
            "the records of {region} are {sequences:?}"
        );
    }
    for tenant in tenants {
        let story = fleet.story(tenant).await?;
        let mut seen = BTreeSet::new();
        for (place, record) in story.iter().enumerate() {
            ensure!(
                record["sequence"].as_u64() == Some(u64::try_from(place)? + 1),
                "{record} is out of place"
            );
            let detail = deployment::text(record, "detail");
            if let Some(number) = detail
                .strip_prefix("record ")
                .and_then(|rest| rest.split(':').next())
            {
                let key = (
                    deployment::text(record, "actor").to_owned(),
                    number.to_owned(),
                );
                ensure!(seen.insert(key), "told twice: {record}");
            }
        }
        ensure!(!seen.is_empty(), "no agent told anything of {tenant}");
    }
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    Ok(())
}

/// Waits until an agent has heard that all its records are committed, and that is what the controllers hold.
async fn acknowledged(fleet: &Fleet, region: &str) -> Result<()> {
    let stream = stream_of(fleet, region).await?;
    until(
        &format!("all records of {region} are acknowledged"),
        Duration::from_secs(30),
        async || {
            let (mark, lines) = (mark(fleet, region)?, lines(fleet, region)?);
            let head = head_of(fleet, &stream).await?;
            ensure!(
                mark == lines && head == lines,
                "it wrote {lines}, {head} are committed, {mark} acknowledged"
            );
            Ok(Some(()))
        },
    )
    .await
}

/// The last record that an agent knows to be committed.
fn mark(fleet: &Fleet, region: &str) -> Result<u64> {
    let file = fleet.home().join(region).join("data/chain/acknowledged");
    Ok(fs::read_to_string(file)?.trim().parse()?)
}

/// How many records an agent wrote down; none is dropped in so short a life.
fn lines(fleet: &Fleet, region: &str) -> Result<u64> {
    let mut lines = 0;
    for entry in fs::read_dir(fleet.home().join(region).join("data/chain"))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            lines += fs::read(path)?
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
        }
    }
    Ok(u64::try_from(lines)?)
}

async fn stream_of(fleet: &Fleet, region: &str) -> Result<String> {
    let agents = fleet.api()?.list("/api/v1/agents", "cursor").await?;
    let agent = agents
        .iter()
        .find(|agent| agent["region"] == region)
        .context("no such agent")?;
    Ok(format!(
        "agent/{}/{}",
        deployment::text(agent, "id"),
        deployment::text(agent, "incarnation")
    ))
}

async fn head_of(fleet: &Fleet, stream: &str) -> Result<u64> {
    let streams = fleet.api()?.list("/api/v1/audit/streams", "cursor").await?;
    let head = streams.iter().find(|one| one["stream"] == stream);
    Ok(head.and_then(|head| head["sequence"].as_u64()).unwrap_or(0))
}

/// The controller that an agent is connected to.
async fn gateway_of(fleet: &Fleet, region: &str) -> Result<&'static str> {
    let node = until(
        "the agent has a gateway",
        Duration::from_secs(20),
        async || {
            let agents = fleet.api()?.list("/api/v1/agents", "cursor").await?;
            let agent = agents
                .iter()
                .find(|agent| agent["region"] == region)
                .context("no such agent")?;
            Ok(agent["node"].as_u64())
        },
    )
    .await?;
    Ok(CONTROLLERS[usize::try_from(node)? - 1])
}
