//! What is left of everything that happened, and what must not be left anywhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{api::DEPLOYMENTS, deployment, fleet::Fleet, search, wait::until};
use serde_json::json;

/// Point 7.
pub(crate) async fn one_story_with_one_request_from_the_api_to_the_agent(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let body = json!({"tenant_name": "Story ISP", "region": "byov-lagos"});
    let answer = fleet.api()?.post(DEPLOYMENTS, &body).await?;
    let request = answer
        .headers
        .get("x-request-id")
        .context("no x-request-id")?
        .clone();
    let id = deployment::id(&answer.ok(201)?)?;
    fleet
        .until_status(&id, "active", Duration::from_secs(20))
        .await?;
    fleet
        .until_told(&id, "health.healthy", "", Duration::from_secs(5))
        .await?;
    let told = fleet.dotmac_json(&["audit", "--tenant", &id]).await?;
    let story = told["items"].as_array().context("no items")?;
    let actions: Vec<&str> = story
        .iter()
        .map(|record| deployment::text(record, "action"))
        .collect();
    let mut place = 0;
    for action in [
        "deployment.created",
        "wave.sealed",
        "intent.accepted",
        "intent.applied",
        "health.healthy",
    ] {
        let found = actions.iter().position(|one| *one == action);
        let found = found.with_context(|| format!("{action} is missing in {actions:?}"))?;
        ensure!(found >= place, "{action} comes too early in {actions:?}");
        place = found;
    }
    for record in story {
        ensure!(
            record["request"] == request.as_str(),
            "not of request {request}: {record}"
        );
        ensure!(record["tenant"] == id.as_str(), "{record}");
    }
    let actors: BTreeSet<&str> = story
        .iter()
        .filter_map(|record| deployment::text(record, "actor").split(':').next())
        .collect();
    ensure!(
        actors == BTreeSet::from(["person", "planner", "agent"]),
        "{actors:?}"
    );
    let page = fleet.dotmac(&["audit", "--tenant", &id]).await?.ok()?.out;
    ensure!(
        page.contains("deployment.created") && page.contains(&request[..12]),
        "{page}"
    );
    Ok(())
}

/// Law 9: the log, the State, traces and audit hold references and ciphertexts, whatever was asked.
pub(crate) async fn law_9_a_planted_secret_is_in_no_file_but_the_one_that_its_agent_keeps(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let canary = "canary-7f3a9c51e0d84b26";
    let body = json!({
        "tenant_name": "Secret ISP", "region": "azure-westeurope",
        "database_url": format!("postgresql://isp:{canary}@127.0.0.1:5432/isp"),
        "redis_url": format!("redis://:{canary}@127.0.0.1:6379/0"),
        "custom_config": {"smtp_password": canary, "greeting": "hello"},
    });
    let id = fleet.create(&body).await?;
    let active = fleet
        .until_status(&id, "active", Duration::from_secs(20))
        .await?;
    // It arrived: the instance was started with it.
    let process = deployment::process(&active)?;
    let environment = fs::read(format!("/proc/{}/environ", process.pid))?;
    ensure!(
        dotmac_tests::processes::contains(&environment, canary.as_bytes()),
        "the instance did not get its database_url"
    );
    // And whoever asks is not told.
    for path in [
        format!("{DEPLOYMENTS}/{id}"),
        DEPLOYMENTS.to_owned(),
        format!("/api/v1/audit?tenant={id}"),
    ] {
        let shown = fleet.api()?.get(&path).await?.to_string();
        ensure!(!shown.contains(canary), "{path} shows it");
    }
    // A crash makes the agent keep last lines, and a second start.
    fleet.crash(&id, 3).await?;
    fleet
        .until_told(
            &id,
            "instance.exited",
            "exit code 3",
            Duration::from_secs(10),
        )
        .await?;
    for needle in [canary.to_owned(), hex::encode(canary), base64(canary)] {
        let (found, read) = search::files_with(fleet.home(), needle.as_bytes())?;
        ensure!(read > 100, "only {read} files were searched");
        let own = fleet.home().join("azure-westeurope/data");
        let may_hold = |path: &Path| {
            path.starts_with(own.join("units")) || path.starts_with(own.join("platform"))
        };
        for file in found {
            ensure!(
                may_hold(&file.path),
                "{} holds the secret",
                file.path.display()
            );
            ensure!(
                file.mode == 0o600,
                "{} has mode {:o}",
                file.path.display(),
                file.mode
            );
        }
    }
    Ok(())
}

/// Point 4: sealed by the agent to whoever asks.
pub(crate) async fn the_logs_of_an_instance_reach_the_operator_through_no_controllers_eyes(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Talkative ISP", "do-fra1").await?;
    fleet
        .control(&id, &json!({"mode": "healthy", "write_bytes": 64}))
        .await?;
    let logs = fleet.dotmac(&["logs", &id]).await?.ok()?.out;
    ensure!(logs.contains("output line 1"), "{logs}");
    fleet
        .until_told(&id, "deployment.logs-read", "", Duration::from_secs(5))
        .await?;
    let (found, _) = search::files_with(fleet.home(), b"output line 1")?;
    let units = fleet.home().join("do-fra1/data/units");
    let elsewhere: Vec<_> = found
        .iter()
        .filter(|file| !file.path.starts_with(&units))
        .collect();
    ensure!(
        elsewhere.is_empty(),
        "the output was written down elsewhere: {elsewhere:?}"
    );
    let own = fleet.dotmac(&["logs", "controller-1"]).await?.ok()?.out;
    ensure!(!own.is_empty(), "controller-1 has no log");
    Ok(())
}

/// Point 7.
pub(crate) async fn a_byte_changed_on_disk_is_named(fleet: Arc<Fleet>) -> Result<()> {
    let id = fleet.deploy("Proven ISP", "aws-eu-west-1").await?;
    fleet
        .until_told(&id, "health.healthy", "", Duration::from_secs(5))
        .await?;
    let proven = fleet.dotmac(&["audit", "verify"]).await?.ok()?.out;
    ensure!(proven.contains("hold"), "{proven}");
    let segment = first_segment(&fleet.home().join("aws-eu-west-1/data/chain"))?;
    let sound = fs::read(&segment)?;
    // A byte in the middle of the second record.
    let lines: Vec<usize> = sound
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(place, _)| place)
        .collect();
    ensure!(
        lines.len() >= 2,
        "fewer than two records in {}",
        segment.display()
    );
    let place = usize::midpoint(lines[0], lines[1]);
    let mut changed = sound.clone();
    changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
    fs::write(&segment, &changed)?;
    let verified = fleet.dotmac(&["audit", "verify"]).await;
    fs::write(&segment, &sound)?;
    let verified = verified?.with_code(1)?;
    let said = format!("{}{}", verified.out, verified.err);
    ensure!(
        said.contains(&segment.display().to_string()),
        "the file is not named: {said}"
    );
    ensure!(
        said.contains("record 2 is bad"),
        "the record is not named: {said}"
    );
    until("it holds again", Duration::from_secs(5), async || {
        Ok(fleet.dotmac(&["audit", "verify"]).await?.ok().ok())
    })
    .await?;
    Ok(())
}

fn first_segment(chain: &Path) -> Result<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(chain)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .collect();
    segments.sort();
    segments
        .into_iter()
        .next()
        .with_context(|| format!("no segment in {}", chain.display()))
}

/// The middle of the needle as it stands in any base64, wherever it begins: three bytes become four characters.
fn base64(needle: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = needle.as_bytes().chunks_exact(3);
    let code = |chunk: &[u8]| {
        let bits = chunk
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    };
    bytes.flat_map(code).collect()
}
