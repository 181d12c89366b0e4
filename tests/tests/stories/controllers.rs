//! Controllers that die: the leading one, all of them, all but one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::Signal;
use dotmac_tests::{
    api::{Api, DEPLOYMENTS, fetch},
    deployment,
    fleet::{ACTIVE_WITHIN, CONTROLLERS, Fleet},
    processes,
    wait::{throughout, until},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

/// A write that was acknowledged: when it was first asked for, and when the answer came.
struct Acknowledged {
    id: String,
    asked: Instant,
    answered: Instant,
}

/// Point 5 and law 1.
pub(crate) async fn law_1_nothing_acknowledged_is_lost_when_the_leading_controller_is_killed(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    let (node, leader) = fleet.leader().await?;
    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> = (0..3)
        .map(|number| tokio::spawn(write(fleet.clone(), number, stopped.clone())))
        .collect();
    // Some writes before, so that there is something to lose.
    until(
        "writes are under way",
        Duration::from_secs(10),
        async || {
            let told = fleet.api()?.get("/api/v1/audit?limit=1000").await?;
            // Of each writer one may be written and not answered yet.
            Ok((tokens_told(&told).len() >= 20 + writers.len()).then_some(()))
        },
    )
    .await?;
    let killed = Instant::now();
    let hold = fleet.kill_and_hold(&[leader]).await?;
    let cli = fleet.dotmac_json(&["deployments", "list"]).await?;
    ensure!(cli["items"].is_array(), "the CLI did not fail over: {cli}");
    tokio::time::sleep_until(killed + Duration::from_secs(5)).await;
    stop.send_replace(true);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await??);
    }
    let first_after = acknowledged
        .iter()
        .filter(|one| one.asked > killed)
        .map(|one| one.answered)
        .min();
    let pause = first_after.context("nothing was accepted after the kill")? - killed;
    ensure!(
        pause <= Duration::from_secs(3),
        "writes were accepted again after {pause:?} only"
    );

    // The agents found another way, and orders go on without the dead one.
    fleet.agents_connected().await?;
    fleet.deploy("After ISP", "byov-lagos").await?;
    drop(hold);
    fleet.settled().await?;
    let before = acknowledged
        .iter()
        .filter(|one| one.answered < killed)
        .count();
    ensure!(
        before >= 20,
        "only {before} writes were acknowledged before the kill"
    );
    for member in 1..=3 {
        // The one that was killed has them, too.
        let told = counts(&fleet.api()?.of_node(member)).await?;
        for one in &acknowledged {
            let times = told.get(&one.id).copied().unwrap_or(0);
            ensure!(
                times == 1,
                "controller {member} has {times} records of token {} (killed was {node})",
                one.id
            );
        }
    }
    Ok(())
}

/// Point 5, laws 2 and 5.
pub(crate) async fn law_5_cut_off_from_all_controllers_is_not_down(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let crashing = fleet.deploy("Crashing ISP", "do-fra1").await?;
    let quiet = fleet.deploy("Quiet ISP", "gcp-europe-west1").await?;
    let shown = [
        fleet.deployment(&crashing).await?,
        fleet.deployment(&quiet).await?,
    ];
    let [before, calm] = [
        deployment::process(&shown[0])?,
        deployment::process(&shown[1])?,
    ];
    let page = format!("http://{}/", deployment::address(&shown[0])?);
    let hold = fleet.kill_and_hold(&CONTROLLERS).await?;
    before.send_signal(Signal::KILL)?;
    // It starts only with a valid licence: without one, the program ends at once.
    let restarted = until(
        "it is back, licensed from its agent's copy",
        Duration::from_secs(20),
        async || {
            let text = fetch(&page).await?.text().await?;
            ensure!(
                text.contains("Crashing ISP") && text.contains(&format!("Tenant {crashing}")),
                "{text}"
            );
            let pid = text
                .split("process ")
                .nth(1)
                .and_then(|rest| rest.split('.').next());
            let process = processes::of(pid.context("no pid")?.parse()?)?;
            Ok((process != before).then_some(process))
        },
    )
    .await?;
    let all = [restarted.clone(), calm.clone()];
    throughout(Duration::from_secs(3), async || processes::all_alive(&all)).await?;

    drop(hold);
    fleet.settled().await?;
    fleet.agents_connected().await?;
    fleet
        .until_told(
            &crashing,
            "instance.exited",
            "signal 9",
            Duration::from_secs(20),
        )
        .await?;
    throughout(Duration::from_secs(3), async || processes::all_alive(&all)).await?;
    let active = fleet
        .until_status(&crashing, "active", ACTIVE_WITHIN)
        .await?;
    ensure!(
        deployment::process(&active)? == restarted,
        "it was restarted once more: {active}"
    );
    ensure!(deployment::restarts(&active) == 1, "{active}");
    let active = fleet.until_status(&quiet, "active", ACTIVE_WITHIN).await?;
    ensure!(
        deployment::process(&active)? == calm && deployment::restarts(&active) == 0,
        "{active}"
    );
    let story = fleet.story(&crashing).await?;
    let ends = story
        .iter()
        .filter(|record| record["action"] == "instance.exited")
        .count();
    ensure!(ends == 1, "one end was told {ends} times");
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    Ok(())
}

