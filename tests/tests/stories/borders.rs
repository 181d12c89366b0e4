//! What nobody gets: somebody else's things, a place that is not his, more than there is.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use dotmac_tests::{
    api::DEPLOYMENTS,
    deployment,
    fleet::{ACTIVE_WITHIN, Fleet},
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};

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
