//! A fleet's life: beside another one, started again, stopped, killed.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{ACTIVE_WITHIN, AGENTS, CONTROLLERS, Fleet},
    processes,
    wait::until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Point 1.
pub(crate) async fn two_fleets_live_side_by_side(fleet: Arc<Fleet>) -> Result<()> {
    let other = Fleet::start("beside").await?;
    let body =
        json!({"tenant_name": "Twin ISP", "domain_name": "twin.dotmac.app", "region": "do-fra1"});
    let here = fleet.deploy_as(&body).await?;
    let there = other.deploy_as(&body).await?;
    ensure!(here != there, "both fleets made {here}");
    for (fleet, own) in [(fleet.as_ref(), &here), (&other, &there)] {
        let listed = fleet.api()?.list(DEPLOYMENTS, "cursor").await?;
        ensure!(
            listed.len() == 1 && listed[0]["id"] == own.as_str(),
            "{listed:?}"
        );
    }
    let mixed = fleet
        .api()?
        .with_token(other_token(&other)?)
        .get(DEPLOYMENTS)
        .await;
    ensure!(
        mixed.is_err(),
        "the token of one fleet opens the other: {mixed:?}"
    );
    let before = members(&fleet)?;
    other.down().await?;
    processes::all_alive(&before)?;
    ensure!(
        fleet.deployment(&here).await?["status"] == "active",
        "the end of the other fleet was felt"
    );
    Ok(())
}

/// Point 1.
pub(crate) async fn up_again_recognises_what_runs(fleet: Arc<Fleet>) -> Result<()> {
    let before = members(&fleet)?;
    let said = fleet.dotmac(&["local", "up", "--detach"]).await?.ok()?.out;
    ensure!(said.contains("already up"), "{said}");
    ensure!(before == members(&fleet)?, "something was started again");
    let status = fleet.dotmac(&["local", "status"]).await?.ok()?.out;
    for name in CONTROLLERS.iter().chain(&AGENTS) {
        ensure!(status.contains(name), "{name} is missing in\n{status}");
    }
    Ok(())
}

/// Point 1.
pub(crate) async fn a_stopped_fleet_has_everything_again_within_five_seconds(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.deploy("Lasting ISP", "byov-lagos").await?;
    let before = holdings(&fleet).await?;
    fleet.down().await?;
    let started = Instant::now();
    fleet.up().await?;
    let left = Duration::from_secs(5).saturating_sub(started.elapsed());
    let ids = ids(&before[0]);
    until("every instance is active again", left, async || {
        for id in &ids {
            if fleet.deployment(id).await?["status"] != "active" {
                return Ok(None);
            }
        }
        let instances = fleet.processes();
        let runs = |id: &&String| {
            instances
                .iter()
                .any(|process| process.command.contains("shim") && process.command.contains(*id))
        };
        Ok((ids.iter().filter(runs).count() == ids.len()).then_some(()))
    })
    .await?;
    let after = holdings(&fleet).await?;
    ensure!(
        before[1] == after[1],
        "releases were {} and are {}",
        before[1],
        after[1]
    );
    ensure!(
        ids == self::ids(&after[0]),
        "deployments were {} and are {}",
        before[0],
        after[0]
    );
    ensure!(
        before[2] == after[2],
        "agents were {} and are {}",
        before[2],
        after[2]
    );
    Ok(())
}

/// Point 1, and law 1: whatever was acknowledged was on a majority's disks.
pub(crate) async fn law_1_after_a_kill_of_everything_up_adopts_what_survived_and_restarts_the_rest(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let survivor = fleet.deploy("Surviving ISP", "aws-eu-west-1").await?;
    let victim = fleet.deploy("Dying ISP", "azure-westeurope").await?;
    let survives = deployment::process(&fleet.deployment(&survivor).await?)?;
    let dies = deployment::process(&fleet.deployment(&victim).await?)?;
    // The last acknowledged word before the end.
    let last = fleet
        .create(&json!({"tenant_name": "Last ISP", "region": "gcp-europe-west1"}))
        .await?;
    let members = members(&fleet)?;
    fleet.process("supervisor")?.send_signal(Signal::KILL)?;
    for process in &members {
        process.send_signal(Signal::KILL)?;
    }
    let shims = fleet.processes().into_iter();
    for shim in shims.filter(|process| process.command.contains(&victim)) {
        shim.identity.send_signal(Signal::KILL)?;
    }
    // Killed by itself if its shim did not take it along.
    let _ = dies.send_signal(Signal::KILL);
    let gone = members.iter().chain([&dies]);
    let gone: Vec<&ProcessIdentity> = gone.collect();
    until("the killed are gone", Duration::from_secs(5), async || {
        Ok(gone.iter().all(|process| !process.is_alive()).then_some(()))
    })
    .await?;
    ensure!(
        survives.is_alive(),
        "the instance that nobody killed is gone"
    );

    fleet.up().await?;
    for id in [&survivor, &victim, &last] {
        fleet.until_status(id, "active", ACTIVE_WITHIN).await?;
    }
    let after = until(
        "the survivor is shown",
        Duration::from_secs(10),
        async || Ok(deployment::process(&fleet.deployment(&survivor).await?).ok()),
    )
    .await?;
    ensure!(
        after == survives,
        "the survivor was {survives} and is {after}"
    );
    let restarted = until("the victim is shown", Duration::from_secs(10), async || {
        let now = deployment::process(&fleet.deployment(&victim).await?)?;
        Ok((now != dies).then_some(now))
    })
    .await?;
    ensure!(restarted.is_alive(), "the victim was not restarted");
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    Ok(())
}

/// All controllers and agents.
fn members(fleet: &Fleet) -> Result<Vec<ProcessIdentity>> {
    CONTROLLERS
        .iter()
        .chain(&AGENTS)
        .map(|name| fleet.process(name))
        .collect()
}

/// Deployments, releases and agents.
async fn holdings(fleet: &Fleet) -> Result<[Value; 3]> {
    let api = fleet.api()?;
    let deployments = api.list(DEPLOYMENTS, "cursor").await?;
    let releases = api.list("/api/v1/releases", "cursor").await?;
    let mut agents = api.list("/api/v1/agents", "cursor").await?;
    for agent in &mut agents {
        *agent = json!([agent["id"], agent["region"], agent["incarnation"]]);
    }
    Ok([deployments.into(), releases.into(), agents.into()])
}

fn ids(deployments: &Value) -> Vec<String> {
    let items = deployments.as_array().into_iter().flatten();
    items
        .map(|deployment| deployment::text(deployment, "id").to_owned())
        .collect()
}

fn other_token(fleet: &Fleet) -> Result<Option<String>> {
    Ok(Some(
        std::fs::read_to_string(fleet.home().join("admin.token"))?
            .trim()
            .to_owned(),
    ))
}