/// Point 5, laws 3 and 10.
pub(crate) async fn law_10_an_order_says_what_it_waits_for_and_one_controller_alone_signs_nothing(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let running = fleet.deploy("Running ISP", "byov-lagos").await?;
    let process = deployment::process(&fleet.deployment(&running).await?)?;
    // An order whose agent is away: accepted, and it says what it waits for.
    let agent_hold = fleet.kill_and_hold(&["azure-westeurope"]).await?;
    let waiting = fleet
        .create(&json!({"tenant_name": "Waiting ISP", "region": "azure-westeurope"}))
        .await?;
    let shown = until(
        "it waits for its agent",
        Duration::from_secs(20),
        async || {
            let shown = fleet.deployment(&waiting).await?;
            let waiting = deployment::waiting(&shown);
            ensure!(
                waiting.contains("is not connected"),
                "it waits for {waiting:?}"
            );
            Ok(Some(shown))
        },
    )
    .await?;
    ensure!(shown["status"] == "provisioning", "{shown}");
    ensure!(
        !deployment::text(&shown["waiting"], "who").is_empty(),
        "{shown}"
    );
    ensure!(!shown["waiting"]["since"].is_null(), "{shown}");

    // Signatures live in memory: with all controllers gone and one back, there is its own and no other.
    let first_hold = fleet.kill_and_hold(&["controller-1"]).await?;
    let others_hold = fleet
        .kill_and_hold(&["controller-2", "controller-3"])
        .await?;
    drop(first_hold);
    drop(agent_hold);
    let alone = fleet.api()?.of_node(1);
    until(
        "the one controller and the agent have met",
        Duration::from_secs(20),
        async || {
            let status = alone.get("/api/v1/cluster/status").await?;
            Ok((status["nodes"][0]["agents"].as_u64() == Some(5)).then_some(()))
        },
    )
    .await?;
    let stale = format!("{DEPLOYMENTS}/{waiting}?consistency=stale");
    throughout(Duration::from_secs(4), async || {
        ensure!(process.is_alive(), "what ran was stopped");
        let shown = alone.get(&stale).await?;
        ensure!(
            shown["status"] == "provisioning" && !deployment::waiting(&shown).is_empty(),
            "{shown}"
        );
        let started: Vec<_> = fleet
            .processes()
            .into_iter()
            .filter(|one| one.command.contains(&waiting))
            .collect();
        ensure!(
            started.is_empty(),
            "an agent obeyed one signature: {started:?}"
        );
        Ok(())
    })
    .await?;
    let refused = alone
        .post(DEPLOYMENTS, &json!({"tenant_name": "Alone ISP"}))
        .await?;
    ensure!(
        refused.status == 503,
        "one controller alone answered {refused:?}"
    );
    for member in ["code", "detail", "next"] {
        ensure!(
            !deployment::text(&refused.body, member).is_empty(),
            "no {member}: {}",
            refused.body
        );
    }
    drop(others_hold);
    fleet
        .until_status(&waiting, "active", Duration::from_secs(40))
        .await?;
    ensure!(process.is_alive(), "what ran was stopped");
    Ok(())
}

/// Makes tokens, one after the other, until it is stopped; asks again with the same key until it is answered.
async fn write(
    fleet: Arc<Fleet>,
    writer: u64,
    stopped: watch::Receiver<bool>,
) -> Result<Vec<Acknowledged>> {
    let api = fleet.api()?;
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        let id = format!("{writer:04x}{number:012x}");
        let digest = dotmac_controller::node::bearer_digest(&format!("secret of {id}")).to_string();
        let body =
            json!({"id": id, "secret_digest": digest, "name": "a writer's", "role": "auditor"});
        let asked = Instant::now();
        loop {
            let path = "/api/v1/tokens";
            let key = format!("write-{id}");
            let answer = api
                .ask(reqwest::Method::POST, path, Some(&body), Some(&key))
                .await;
            if let Ok(answer) = answer {
                if answer.status == 201 {
                    acknowledged.push(Acknowledged {
                        id,
                        asked,
                        answered: Instant::now(),
                    });
                    break;
                }
                ensure!(
                    answer.status >= 500,
                    "a retried write was refused: {answer:?}"
                );
            }
            if *stopped.borrow() {
                return Ok(acknowledged);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if *stopped.borrow() {
            break;
        }
    }
    Ok(acknowledged)
}

/// How often each token is in a controller's own audit.
async fn counts(api: &Api) -> Result<BTreeMap<String, usize>> {
    let records = api.list("/api/v1/audit?limit=1000", "after").await?;
    let mut counts = BTreeMap::new();
    for id in tokens_told(&json!({"items": records})) {
        *counts.entry(id).or_default() += 1;
    }
    Ok(counts)
}

fn tokens_told(page: &Value) -> Vec<String> {
    let records = page["items"].as_array().into_iter().flatten();
    records
        .filter(|record| record["action"] == "token.created")
        .filter_map(|record| {
            Some(
                deployment::text(record, "detail")
                    .split(' ')
                    .next()?
                    .to_owned(),
            )
        })
        .collect()
}
