//! `dotmac demo break`: how the product is shown, and whether what it counts is true.

use std::sync::Arc;

use anyhow::{Result, ensure};
use dotmac_tests::fleet::Fleet;

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
    broken(&fleet, "agent").await
}

/// Point 8.
pub(crate) async fn breaking_an_instance_loses_nothing(fleet: Arc<Fleet>) -> Result<()> {
    broken(&fleet, "instance").await
}

/// Point 8.
pub(crate) async fn breaking_all_controllers_loses_nothing(fleet: Arc<Fleet>) -> Result<()> {
    broken(&fleet, "controllers").await
}

async fn broken(fleet: &Fleet, what: &str) -> Result<()> {
    fleet
        .deploy(&format!("Shown with {what}"), "do-fra1")
        .await?;
    let said = fleet.dotmac(&["demo", "break", what]).await?.ok()?;
    let text = format!("{}{}", said.out, said.err);
    ensure!(
        text.lines()
            .any(|line| line.contains("lost") && line.contains('0')),
        "{text}"
    );
    fleet.settled().await?;
    fleet.agents_connected().await
}
