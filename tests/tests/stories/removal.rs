//! How instances end, and how they do not.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{Fleet, GRACE_MS},
    processes,
    wait::throughout,
};
use serde_json::json;
use tokio::time::Instant;

/// Point 6.
pub(crate) async fn law_2_only_a_tombstone_after_its_grace_time_removes_an_instance(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Leaving ISP", "do-fra1").await?;
    let process = deployment::process(&fleet.deployment(&id).await?)?;
    let asked = Instant::now();
    let answer = fleet.delete(&id).await?;
    ensure!(answer["status"] == "destroying", "{answer}");
    // Until the grace time is over it runs on, untouched, and says what it waits for.
    let until_shortly_before =
        Duration::from_millis(GRACE_MS).saturating_sub(Duration::from_millis(700));
    throughout(
        until_shortly_before.saturating_sub(asked.elapsed()),
        async || {
            ensure!(
                process.is_alive(),
                "it was removed {:?} after DELETE",
                asked.elapsed()
            );
            Ok(())
        },
    )
    .await?;
    let waiting = fleet.deployment(&id).await?;
    ensure!(deployment::waiting(&waiting).contains("grace"), "{waiting}");
    let gone = fleet
        .until_status(&id, "destroyed", Duration::from_secs(20))
        .await?;
    ensure!(
        asked.elapsed() >= Duration::from_millis(GRACE_MS),
        "too early: {:?}",
        asked.elapsed()
    );
    ensure!(!process.is_alive(), "destroyed, and its process runs");
    ensure!(
        gone["components"].as_array().is_none_or(Vec::is_empty),
        "{gone}"
    );
    let left: Vec<_> = fleet
        .processes()
        .into_iter()
        .filter(|process| process.command.contains(&id))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    for record in ["deployment.deleted", "wave.sealed", "intent.removed"] {
        fleet
            .until_told(&id, record, "", Duration::from_secs(5))
            .await?;
    }
    let wave = fleet
        .until_told(&id, "wave.sealed", "Remove", Duration::from_secs(5))
        .await?;
    ensure!(wave["actor"] == "planner", "{wave}");
    let listed = fleet.api()?.list(DEPLOYMENTS, "cursor").await?;
    ensure!(
        !listed.iter().any(|one| one["id"] == id.as_str()),
        "lists show it unasked"
    );
    let late = fleet
        .api()?
        .post(&format!("{DEPLOYMENTS}/{id}/undelete"), &json!({}))
        .await?;
    ensure!(late.status == 409, "undelete after the end: {late:?}");
    Ok(())
}

/// Point 6.
pub(crate) async fn undelete_within_the_grace_time_restarts_nothing(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Staying ISP", "azure-westeurope").await?;
    let process = deployment::process(&fleet.deployment(&id).await?)?;
    fleet.dotmac(&["deployments", "delete", &id]).await?.ok()?;
    let destroying = fleet.deployment(&id).await?;
    ensure!(destroying["status"] == "destroying", "{destroying}");
    fleet
        .dotmac(&["deployments", "undelete", &id, "--wait"])
        .await?
        .ok()?;
    // Longer than the grace time would have lasted.
    throughout(Duration::from_millis(GRACE_MS + 1_500), async || {
        processes::all_alive(std::slice::from_ref(&process))
    })
    .await?;
    let kept = fleet.deployment(&id).await?;
    ensure!(
        kept["status"] == "active" && deployment::restarts(&kept) == 0,
        "{kept}"
    );
    Ok(())
}
