//! What an operator does on a quiet day.
//! Longer than 400 lines: these stories share one fleet, and a group of stories is one file.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    api::{DEPLOYMENTS, fetch},
    deployment,
    fleet::Fleet,
    wait::until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The request of the product's quick start, byte by byte.
const QUICK_START: &str = r#"{"tenant_name":"Demo ISP","resource_tier":"small","license_tier":"professional","domain_name":"demo-isp.dotmac.app"}"#;

/// Point 2.
pub(crate) async fn the_quick_start_request_as_it_stands_is_active_within_five_seconds(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    let started = Instant::now();
    let answer = fleet.api()?.post_text(DEPLOYMENTS, QUICK_START).await?;
    let location = answer.headers.get("location").cloned().unwrap_or_default();
    let request = answer
        .headers
        .get("x-request-id")
        .cloned()
        .unwrap_or_default();
    let created = answer.ok(201)?;
    let id = deployment::id(&created)?;
    ensure!(
        location == format!("{DEPLOYMENTS}/{id}"),
        "Location is {location:?}"
    );
    ensure!(request.len() == 32, "x-request-id is {request:?}");
    let left = Duration::from_secs(5).saturating_sub(started.elapsed());
    let active = fleet.until_status(&id, "active", left).await?;

    ensure!(
        id.starts_with("demo-isp-") && active["tenant_id"] == id.as_str(),
        "{active}"
    );
    ensure!(
        active["region"] == "aws-eu-west-1" && active["health_status"] == "healthy",
        "{active}"
    );
    ensure!(
        active["waiting"].is_null(),
        "an active deployment waits: {active}"
    );
    let stations = deployment::stations(&active);
    for station in [
        "api.received",
        "api.attested",
        "controller.committed",
        "controller.sealed",
        "controllers.signed",
        "agent.journalled",
        "agent.started",
        "instance.licensed",
        "instance.healthy",
    ] {
        ensure!(
            stations.iter().any(|one| one == station),
            "{station} is missing in {stations:?}"
        );
    }
    // What the instance says of itself: whose it is, and which configuration it got from its agent.
    let page = format!("http://{}/", deployment::address(&active)?);
    let shown = until(
        "the instance shows its configuration",
        Duration::from_secs(5),
        async || {
            let text = fetch(&page).await?.text().await?;
            Ok((!text.contains("configuration none yet")).then_some(text))
        },
    )
    .await?;
    ensure!(
        shown.contains("Demo ISP") && shown.contains(&format!("Tenant {id}")),
        "{shown}"
    );
    let health = format!("http://{}/health/ready", deployment::address(&active)?);
    let health: Value = fetch(&health).await?.json().await?;
    ensure!(health["healthy"] == true, "{health}");
    Ok(())
}

/// Point 4.
pub(crate) async fn show_tells_the_way_of_the_order_hop_by_hop(fleet: Arc<Fleet>) -> Result<()> {
    let arguments = [
        "deployments",
        "create",
        "--name",
        "Way ISP",
        "--region",
        "do-fra1",
        "--wait",
    ];
    let created = fleet.dotmac_json(&arguments).await?;
    let id = deployment::id(&created)?;
    ensure!(
        created["status"] == "active",
        "--wait came back with {created}"
    );
    let page = fleet.dotmac(&["deployments", "show", &id]).await?.ok()?.out;
    for words in [
        "api.received",
        "agent.journalled",
        "instance.healthy",
        "hop ms",
        "limits",
        "do-fra1",
    ] {
        ensure!(page.contains(words), "{words} is missing in\n{page}");
    }
    let limits = deployment::text(&created, "limits");
    ensure!(
        limits.starts_with("enforced by") || limits.starts_with("not enforced: "),
        "{limits:?}"
    );
    let listed = fleet.dotmac_json(&["deployments", "list"]).await?;
    ensure!(listed.to_string().contains(&id), "{listed}");
    let status = fleet.dotmac_json(&["cluster", "status"]).await?;
    let nodes = status["nodes"].as_array().context("no nodes")?;
    for (node, name) in nodes
        .iter()
        .zip(["controller-1", "controller-2", "controller-3"])
    {
        ensure!(
            node["pid"] == fleet.process(name)?.pid,
            "{name} is not {node}"
        );
        ensure!(node["applied"].as_u64() > Some(0), "{node}");
    }
    let agents = fleet.dotmac_json(&["agents", "list"]).await?;
    ensure!(
        agents["items"].as_array().map(Vec::len) == Some(5),
        "{agents}"
    );
    fleet
        .dotmac(&["deployments", "show", "nobody-00000000"])
        .await?
        .with_code(3)?;
    Ok(())
}

/// Point 3: what an instance is comes from a manifest alone.
pub(crate) async fn a_program_that_knows_nothing_of_the_platform_is_released_and_deployed(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/releases/python-http.json");
    fleet.dotmac(&["releases", "add", manifest]).await?.ok()?;
    let shown = fleet
        .dotmac_json(&["releases", "show", "python-http", "1.0.0"])
        .await?;
    ensure!(
        deployment::text(&shown, "digest").starts_with("sha256:"),
        "{shown}"
    );
    let body = json!({"tenant_name": "Files", "region": "gcp-europe-west1", "image_tag": "python-http:1.0.0"});
    let id = fleet.deploy_as(&body).await?;
    let active = fleet.deployment(&id).await?;
    let page = fetch(&format!("http://{}/", deployment::address(&active)?)).await?;
    let server = page
        .headers()
        .get("server")
        .context("no Server header")?
        .to_str()?
        .to_owned();
    ensure!(server.contains("Python"), "{server:?} answers");

    // A version never changes; a retired one is not chosen any more.
    let mut other: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    other["description"] = "something else".into();
    let again = fleet.api()?.post("/api/v1/releases", &other).await?;
    ensure!(
        again.status == 409,
        "another content under the same version: {again:?}"
    );
    fleet
        .dotmac(&["releases", "retire", "python-http", "1.0.0"])
        .await?
        .ok()?;
    let refused = fleet.api()?.post(DEPLOYMENTS, &body).await?;
    ensure!(
        refused.status == 409,
        "a retired release was deployed: {refused:?}"
    );
    let still = fleet.deployment(&id).await?;
    ensure!(
        still["status"] == "active",
        "retiring touched what runs: {still}"
    );
    Ok(())
}
