//! What ends access: a revoked token on every controller and in every open stream, a revoked agent for good.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_controller::access_token::AccessToken;
use dotmac_runtime::entropy::Entropy;
use dotmac_tests::{
    api::{Api, DEPLOYMENTS},
    deployment,
    fleet::{CONTROLLERS, Fleet},
    wait::{throughout, until},
    watch::Watch,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long a revoked token may still count somewhere.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
/// Who the caller is, without asking the others.
const WHOAMI: &str = "/api/v1/whoami?consistency=stale";

/// A token that every controller knows.
async fn admit(fleet: &Fleet, more: &Value) -> Result<(AccessToken, Api)> {
    let token = AccessToken::generate(&Entropy::system());
    let mut body =
        json!({"id": token.id(), "secret_digest": token.digest().to_string(), "name": "story"});
    for (name, value) in more.as_object().context("an object")? {
        body[name] = value.clone();
    }
    fleet.api()?.post("/api/v1/tokens", &body).await?.ok(201)?;
    let holder = fleet.api()?.with_token(Some(token.reveal().to_owned()));
    for node in 1..=CONTROLLERS.len() {
        let holder = holder.of_node(node);
        until("the token is known", Duration::from_secs(5), async || {
            Ok(holder.get(WHOAMI).await.ok())
        })
        .await?;
    }
    Ok((token, holder))
}

/// Point: revocation within a second, on every controller and in open streams.
pub(crate) async fn a_revoked_token_counts_nowhere_within_a_second(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Watched ISP", "do-fra1").await?;
    let rights = json!({"role": "tenant_admin", "tenant_id": id});
    let (token, holder) = admit(&fleet, &rights).await?;
    let mut streams = Vec::new();
    for node in 1..=CONTROLLERS.len() {
        let mut watch = Watch::open(&holder.of_node(node), "types=deployment").await?;
        watch.until(|event| event.kind == "synced").await?;
        streams.push(watch);
    }
    let key = "ab".repeat(32);
    let path = format!("{DEPLOYMENTS}/{id}/logs?follow=true&lines=0&seal_to={key}");
    let mut output = holder.open(&path).await?;
    ensure!(output.status().is_success(), "{}", output.status());

    let path = format!("/api/v1/tokens/{}", token.id());
    let admin = fleet.api()?.of_node(1);
    admin
        .ask(Method::DELETE, &path, None, None)
        .await?
        .ok(200)?;
    let revoked = Instant::now();
    for node in 1..=CONTROLLERS.len() {
        let holder = holder.of_node(node);
        let refused = until("the token counts no more", REVOKED_WITHIN, async || {
            let answer = holder.ask(Method::GET, WHOAMI, None, None).await?;
            Ok((answer.status == 401).then_some(answer))
        })
        .await?;
        ensure!(
            deployment::text(&refused.body, "code") == "token-ended",
            "{refused:?}"
        );
    }
    for mut watch in streams {
        let last = watch.until(|event| event.kind == "closing").await?;
        ensure!(last.data["reason"] == "the token was revoked", "{last:?}");
        ensure!(watch.next().await?.is_none(), "the stream goes on");
    }
    let mut rest = Vec::new();
    while let Some(piece) = output.chunk().await? {
        rest.extend_from_slice(&piece);
    }
    let rest = String::from_utf8(rest)?;
    ensure!(
        rest.ends_with("{\"refused\":\"the token was revoked\"}\n"),
        "{rest}"
    );
    let took = revoked.elapsed();
    ensure!(
        took < REVOKED_WITHIN + Duration::from_millis(500),
        "it took {took:?}"
    );
    // What it had asked for stands, and whoever holds another one goes on.
    ensure!(fleet.api()?.get(WHOAMI).await?["role"] == "platform_admin");
    Ok(())
}

/// A token that ends by itself is told so to its holder, by every controller.
pub(crate) async fn a_token_expires_by_itself_on_every_controller(fleet: Arc<Fleet>) -> Result<()> {
    let rights = json!({"role": "support", "ttl_ms": 10_000});
    let (_, holder) = admit(&fleet, &rights).await?;
    for node in 1..=CONTROLLERS.len() {
        let holder = holder.of_node(node);
        let refused = until("the token expires", Duration::from_secs(12), async || {
            let answer = holder.ask(Method::GET, WHOAMI, None, None).await?;
            Ok((answer.status == 401).then_some(answer))
        })
        .await?;
        let detail = deployment::text(&refused.body, "detail");
        ensure!(detail.starts_with("the token expired at "), "{detail}");
    }
    Ok(())
}

/// An agent that keeps nothing is shut out, its session cut, and it never comes back.
pub(crate) async fn a_revoked_agent_is_cut_off_and_never_comes_back(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let api = fleet.api()?;
    fleet.agents_connected().await?;
    let id = fleet.deploy("Kept ISP", "byov-lagos").await?;
    let agent = deployment::text(&fleet.deployment(&id).await?, "agent").to_owned();
    let path = format!("/api/v1/agents/{agent}");
    let refused = api.ask(Method::DELETE, &path, None, None).await?;
    ensure!(refused.status == 409, "{refused:?}");
    ensure!(refused.body.to_string().contains(&id), "{refused:?}");
    fleet.delete(&id).await?;
    fleet
        .until_status(&id, "destroyed", Duration::from_secs(60))
        .await?;
    let gone = api.ask(Method::DELETE, &path, None, None).await?.ok(200)?;
    ensure!(gone["status"] == "revoked", "{gone}");
    let sessions = async || {
        let status = api.get("/api/v1/cluster/status").await?;
        let nodes = status["nodes"].as_array().context("there are nodes")?;
        Ok::<u64, anyhow::Error>(
            nodes
                .iter()
                .filter_map(|node| node["agents"].as_u64())
                .sum(),
        )
    };
    let rest = u64::try_from(dotmac_tests::fleet::AGENTS.len())? - 1;
    until("its session is cut", Duration::from_secs(5), async || {
        Ok((sessions().await? == rest).then_some(()))
    })
    .await?;
    // It goes on trying; nobody lets it in.
    throughout(Duration::from_secs(5), async || {
        ensure!(sessions().await? <= rest, "it has a session again");
        let listed = api.get("/api/v1/agents?limit=1000").await?;
        ensure!(!listed.to_string().contains(&agent), "{listed}");
        Ok(())
    })
    .await
}
