//! `dotmac demo break`: how the product is shown, and whether what it counts is true.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Result, ensure};
use dotmac_runtime::process::ProcessIdentity;
use dotmac_tests::{
    deployment,
    fleet::{AGENTS, CONTROLLERS, Fleet},
};
use serde_json::Value;

/// Point 8.
pub(crate) async fn breaking_the_leader_loses_nothing(fleet: Arc<Fleet>) -> Result<()> {
    fleet.settled().await?;
    let (_, leader) = fleet.leader().await?;
    let before = fleet.process(leader)?;
    broken(&fleet, "leader").await?;
    ensure!(!before.is_alive(), "the leader was not killed");
    Ok(())
}

/// Point 8.
pub(crate) async fn breaking_an_agent_loses_nothing(fleet: Arc<Fleet>) -> Result<()> {
    let before = identities(&fleet, &AGENTS)?;
    broken(&fleet, "agent").await?;
    let after = identities(&fleet, &AGENTS)?;
    let killed = before.difference(&after).count();
    ensure!(killed == 1, "{killed} agents were killed");
    Ok(())
}

/// Point 8.
pub(crate) async fn breaking_an_instance_loses_nothing(fleet: Arc<Fleet>) -> Result<()> {
    let before = instances(&fleet);
    broken(&fleet, "instance").await?;
    let killed = before.iter().filter(|process| !process.is_alive()).count();
    ensure!(killed == 1, "{killed} of {before:?} were killed");
    Ok(())
}

/// Point 8.
pub(crate) async fn breaking_all_controllers_loses_nothing(fleet: Arc<Fleet>) -> Result<()> {
    let before = identities(&fleet, &CONTROLLERS)?;
    broken(&fleet, "controllers").await?;
    let after = identities(&fleet, &CONTROLLERS)?;
    ensure!(
        before.is_disjoint(&after),
        "one of {before:?} was not killed"
    );
    Ok(())
}

async fn broken(fleet: &Fleet, what: &str) -> Result<()> {
    fleet
        .deploy(&format!("Shown with {what}"), "do-fra1")
        .await?;
    let counted = fleet.dotmac_json(&["demo", "break", what]).await?;
    let number = |value: &Value| value.as_u64();
    ensure!(number(&counted["instances_lost"]) == Some(0), "{counted}");
    ensure!(number(&counted["writes"]["lost"]) == Some(0), "{counted}");
    ensure!(
        number(&counted["writes"]["acknowledged"]) > Some(10),
        "{counted}"
    );
    fleet.settled().await?;
    fleet.agents_connected().await?;
    for shown in fleet
        .api()?
        .list(dotmac_tests::api::DEPLOYMENTS, "cursor")
        .await?
    {
        let id = deployment::id(&shown)?;
        fleet
            .until_status(&id, "active", dotmac_tests::fleet::ACTIVE_WITHIN)
            .await?;
    }
    Ok(())
}

fn identities(fleet: &Fleet, names: &[&str]) -> Result<BTreeSet<ProcessIdentity>> {
    names.iter().map(|name| fleet.process(name)).collect()
}

/// The programs of all instances, without their shims.
fn instances(fleet: &Fleet) -> Vec<ProcessIdentity> {
    let programs = fleet.processes().into_iter();
    let programs = programs.filter(|process| process.command.trim_end().ends_with("bin/demo-isp"));
    programs.map(|process| process.identity).collect()
}
