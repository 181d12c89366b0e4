//! Licences: changed by an operator and at once in the instance's hands, withdrawn by an operator alone, and never ended
//! by time or by absent controllers.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use dotmac_runtime::{clock::Clock, process::Signal};
use dotmac_tests::{
    deployment::text,
    fleet::{ACTIVE_WITHIN, CONTROLLERS, Fleet},
    foreign::Foreign,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long a change of a licence may take to the instance.
const CHANGED_WITHIN: Duration = Duration::from_secs(2);

pub(crate) async fn a_changed_license_is_in_the_instances_hands_within_two_seconds(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let isp = Foreign::deploy(&fleet, "Licensed ISP", "do-fra1").await?;
    let process = isp.process().await?;
    for most in [2_000, 3_000, 4_000, 5_000, 6_000] {
        let started = Instant::now();
        change(&fleet, &isp.id, &json!({ "max_subscribers": most })).await?;
        let left = CHANGED_WITHIN.saturating_sub(started.elapsed());
        until(&format!("{most} subscribers"), left, async || {
            Ok((isp.license().await?["max_subscribers"] == most).then_some(()))
        })
        .await?;
    }
    let arguments = [
        "licenses",
        "update",
        &isp.id,
        "--tier",
        "enterprise",
        "--max-subscribers",
        "7000",
        "--wait",
    ];
    let shown = fleet.dotmac_json(&arguments).await?;
    ensure!(shown["license_tier"] == "enterprise", "{shown}");
    let license = isp.license().await?;
    ensure!(
        license["max_subscribers"] == 7000 && license["features"]["ai_insights"] == true,
        "`--wait` came back before the instance had it: {license}"
    );
    fleet.until_status(&isp.id, "active", ACTIVE_WITHIN).await?;
    ensure!(
        isp.process().await? == process,
        "the instance was restarted"
    );
    Ok(())
}

pub(crate) async fn a_withdrawn_license_stops_the_process_and_a_reinstated_one_starts_it(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let isp = Foreign::deploy(&fleet, "Unpaid ISP", "aws-eu-west-1").await?;
    for (verb, phase) in [("suspend", "suspended"), ("revoke", "revoked")] {
        let process = isp.process().await?;
        let arguments = [
            "licenses",
            verb,
            &isp.id,
            "--reason",
            "three invoices",
            "--wait",
        ];
        let license = fleet.dotmac_json(&arguments).await?;
        ensure!(
            license["status"] == phase && license["reason"] == "three invoices",
            "{license}"
        );
        until("its process is stopped", ACTIVE_WITHIN, async || {
            Ok((!process.is_alive()).then_some(()))
        })
        .await?;
        let refused = fleet.dotmac(&["deployments", "resume", &isp.id]).await?;
        let refused = refused.with_code(4)?;
        ensure!(
            refused.err.contains("reinstate it first"),
            "{}",
            refused.err
        );
        let told = fleet.dotmac(&["explain", &isp.id]).await?.ok()?.out;
        ensure!(told.contains("dotmac licenses reinstate"), "{told}");
        ensure!(!told.contains("dotmac deployments resume"), "{told}");

        let arguments = ["licenses", "reinstate", &isp.id, "--wait"];
        let license = fleet.dotmac_json(&arguments).await?;
        ensure!(
            license["status"] == "valid" && license["reason"].is_null(),
            "{license}"
        );
        let after = isp.restarted(&process).await?;
        ensure!(
            after.is_alive() && isp.license().await?["is_valid"] == true,
            "no licence"
        );
    }
    Ok(())
}

pub(crate) async fn law_5_no_timer_takes_an_instance_down(fleet: Arc<Fleet>) -> Result<()> {
    let isp = Foreign::deploy(&fleet, "Late ISP", "azure-westeurope").await?;
    isp.count(300).await?;
    let soon = in_seconds(4)?;
    change(
        &fleet,
        &isp.id,
        &json!({"expires_at": soon, "grace_days": 14}),
    )
    .await?;
    in_phase(&isp, &["valid"]).await?;
    let license = in_phase(&isp, &["grace"]).await?;
    ensure!(
        license["is_valid"] == true && license["features"]["advanced_analytics"] == true,
        "{license}"
    );
    survives(&isp, "grace").await?;

    change(&fleet, &isp.id, &json!({"grace_days": 0})).await?;
    let license = in_phase(&isp, &["restricted"]).await?;
    ensure!(license["is_valid"] == true, "{license}");
    let features = license["features"].as_object().into_iter().flatten();
    let granted: Vec<&str> = features
        .filter(|(_, is_on)| **is_on == true)
        .map(|(name, _)| name.as_str())
        .collect();
    let free = [
        "customer_management",
        "simple_billing",
        "standard_reporting",
    ];
    ensure!(granted == free, "{license}");
    ensure!(license["max_subscribers"] == 300, "it may grow: {license}");
    survives(&isp, "restricted").await?;
    let told = isp.count(301).await?;
    ensure!(
        told["enforcement_action"] == "hard_limit"
            && text(&told, "message").contains("restricted")
            && told["warnings"][0]
                .as_str()
                .is_some_and(|text| text.contains("restricted")),
        "{told}"
    );
    let shown = fleet.dotmac_json(&["licenses", "show", &isp.id]).await?;
    ensure!(shown["status"] == "restricted", "{shown}");
    let listed = fleet
        .dotmac(&["licenses", "list", "--status", "restricted"])
        .await?;
    ensure!(listed.ok()?.out.contains(&isp.id), "it is not listed");

    let arguments = [
        "licenses",
        "update",
        &isp.id,
        "--expires-at",
        "never",
        "--wait",
    ];
    fleet.dotmac(&arguments).await?.ok()?;
    let license = in_phase(&isp, &["valid"]).await?;
    ensure!(
        license["max_subscribers"] == 1000 && license["message"] == "",
        "{license}"
    );
    Ok(())
}

pub(crate) async fn law_5_an_instance_restarts_licensed_while_all_controllers_are_away(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let region = "byov-lagos";
    let isp = Foreign::deploy(&fleet, "Island ISP", region).await?;
    let hold = fleet.kill_and_hold(&CONTROLLERS).await?;
    // The instance ends while its agent is away, too: that one comes back with nothing but its disk.
    let agent = fleet.process(region)?;
    let held = fleet.kill_and_hold(&[region]).await?;
    let before = isp.process().await?;
    before.send_signal(Signal::KILL)?;
    drop(held);
    fleet.back(region, &agent).await?;
    isp.restarted(&before).await?;
    let license = isp.license().await?;
    ensure!(
        license["is_valid"] == true && license["max_subscribers"] == 1000,
        "{license}"
    );
    isp.post("/events/webhook", &isp.event("cut-off-1", "nas.offline"))
        .await?;
    drop(hold);
    let path = format!("/api/v1/tenants/{}/events", isp.id);
    until(
        "what was told meanwhile arrives",
        Duration::from_secs(60),
        async || {
            let events = fleet.api()?.list(&path, "cursor").await?;
            Ok((events.len() == 1 && events[0]["event_id"] == "cut-off-1").then_some(()))
        },
    )
    .await
}

async fn change(fleet: &Fleet, id: &str, body: &Value) -> Result<Value> {
    let path = format!("/api/v1/licenses/{id}");
    let api = fleet.api()?;
    let answer = api.ask(Method::PATCH, &path, Some(body), None).await?;
    answer.ok(200)
}

/// Waits until the instance is told one of these phases.
async fn in_phase(isp: &Foreign, phases: &[&str]) -> Result<Value> {
    until(
        &format!("the license is {phases:?}"),
        Duration::from_secs(10),
        async || {
            let license = isp.license().await?;
            let phase = text(&license, "status");
            ensure!(phases.contains(&phase), "it is {phase}");
            Ok(Some(license))
        },
    )
    .await
}

/// It is killed and starts again, with a licence that says what it is.
async fn survives(isp: &Foreign, phase: &str) -> Result<()> {
    let before = isp.process().await?;
    before.send_signal(Signal::KILL)?;
    isp.restarted(&before).await?;
    let license = isp.license().await?;
    ensure!(
        license["status"] == phase && text(&license, "message").contains("the license ended"),
        "{license}"
    );
    Ok(())
}

/// So many seconds from now, as requests write times.
fn in_seconds(seconds: u64) -> Result<String> {
    let time = Clock::system().now().plus_millis(seconds * 1_000);
    let time = jiff::Timestamp::from_millisecond(i64::try_from(time.0)?)?;
    Ok(time.to_string())
}
