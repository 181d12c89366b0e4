//! Agents and instances that break.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use dotmac_tests::{
    deployment,
    fleet::Fleet,
    processes,
    wait::{throughout, until},
};
use serde_json::json;

/// Bytes that an instance writes while its agent is dead.
const WRITTEN: u64 = 1 << 20;

/// Point 5: the agent's end is nobody else's.
pub(crate) async fn an_agent_that_was_killed_finds_everything_as_it_left_it(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let writer = fleet.deploy("Writing ISP", "do-fra1").await?;
    let leaver = fleet.deploy("Leaving ISP", "do-fra1").await?;
    let before = deployment::process(&fleet.deployment(&writer).await?)?;
    let agent = fleet.process("do-fra1")?;
    let hold = fleet.kill_and_hold(&["do-fra1"]).await?;
    fleet
        .control(&writer, &json!({"mode": "healthy", "write_bytes": WRITTEN}))
        .await?;
    fleet.crash(&leaver, 7).await?;
    throughout(Duration::from_secs(2), async || {
        processes::all_alive(std::slice::from_ref(&before))
    })
    .await?;
    drop(hold);
    fleet.back("do-fra1", &agent).await?;

    let exited = fleet
        .until_told(
            &leaver,
            "instance.exited",
            "exit code 7",
            Duration::from_secs(20),
        )
        .await?;
    ensure!(
        deployment::text(&exited, "detail").contains("while the agent was away"),
        "{exited}"
    );
    let adopted = fleet
        .until_told(&writer, "instance.adopted", "", Duration::from_secs(20))
        .await?;
    let detail = deployment::text(&adopted, "detail");
    let said = detail
        .split(" wrote ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let bytes: u64 = said.unwrap_or_default().parse().unwrap_or_default();
    ensure!((WRITTEN..2 * WRITTEN).contains(&bytes), "{detail}");
    let logs = fleet
        .dotmac(&["logs", &writer, "--lines", "5"])
        .await?
        .ok()?
        .out;
    ensure!(
        logs.contains(&format!("output line {} ", WRITTEN / 64)),
        "{logs}"
    );

    let after = deployment::process(
        &fleet
            .until_status(&writer, "active", Duration::from_secs(20))
            .await?,
    )?;
    ensure!(before == after, "process {before} became {after}");
    let active = fleet
        .until_status(&leaver, "active", Duration::from_secs(30))
        .await?;
    ensure!(deployment::restarts(&active) == 1, "{active}");
    Ok(())
}

/// Point 5.
pub(crate) async fn a_killed_instance_is_restarted_and_shown_as_degraded(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Killed ISP", "byov-lagos").await?;
    let process = deployment::process(&fleet.deployment(&id).await?)?;
    process.send_signal(Signal::KILL)?;
    fleet
        .until_status(&id, "degraded", Duration::from_secs(10))
        .await?;
    fleet
        .until_told(&id, "instance.exited", "signal 9", Duration::from_secs(10))
        .await?;
    let active = fleet
        .until_status(&id, "active", Duration::from_secs(30))
        .await?;
    let now = deployment::process(&active)?;
    ensure!(
        now != process && deployment::restarts(&active) == 1,
        "{active}"
    );
    fleet
        .until_told(&id, "health.degraded", "", Duration::from_secs(5))
        .await?;
    Ok(())
}

/// Point 5.
pub(crate) async fn a_hang_is_found_by_the_probe(fleet: Arc<Fleet>) -> Result<()> {
    let id = fleet.deploy("Hanging ISP", "aws-eu-west-1").await?;
    let process = deployment::process(&fleet.deployment(&id).await?)?;
    fleet.control(&id, &json!({"mode": "hang"})).await?;
    fleet
        .until_status(&id, "degraded", Duration::from_secs(15))
        .await?;
    ended(&process, Duration::from_secs(30)).await?;
    let active = fleet
        .until_status(&id, "active", Duration::from_secs(40))
        .await?;
    ensure!(deployment::process(&active)? != process, "{active}");
    fleet
        .until_told(&id, "instance.exited", "hung", Duration::from_secs(5))
        .await?;
    Ok(())
}

/// Point 5.
pub(crate) async fn an_instance_that_keeps_crashing_fails_with_the_reason_and_its_last_lines(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let program = fleet.home().join("bin/demo-isp").display().to_string();
    let mut manifest: serde_json::Value =
        serde_json::from_str(include_str!("../../releases/demo-isp.json"))?;
    manifest["name"] = "crashing-isp".into();
    manifest["channel"] = "broken".into();
    manifest["components"]["web"]["run"]["command"] = json!([program]);
    manifest["components"]["web"]["env"]["DEMO_MODE"] = "crash-loop".into();
    manifest["components"]["web"]["env"]["DEMO_EXIT_CODE"] = "9".into();
    fleet
        .api()?
        .post("/api/v1/releases", &manifest)
        .await?
        .ok(201)?;
    let body = json!({"tenant_name": "Crashing ISP", "region": "gcp-europe-west1", "image_tag": "crashing-isp:1.0.0"});
    let id = fleet.create(&body).await?;
    let failed = fleet
        .until_status(&id, "failed", Duration::from_secs(60))
        .await?;
    let reason = deployment::waiting(&failed);
    ensure!(reason.contains("exit code 9"), "the reason is {reason:?}");
    ensure!(
        reason.contains("told to crash at its start"),
        "its last lines are not in {reason:?}"
    );
    // The others of that agent do not suffer.
    fleet.deploy("Quiet ISP", "gcp-europe-west1").await?;
    fleet.delete(&id).await?;
    fleet
        .until_status(&id, "destroyed", Duration::from_secs(40))
        .await?;
    Ok(())
}

async fn ended(process: &ProcessIdentity, within: Duration) -> Result<()> {
    until("the process is gone", within, async || {
        Ok((!process.is_alive()).then_some(()))
    })
    .await
}
