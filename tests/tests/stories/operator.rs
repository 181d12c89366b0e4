//! What an operator does on a quiet day.
//! Longer than 400 lines: these stories share one fleet, and a group of stories is one file.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    api::{DEPLOYMENTS, fetch},
    deployment,
    fleet::{ACTIVE_WITHIN, Fleet, GRACE_MS},
    processes,
    wait::{throughout, until},
};
use reqwest::Method;
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
        refused.status == 422,
        "a retired release was deployed: {refused:?}"
    );
    let still = fleet.deployment(&id).await?;
    ensure!(
        still["status"] == "active",
        "retiring touched what runs: {still}"
    );
    Ok(())
}

/// Point 6.
pub(crate) async fn law_7_a_foreign_deployment_and_a_missing_one_give_the_same_404(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let own = fleet.deploy("Own ISP", "byov-lagos").await?;
    let foreign = fleet
        .create(&json!({"tenant_name": "Foreign ISP", "region": "byov-lagos"}))
        .await?;
    let missing = format!("foreign-isp-{}", "0".repeat(8));
    let secret = "a-tenants-own-token-0123456789abcdef";
    let digest = dotmac_controller::node::bearer_digest(secret).to_string();
    let body = json!({"id": "00000000000000aa", "secret_digest": digest, "name": "its own admin",
        "role": "tenant_admin", "tenant_id": own});
    fleet.api()?.post("/api/v1/tokens", &body).await?.ok(201)?;
    let tenant = fleet.api()?.with_token(Some(secret.to_owned()));
    // The token counts everywhere, and opens what is its tenant's.
    until("the token is known", Duration::from_secs(5), async || {
        Ok(tenant.get(&format!("{DEPLOYMENTS}/{own}")).await.ok())
    })
    .await?;
    for (method, path) in [
        (Method::GET, "{id}"),
        (Method::DELETE, "{id}"),
        (Method::POST, "{id}/undelete"),
        (Method::GET, "{id}/logs?lines=1"),
    ] {
        let mut answers = Vec::new();
        for id in [&foreign, &missing] {
            let path = format!("{DEPLOYMENTS}/{}", path.replace("{id}", id));
            let answer = tenant.ask(method.clone(), &path, None, None).await?;
            let mut headers = answer.headers.clone();
            headers.retain(|name, _| !matches!(name.as_str(), "x-request-id" | "date"));
            answers.push((
                answer.status,
                answer.body.to_string().replace(id, "ID"),
                headers,
            ));
        }
        ensure!(
            answers[0].0 == 404,
            "{method} {path} answers {:?}",
            answers[0]
        );
        let strip = |text: &str| {
            let mut body: Value = serde_json::from_str(text).unwrap_or_default();
            for name in ["request_id", "instance"] {
                body.as_object_mut().map(|body| body.remove(name));
            }
            body
        };
        let [one, other] =
            [&answers[0], &answers[1]].map(|one| (one.0, strip(&one.1), one.2.clone()));
        ensure!(
            one == other,
            "foreign and missing differ for {method} {path}: {one:?} and {other:?}"
        );
    }
    let listed = tenant.list(DEPLOYMENTS, "cursor").await?;
    ensure!(
        listed.len() == 1 && listed[0]["id"] == own.as_str(),
        "{listed:?}"
    );
    let story = tenant
        .ask(
            Method::GET,
            &format!("/api/v1/audit?tenant={foreign}"),
            None,
            None,
        )
        .await?;
    ensure!(story.status == 404, "somebody else's story: {story:?}");
    let admin = fleet.deployment(&foreign).await?;
    ensure!(
        admin["status"] != "destroying",
        "a stranger's DELETE counted: {admin}"
    );
    Ok(())
}

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

/// One agent is worth one agent: whoever finds a used token, or shows it elsewhere, gets nothing.
pub(crate) async fn law_4_a_join_token_admits_one_agent_of_one_region_once(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let before = fleet.api()?.list("/api/v1/agents", "cursor").await?.len();
    let used = std::fs::read_to_string(fleet.home().join("do-fra1/join.token"))?;
    let fresh = fleet
        .dotmac(&["agents", "token", "--region", "do-fra1"])
        .await?
        .ok()?
        .out;
    for (name, region, token) in [
        ("thief", "do-fra1", used.as_str()),
        ("stranger", "byov-lagos", fresh.trim()),
    ] {
        let directory = fleet.home().join(name);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("join.token"), token)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(directory.join("join.token"), mode)?;
        let base = fleet.port_base();
        let config = format!(
            "region = \"{region}\"\ndata_dir = \"data\"\njoin_token_file = \"join.token\"\ntenants = []\n\
             [instance_api]\nlisten = \"127.0.0.1:{}\"\n[process]\nport_first = {}\nport_last = {}\n",
            base + 30,
            base + 40,
            base + 79
        );
        std::fs::write(directory.join("agent.toml"), config)?;
        let agent = fleet.home().join("bin/dotmac-agent");
        let config = directory.join("agent.toml").display().to_string();
        let ran = dotmac_tests::cli::run(&agent, &["run", "--config", &config], &[]).await?;
        ensure!(ran.code != 0, "an agent with the token of {name} ran");
        let said = format!("{}{}", ran.out, ran.err);
        ensure!(said.contains("token"), "it does not say why: {said}");
    }
    let after = fleet.api()?.list("/api/v1/agents", "cursor").await?.len();
    ensure!(before == after, "{before} agents became {after}");
    Ok(())
}

/// Bounded: a body that is too large, and an instance that talks without end.
pub(crate) async fn law_11_what_is_too_much_is_refused_or_cut_and_nothing_else_suffers(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let large = format!("{{\"tenant_name\":\"{}\"}}", "x".repeat(4 << 20));
    // The controller may close the connection while the body is still coming; it must not take it.
    if let Ok(answer) = fleet.api()?.post_text(DEPLOYMENTS, large).await {
        ensure!(answer.status == 413, "a body of 4 MiB: {answer:?}");
    }
    let deep = "[".repeat(100_000);
    let answer = fleet.api()?.post_text(DEPLOYMENTS, deep).await?;
    ensure!(
        (400..500).contains(&answer.status),
        "brackets without end: {answer:?}"
    );
    let id = fleet.deploy("Talking ISP", "gcp-europe-west1").await?;
    let written = 48 << 20;
    fleet
        .control(&id, &json!({"mode": "healthy", "write_bytes": written}))
        .await?;
    let units = fleet.home().join("gcp-europe-west1/data/units").join(&id);
    let kept = || -> u64 {
        files(&units)
            .into_iter()
            .filter_map(|path| Some(path.metadata().ok()?.len()))
            .sum()
    };
    until("the output was cut", Duration::from_secs(20), async || {
        let kept = kept();
        Ok((kept > 0 && kept < written / 2).then_some(()))
    })
    .await?;
    let active = fleet.until_status(&id, "active", ACTIVE_WITHIN).await?;
    ensure!(deployment::restarts(&active) == 0, "{active}");
    Ok(())
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            Ok(_) => vec![entry.path()],
            Err(_) => Vec::new(),
        })
        .collect()
}
