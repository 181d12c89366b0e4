//! From started processes to a fleet that is ready: controllers answer, every region has its agent, the demo release
//! is there. All of it through the API with the admin's token, like anybody.

use std::{collections::BTreeSet, time::Duration};

use dotmac_protocol::ids::RegionId;
use dotmac_runtime::{disk, entropy::Entropy, process::Signal};
use serde_json::Value;
use tokio::time::Instant;

use super::{layout::Layout, member::Member, release, retired};
use crate::cli::{
    Client, agents, cluster, elapsed_ms, encode, failure::Failure, logs::tail, releases, view,
};

/// Milliseconds for all of it; a first start on a small machine takes a few thousand, with half a second a sync most of a
/// minute.
const PATIENCE_MS: u64 = 120_000;
/// Milliseconds after which a process that is still down, or down again, will not come up by itself.
const DOWN_PATIENCE_MS: u64 = 5_000;
/// Milliseconds between two looks.
const LOOK_MS: u64 = 50;
/// Milliseconds that a join token lives.
const TOKEN_LIFETIME_MS: u64 = 3_600_000;

/// Brings a started fleet to the point where it can be used.
pub(crate) async fn settle(
    layout: &Layout,
    client: &Client,
    entropy: &Entropy,
    tell: &impl Fn(&str),
) -> Result<(), Failure> {
    let started = Instant::now();
    let (mut controllers, mut ready) = (0, 0);
    let mut left_out = BTreeSet::new();
    let all_ready = wait(
        layout,
        started,
        "the controllers are not ready",
        async || {
            let found = retired::readiness(layout, client).await?;
            controllers = found.len();
            let is_ready = |one: &&(String, Result<bool, String>)| one.1 == Ok(true);
            ready = found.iter().filter(is_ready).count();
            if (controllers / 2 + 1..controllers).contains(&ready) {
                // What is not ready may have been taken out of the cluster.
                if let Err(failure) = retired::note(layout, client).await {
                    tracing::debug!(error = %failure, "who is a member is not known");
                }
            }
            // Noted here, at an earlier start, or by the supervisor when one of them ended.
            for line in retired::noted(layout) {
                if left_out.insert(line.clone()) {
                    tell(&line);
                }
            }
            Ok(ready == controllers)
        },
    )
    .await;
    match all_ready {
        // A majority decides and signs: the fleet is of use, and what ails the rest is said.
        Err(Failure::TimedOut(why)) if ready > controllers / 2 => tell(&why),
        other => other?,
    }
    tell(&format!("{ready} controllers are ready"));
    let agents = Member::all(layout)
        .into_iter()
        .filter(|member| !member.is_controller());
    let agents: Vec<_> = agents.collect();
    admit(client, entropy, &agents).await?;
    let connected = async || {
        let connected = regions(&agents::list(client).await?, true);
        let all = agents.iter().all(|agent| connected.contains(&agent.name));
        Ok(all && sessions(&client.get(cluster::PATH).await?) >= agents.len())
    };
    wait(layout, started, "not every agent is connected", connected).await?;
    tell(&format!("{} agents are connected", agents.len()));
    add_demo(layout, client).await
}

/// A join token for every region whose agent never joined.
async fn admit(client: &Client, entropy: &Entropy, agents: &[Member]) -> Result<(), Failure> {
    let known = regions(&agents::list(client).await?, false);
    for agent in agents.iter().filter(|agent| !known.contains(&agent.name)) {
        let region: RegionId = agent.name.parse().expect("regions are labels");
        let (token, _) = agents::make_token(client, entropy, region, TOKEN_LIFETIME_MS).await?;
        let path = agent.join_token();
        disk::write_atomic(&path, format!("{}\n", token.to_text()).as_bytes(), 0o600)
            .map_err(|cause| Failure::io("write", &path, &cause))?;
        // One that runs already holds an older token, from a first start that was interrupted.
        if let Some(identity) = agent.pid_file.running()
            && let Err(cause) = identity.send_signal(Signal::TERM)
        {
            tracing::debug!(error = %cause, "not restarted");
        }
    }
    Ok(())
}

/// Agents' sessions that the controllers hold now: what they knew before a restart does not count.
pub(super) fn sessions(status: &Value) -> usize {
    let counts = view::items(status, "nodes").iter();
    let counts = counts.filter_map(|node| node["agents"].as_u64());
    usize::try_from(counts.sum::<u64>()).unwrap_or(usize::MAX)
}

fn regions(agents: &[Value], only_connected: bool) -> BTreeSet<String> {
    agents
        .iter()
        .filter(|agent| !only_connected || agent["status"] == "connected")
        .map(|agent| view::text(agent, "region"))
        .collect()
}

async fn add_demo(layout: &Layout, client: &Client) -> Result<(), Failure> {
    let program = layout.program(release::DEMO_PROGRAM);
    let manifest = release::demo(&program, false)?;
    let path = |version: &str| format!("{}/{}/{}", releases::PATH, manifest.name, encode(version));
    let known: Value = match client.get(&path(manifest.version.as_str())).await {
        Err(Failure::NotFound(_)) => Value::Null,
        other => other?,
    };
    let digest = view::text(&known, "digest");
    let manifest = match digest.as_str() {
        "" => manifest,
        same if same == manifest.digest().to_string() => return Ok(()),
        _ => release::demo(&program, true)?,
    };
    client
        .post(releases::PATH, Some(&release::body(&manifest)))
        .await
        .map(|_| ())
}

/// Looks until it holds, or until the time is over or a process stays down; then it says what that one said last.
async fn wait(
    layout: &Layout,
    started: Instant,
    why_not: &str,
    mut holds: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut up_until = Instant::now();
    loop {
        let cause = match holds().await {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(failure @ (Failure::Unreachable { .. } | Failure::Failed(_))) => {
                format!(": {failure}")
            }
            Err(refused) => return Err(refused),
        };
        let ailing = ailing(layout);
        if ailing.is_empty() {
            up_until = Instant::now();
        }
        if elapsed_ms(started) >= PATIENCE_MS || elapsed_ms(up_until) >= DOWN_PATIENCE_MS {
            let waited = elapsed_ms(started) / 1_000;
            return Err(Failure::TimedOut(format!(
                "{why_not} after {waited} s{cause}{ailing}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// The processes that should run and do not, with the last line each of them said.
fn ailing(layout: &Layout) -> String {
    let mut text = String::new();
    for member in Member::all(layout)
        .iter()
        .filter(|member| member.may_start() && member.pid_file.running().is_none())
    {
        let said = tail(&member.crash_log(), 1)
            .map(|(text, _)| text)
            .unwrap_or_default();
        let said = if said.trim().is_empty() {
            "it said nothing"
        } else {
            said.trim()
        };
        text.push_str(&format!("\n  {} does not run: {said}", member.name));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{regions, sessions};

    #[test]
    fn an_agent_that_joined_before_needs_no_token_even_if_it_is_away() {
        let agents = [
            json!({"region": "do-fra1", "status": "connected"}),
            json!({"region": "byov-lagos", "status": "disconnected"}),
        ];
        assert_eq!(regions(&agents, false).len(), 2);
        assert_eq!(
            regions(&agents, true).into_iter().collect::<Vec<_>>(),
            ["do-fra1"]
        );
    }

    #[test]
    fn only_sessions_of_controllers_that_answer_count() {
        let nodes = json!([{"agents": 2}, {"agents": 3}, {"state": "unreachable", "agents": null}]);
        assert_eq!(sessions(&json!({ "nodes": nodes })), 5);
    }
}
